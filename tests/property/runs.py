# SPDX-License-Identifier: Apache-2.0
"""Long random runs: several snapshots, many faults, and packets that guests send each other.

The explorer assumes the worst packet at every moment; here packets are real. They are numbered,
may be lost, delayed and overtaken, and a recorded state is compared by its counts alone.
"""

import dataclasses
import random
from dataclasses import replace

from hotsnap_nova.protocol.cut import Packet
from hotsnap_nova.protocol.messages import Gate
from tests.explore import promises
from tests.explore.explorer import line
from tests.explore.rules import Rules
from tests.explore.world import Budget, World, new_world

PACKETS_BETWEEN = 12  # more in flight than this does not happen
NO_MORE = Budget(timeouts=1)


def run(gate, hosts, members, faults, choose, steps, build=None):
    """The world after so many steps and its healing.

    :param choose: gives the index of one of n possibilities
    :raises Violation: a promise was broken
    """
    rules = PacketRules(build)
    world = rules.begin(new_world(gate, hosts, members, Budget(**faults)))
    for _ in range(steps):
        many = _traffic(world) if choose(2) else sorted(rules.actions(world), key=line)
        if many:
            world = _after(rules, world, many[choose(len(many))])
        promises.check(world)
    return heal(rules, world)


@dataclasses.dataclass(frozen=True)
class Ran:
    steps: int
    world: World


FAULTS = {
    "host_crashes": 3, "coordinator_crashes": 2, "takeovers": 1, "failures": 3, "lapses": 2,
    "aborts": 1, "withdrawals": 1, "silences": 1, "absences": 1, "losses": 1, "timeouts": 2,
    "more_snapshots": 3, "floods": 1,
}  # fmt: skip
"""What may go wrong in a run, and how often at most."""


def random_run(seed):
    """The run of this number.

    :raises Violation: a promise was broken
    """
    chance = random.Random(seed)
    faults = {kind: chance.randint(0, most) for kind, most in FAULTS.items()}
    gate = chance.choice((Gate.HOLD, Gate.BARRIER, Gate.MARKER))
    hosts, members, steps = (chance.randint(*some) for some in ((1, 3), (1, 2), (20, 400)))
    return Ran(steps, run(gate, hosts, members, faults, chance.randrange, steps))


def heal(rules, world):
    """No more faults, and every message arrives: the world must become quiet by itself."""
    world = replace(world, left=NO_MORE)
    for _ in range(100):
        if promises.is_quiet(world):
            return world
        before = world
        for action in sorted(rules.actions(world), key=_eagerness):
            if action[0] == "deadline" and world is not before:
                break  # only where nothing else helps
            if action in rules.actions(world):
                world = rules.after(world, action)
                promises.check(world)
    raise promises.Violation("this did not become quiet")


class PacketRules(Rules):
    """Judges a recorded state by its packet counts alone, not by the worst that could be."""

    def _leak(self, world, opened=()):
        return world

    def _receive(self, world, packet):
        world = super()._receive(world, packet)
        hosts = tuple(
            replace(host, guests=tuple(replace(g, orphan=False) for g in host.guests))
            for host in world.hosts
        )
        return replace(world, hosts=hosts)


_ORDER = (
    "restart", "guard", "do", "tick", "start", "write", "write again", "request", "answer",
    "trigger", "lapse", "silence", "flood", "packet", "absent", "deadline",
)  # fmt: skip


def _eagerness(action):
    """Work first, then messages, deadlines last."""
    return _ORDER.index(action[0]), line(action)


def _traffic(world):
    guests = [guest for host in world.hosts for guest in host.guests]
    many = []
    if len(world.packets) < PACKETS_BETWEEN:
        many = [
            ("send", a.name, b.name, mark)
            for a in guests for b in guests for mark in (True, False)
            if a is not b and not a.path.suspended
        ]  # fmt: skip
    many += [("arrive", n) for n in range(len(world.packets))]
    many += [("lose", n) for n in range(len(world.packets))]
    return many


def _after(rules, world, action):
    match action:
        case ("send", source, target, mark):
            return _send(rules, world, source, target, mark)
        case ("arrive" | "lose", n):
            packet = world.packets[n]
            world = replace(world, packets=world.packets[:n] + world.packets[n + 1 :])
            return world if action[0] == "lose" else rules.arrive(world, packet)
    return rules.after(world, action)


def _send(rules, world, source, target, mark):
    host = next(h for h in world.hosts if any(g.name == source for g in h.guests))
    guest = host.guest(source)
    sent = dict(guest.sent)
    sent[target] = sent.get(target, 0) + 1
    path, effects = guest.path.send(Packet(source, target, sent[target], mark))
    guest = replace(guest, path=path, sent=tuple(sorted(sent.items())))
    return rules.route(world.with_host(host.with_guest(guest)), effects)
