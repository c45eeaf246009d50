# SPDX-License-Identifier: Apache-2.0
"""Where worlds begin."""

import dataclasses
from collections.abc import Callable

from hotsnap_nova.protocol.coordinator import Coordinator
from hotsnap_nova.protocol.durable import Limits, Snapshot
from hotsnap_nova.protocol.hoststate import HostState
from hotsnap_nova.protocol.messages import Gate, Member, Work
from hotsnap_nova.protocol.participant import Participant
from hotsnap_nova.protocol.restore.coordinator import RestoreCoordinator
from hotsnap_nova.protocol.restore.durable import Restore, RestoreLimits
from hotsnap_nova.protocol.restore.messages import Share
from hotsnap_nova.protocol.restore.participant import RestoreHostState, RestoreParticipant
from tests.explore.flows.engine import Engine
from tests.explore.flows.guests import Guest
from tests.explore.flows.hosts import Host, write_order
from tests.explore.flows.space import Space
from tests.explore.flows.undertakings import Undertaking


@dataclasses.dataclass(frozen=True)
class Build:
    """What worlds are made of; mutants replace one of these."""

    coordinator: type = Coordinator
    restore_coordinator: type = RestoreCoordinator
    snapshots: type = Participant
    restores: type = RestoreParticipant
    engine: Engine = dataclasses.field(default_factory=Engine)
    write_order: Callable = write_order
    stops_at_failure: bool = True
    snapshots_lock_first: bool = True  # after a restart of a host


def new_space(ids, hosts=2, members=1, build=None, atomic=True, paused=False, **budget):
    """Running guests, and undertakings that nobody has begun.

    :param ids: ``r1`` is a restore, ``s2`` a snapshot of epoch 2
    """
    made = new_hosts(hosts, members)
    undertakings = new_undertakings(ids, made, paused)
    return Space(build or Build(), made, undertakings, budget, atomic)


def new_hosts(hosts=2, members=1):
    made = []
    for n in range(hosts):
        name = f"h{n}"
        guests = tuple(Guest(f"g{n}{chr(ord('a') + m)}") for m in range(members))
        made.append(Host(
            name, guests, restores=RestoreHostState(name), snapshots=HostState(name)
        ))  # fmt: skip
    return tuple(made)


def new_undertakings(ids, hosts, paused=False):
    return tuple(Undertaking(_row(each, hosts, paused)) for each in ids)


def _row(name, hosts, paused):
    members = {host.name: tuple(Member(guest.name) for guest in host.guests) for host in hosts}
    if name.startswith("r"):
        shares = tuple((host, Share("s", here, paused)) for host, here in members.items())
        return Restore(name, "s", shares, RestoreLimits(absent_ms=1))
    works = tuple(
        (host, Work("g", here, Gate.NONE, 1, 1)) for host, here in members.items()
    )  # fmt: skip
    return Snapshot(name, int(name[1:]), works, Limits(absent_ms=1))
