# SPDX-License-Identifier: Apache-2.0
"""A whole cloud as one value.

The network is the set of all messages ever sent: each may arrive never, late, twice and in any
order. Budgets bound how many faults of each kind may still happen.
"""

import dataclasses
from dataclasses import replace

from hotsnap_nova.protocol.coordinator import Coordinator, CoordinatorState
from hotsnap_nova.protocol.cut import DataPath, Packet
from hotsnap_nova.protocol.durable import Limits, Snapshot
from hotsnap_nova.protocol.hoststate import HostState
from hotsnap_nova.protocol.messages import Cause, Member, Work
from hotsnap_nova.protocol.participant import Participant
from tests.explore.hostmodel import Engine, Guest, Host, remembers_hash

_frozen = dataclasses.dataclass(frozen=True, slots=True)


@dataclasses.dataclass(frozen=True)
class Build:
    """What the world is made of; mutants replace one of these."""

    coordinator: type = Coordinator
    participant: type = Participant
    engine: Engine = dataclasses.field(default_factory=Engine)
    path: type = DataPath
    stops_at_failure: bool = True


FAILED = Cause("injected")
DISOWNED = Cause("disowned")
LOST = Cause("unknown_snapshot")


@_frozen
class Budget:
    """How many more faults of each kind may happen."""

    host_crashes: int = 0
    coordinator_crashes: int = 0
    takeovers: int = 0
    failures: int = 0
    lapses: int = 0
    aborts: int = 0
    withdrawals: int = 0  # a guest is deleted, or goes elsewhere
    silences: int = 0  # a host has heard nothing of a coordinator for long
    absences: int = 0  # a coordinator has heard nothing of a host for long
    losses: int = 0  # a host dies, and its journal with it
    timeouts: int = 1
    more_snapshots: int = 0
    floods: int = 0  # a guest sends, or is sent, more than its gate has room for
    forgeries: int = 0  # somebody sends a member what looks like the mark of its epoch


@remembers_hash
@dataclasses.dataclass(frozen=True)
class Slot:
    """Where a coordinator may run; two of them, for the time they know nothing of each other."""

    state: CoordinatorState | None = None


@remembers_hash
@dataclasses.dataclass(frozen=True)
class World:
    coordinators: tuple[Slot, ...]
    row: Snapshot
    hosts: tuple[Host, ...]
    net: frozenset
    left: Budget
    packets: tuple[Packet, ...] = ()  # between guests; the explorer's arrive at once

    def host(self, name):
        return next(host for host in self.hosts if host.name == name)

    def with_host(self, host):
        return replace(
            self, hosts=tuple(host if h.name == host.name else h for h in self.hosts)
        )  # fmt: skip

    def spend(self, kind):
        return replace(self, left=replace(self.left, **{kind: getattr(self.left, kind) - 1}))


def new_world(gate, hosts=2, members=1, budget=None, path=DataPath):
    """Nothing has happened yet, not even a snapshot."""
    made = []
    for n in range(hosts):
        guests = tuple(Guest(path(f"g{n}{m}")) for m in range(members))
        name = f"h{n}"
        made.append(Host(name, guests, HostState(name)))
    row = Snapshot("s0", 0, tuple(
        (host.name, Work("g", tuple(Member(g.name) for g in host.guests), gate, 1, 1))
        for host in made
    ), Limits(absent_ms=1), closed=True)  # fmt: skip
    return World((Slot(), Slot()), row, tuple(made), frozenset(), budget or Budget())
