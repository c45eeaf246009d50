# SPDX-License-Identifier: Apache-2.0
"""Everything that may happen to a world, and the world it leads to.

Processes may die between any two commands, and inside an engine's work between any two of its
units; commands may fail there. The machines are the production ones.
"""

import contextlib
from dataclasses import replace

from hotsnap_nova.protocol import commands as do
from hotsnap_nova.protocol.durable import Snapshot
from hotsnap_nova.protocol.messages import Gate, Refused
from hotsnap_nova.protocol.participant import KEPT, LEASED
from tests.explore.coordinatorrules import CoordinatorRules
from tests.explore.hostmodel import Violation
from tests.explore.hostrules import HostRules
from tests.explore.memory import Memory
from tests.explore.trafficrules import TrafficRules
from tests.explore.world import Build, Slot


class Rules(CoordinatorRules, HostRules, TrafficRules):
    """How worlds go on: `actions` names what can happen, `after` gives the world it leads to."""

    def __init__(self, build=None, atomic=True):
        """``atomic``: no message arrives while a host works, except while it saves.

        Faults can still happen at any point of the work. Fewer worlds, for the same coverage of
        faults; the rest is seen by exploring without faults and with ``atomic`` off.
        """
        self.build = build or Build()
        self.atomic = atomic
        self.memory = Memory()
        self._fault = None  # (kind, units to go) while an action with a fault goes on
        self._done = []  # the commands of the units of work that the last action did

    def begin(self, world):
        """The next snapshot of the group is started."""
        epoch = world.row.epoch + 1
        row = Snapshot(f"s{epoch}", epoch, world.row.hosts, world.row.limits)
        hosts = tuple(
            replace(host, guests=tuple(replace(g, orphan=False) for g in host.guests))
            for host in world.hosts
        )
        world = replace(world, row=row, hosts=hosts, coordinators=(Slot(), Slot()))
        machine, commands = self.build.coordinator.begin(row, 0)
        return self._coordinate(world, 0, machine.state, commands)

    # -- what may happen --------------------------------------------------------------------------
    def actions(self, world):
        """Names of all that may happen next, each a tuple that `after` understands."""
        left, many = world.left, []
        if left.more_snapshots and world.row.closed and not world.row.absent:
            # errands of one that come while another is made: `flows`, where guests know whose
            many.append(("next snapshot",))
        for slot, state in enumerate(each.state for each in world.coordinators):
            if state is None:
                if slot == 0 or left.takeovers:
                    many.append(("start", slot))
                continue
            if state.write is not None and state.write_again_ns is None:
                many.append(("write", slot, "ok"))
                if left.failures:
                    many += [("write", slot, "lost"), ("write", slot, "unheard")]
            if state.write_again_ns is not None:
                many.append(("write again", slot))
            if state.deadline_ns is not None and left.timeouts:
                many.append(("deadline", slot))
            if left.absences and any(call.absent_ns is not None for call in state.waiting):
                many.append(("absent", slot, "ok"))
                if left.failures:
                    many.append(("absent", slot, "lost"))
            if left.aborts:
                many.append(("abort", slot))
            if left.coordinator_crashes:
                many.append(("crash coordinator", slot))
            many += [("answer", slot, m) for m in world.net if _is_answer(m)]
        for host in world.hosts:
            work = list(self._host_actions(world, host))
            many += work
            if self.atomic and (left.host_crashes or left.failures):
                many += [fault for action in work for fault in self._faults(world, action)]
        return many

    def _faults(self, world, action):
        """The same action, with what can go wrong at each unit of the work it brings."""
        if action[0] in ("crash", "lose journal", "guard", "lapse", "packet", "trigger", "flood"):
            return
        with contextlib.suppress(Violation):  # found when the action itself is tried
            self.after(world, action)
        for n, command in enumerate(tuple(self._done)):
            if world.left.host_crashes and world.hosts[0].name in action:
                yield ("with", "crash", n, action)
            if world.left.failures:
                yield ("with", "fail", n, action)
                first = n == 0 or self._done[n - 1] is not command
                if first and isinstance(command, do.RecordMembers):
                    yield ("with", "second stop", n, action)

    def _host_actions(self, world, host):
        left, many = world.left, []
        if host.machine is None:
            many.append(("restart", host.name))
            if any(g.path.closed or g.path.suspended or g.path.keeping for g in host.guests):
                many.append(("guard", host.name))
        else:
            many += [
                ("request", host.name, m)
                for m in world.net
                if m.host == host.name and not _is_answer(m)
            ]
            for n, thread in enumerate(host.threads):
                many.append(("do", host.name, n, "ok", None))
                if self.atomic:
                    continue
                units = self._units(host, thread[0])
                if left.failures:
                    many += [("do", host.name, n, "fail", k) for k in range(units)]
                    if isinstance(thread[0], do.RecordMembers) and units:
                        many.append(("do", host.name, n, "second stop", None))
                if left.host_crashes:
                    many += [("do", host.name, n, "crash", k) for k in range(units)]
            if left.withdrawals and host is world.hosts[0]:  # hosts are alike
                many += [("withdraw", host.name, part.snapshot) for part in host.machine.parts]
            if left.host_crashes and host is world.hosts[0]:
                many.append(("crash", host.name))
            if left.losses and host is world.hosts[0]:
                many.append(("lose journal", host.name))
            wakeup = self.build.participant(host.machine).wakeup()
            if wakeup is not None and wakeup <= host.now:
                many.append(("tick", host.name))
            elif (left.silences or host.lost) and self._is_leased(host):
                many.append(("silence", host.name))
            many += self._triggers(world, host)
        if left.lapses and any(g.leased or g.path.keeping for g in host.guests):
            many.append(("lapse", host.name))
        if left.floods and host is world.hosts[0]:
            many += [
                ("flood", host.name, g.name)
                for g in host.guests
                if (g.path.closed or g.path.keeping) and not g.path.suspended
            ]
        if left.forgeries:
            many += [
                ("forge", host.name, g.name)
                for g in host.guests
                if g.path.armed > g.path.epoch and not (g.path.keeping or g.path.suspended)
            ]
        many += [
            ("packet", a, b, markable)
            for a, b in self._marked_pairs(world, host)
            for markable in (True, False)
        ]
        return many

    def _triggers(self, world, host):
        """The cuts that packets have asked for, and what can go wrong with them."""
        left = world.left
        for guest in host.guests:
            if not guest.path.keeping or not self.build.engine.answers_marks(host):
                continue
            yield ("trigger", host.name, guest.name, "ok", None)
            if left.failures:
                yield ("trigger", host.name, guest.name, "fail", None)
            if left.host_crashes and host is world.hosts[0]:
                steps = len(self.build.engine.record_steps(Gate.MARKER))
                for units in range(1, steps):
                    yield ("trigger", host.name, guest.name, "crash", units)

    @staticmethod
    def _is_leased(host):
        claimed = {guest.name for guest in host.guests if guest.claimed}
        return any(
            part.phase in LEASED
            or (part.phase in KEPT and claimed & {member.id for member in part.work.members})
            for part in host.machine.parts
        )

    def _marked_pairs(self, world, host):
        """(sender past its cut, receiver that gets its packets) where that is on this host."""
        if world.row.hosts[0][1].gate is not Gate.MARKER:
            return
        epoch = world.row.epoch
        for b in host.guests:
            for a in (guest for other in world.hosts for guest in other.guests):
                past = a.path.epoch >= epoch and not a.path.suspended
                if past and a is not b and not (b.path.suspended or b.path.keeping):
                    yield a, b

    # -- and what it leads to ---------------------------------------------------------------------
    def after(self, world, action):
        """The world in which the action has happened."""
        self._done = []
        self._fault = None
        if action[0] == "with":
            _, kind, n, action = action
            self._fault = (kind, n)
        name, *rest = action
        then = getattr(self, "_" + name.replace(" ", "_"))(world, *rest)
        return world if then is world else self._leak(then)

    def _next_snapshot(self, world):
        return self.begin(world.spend("more_snapshots"))


def _is_answer(message):
    return type(message).__name__.endswith("ed") or isinstance(message, Refused)
