# SPDX-License-Identifier: Apache-2.0
"""A whole cloud as one value, and everything that may happen to it next.

The network is the set of all messages ever sent: each may arrive never, late, twice and in any
order. Processes may die between any two commands, and inside an engine's work between any two of
its units; commands may fail there. Budgets bound how often. The machines are the production ones.
"""

import contextlib
import dataclasses
from dataclasses import replace

from hotsnap_nova.protocol import commands as do
from hotsnap_nova.protocol import cut
from hotsnap_nova.protocol.coordinator import Coordinator, CoordinatorState
from hotsnap_nova.protocol.coordinator import Phase as Stage
from hotsnap_nova.protocol.cut import DataPath, Deliver, Emit, Packet, TakeCut
from hotsnap_nova.protocol.durable import Decision, Snapshot
from hotsnap_nova.protocol.hoststate import HostState
from hotsnap_nova.protocol.messages import Abort, Cause, Gate, Member, Refused, Work, Working
from hotsnap_nova.protocol.participant import Participant
from tests.explore.hostmodel import (
    Engine,
    Guest,
    Host,
    Violation,
    remembers_hash,
    write_journal,
)

_frozen = dataclasses.dataclass(frozen=True, slots=True)
FAILED = Cause("injected")


@dataclasses.dataclass(frozen=True)
class Build:
    """What the world is made of; mutants replace one of these."""

    coordinator: type = Coordinator
    participant: type = Participant
    engine: Engine = dataclasses.field(default_factory=Engine)
    stops_at_failure: bool = True


@_frozen
class Budget:
    """How many more faults of each kind may happen."""

    host_crashes: int = 0
    coordinator_crashes: int = 0
    takeovers: int = 0
    failures: int = 0
    lapses: int = 0
    aborts: int = 0
    timeouts: int = 1
    more_snapshots: int = 0


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


def new_world(gate, hosts=2, members=1, budget=None):
    """Nothing has happened yet, not even a snapshot."""
    made = []
    for n in range(hosts):
        guests = tuple(Guest(DataPath(f"g{n}{m}")) for m in range(members))
        name = f"h{n}"
        made.append(Host(name, guests, HostState(name)))
    row = Snapshot("s0", 0, tuple(
        (host.name, Work("g", tuple(Member(g.name) for g in host.guests), gate, 1, 1))
        for host in made
    ), closed=True)  # fmt: skip
    return World((Slot(), Slot()), row, tuple(made), frozenset(), budget or Budget())


class Rules:
    """How worlds go on: `actions` names what can happen, `after` gives the world it leads to."""

    def __init__(self, build=None, atomic=True):
        """``atomic``: no message arrives while a host works, except while it saves.

        Faults can still happen at any point of the work. Fewer worlds, for the same coverage of
        faults; the rest is seen by exploring without faults and with ``atomic`` off.
        """
        self.build = build or Build()
        self.atomic = atomic
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
        if left.more_snapshots and world.row.closed:
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
        if action[0] in ("crash", "guard", "lapse", "packet"):
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
            if any(g.path.closed or g.path.suspended for g in host.guests):
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
                    many += [("do", host.name, n, "crash", k) for k in range(1, units)]
            if left.host_crashes and host is world.hosts[0]:  # hosts are alike
                many.append(("crash", host.name))
            wakeup = self.build.participant(host.machine).wakeup()
            if wakeup is not None and wakeup <= host.now:
                many.append(("tick", host.name))
        if left.lapses and any(g.leased for g in host.guests):
            many.append(("lapse", host.name))
        for a, b in self._marked_pairs(world, host):
            many.append(("packet", a, b, "ok"))
            if left.failures and b.path.armed:
                many.append(("packet", a, b, "fail"))
        return many

    def _marked_pairs(self, world, host):
        """(sender past its cut, receiver before it) where the receiver is on this host."""
        if world.row.hosts[0][1].gate is not Gate.MARKER:
            return
        epoch = world.row.epoch
        for b in host.guests:
            for a in (guest for other in world.hosts for guest in other.guests):
                past = a.path.epoch >= epoch and not a.path.suspended
                if past and b.path.epoch < epoch and not b.path.suspended:
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
        return self._leak(getattr(self, "_" + name.replace(" ", "_"))(world, *rest))

    def _next_snapshot(self, world):
        return self.begin(world.spend("more_snapshots"))

    def _start(self, world, slot):
        machine, commands = self.build.coordinator.resume(world.row, 0)
        if slot:
            world = world.spend("takeovers")
        return self._coordinate(world, slot, machine.state, commands)

    def _write(self, world, slot, how):
        state = world.coordinators[slot].state
        write, row = state.write, world.row
        if how != "ok":
            world = world.spend("failures")
        outcome = do.Superseded(write.snapshot)
        if how == "lost":
            outcome = do.CommandFailed(write, FAILED)
        elif row.generation == write.generation:
            row = replace(
                row, generation=row.generation + 1, decision=write.decision,
                closed=write.closed, cause=write.cause, answers=write.answers,
            )  # fmt: skip
            self._check_decision(world, row)
            world = replace(world, row=row)
            outcome = do.Persisted(write.snapshot, row.generation)
        if how == "unheard":
            outcome = do.CommandFailed(write, FAILED)
        return self._tell(world, slot, outcome)

    def _write_again(self, world, slot):
        return self._wake(world, slot, world.coordinators[slot].state.write_again_ns)

    def _deadline(self, world, slot):
        deadline_ns = world.coordinators[slot].state.deadline_ns
        return self._wake(world.spend("timeouts"), slot, deadline_ns)

    def _abort(self, world, slot):
        return self._tell(world.spend("aborts"), slot, Abort(world.row.snapshot))

    def _crash_coordinator(self, world, slot):
        return self._coordinate(world.spend("coordinator_crashes"), slot, None, ())

    def _answer(self, world, slot, message):
        return self._tell(world, slot, message)

    def _request(self, world, name, message):
        host = world.host(name)
        return self._hear(world, host, message)

    def _tick(self, world, name):
        host = world.host(name)
        machine = self.build.participant(host.machine)
        return self._obey(world, host, machine, machine.tick(host.now))

    def _crash(self, world, name):
        host = replace(world.host(name), machine=None, threads=())
        return world.spend("host_crashes").with_host(host)

    def _restart(self, world, name):
        host = world.host(name)
        residues = self.build.engine.survey(host, world.row.snapshot, world.row.epoch)
        machine, commands = self.build.participant.recover(
            name, residues, host.parts, host.decided
        )  # fmt: skip
        return self._obey(world, host, machine, commands)

    def _guard(self, world, name):
        for guest in world.host(name).guests:
            guest, effects = self.build.engine.guard(guest)
            world = self._route(world.with_host(world.host(name).with_guest(guest)), effects)
        return world

    def _lapse(self, world, name):
        """The lease of this host's gates ends, and with it what its clock shows."""
        world, opened = world.spend("lapses"), []
        for guest in world.host(name).guests:
            if not guest.leased:
                continue
            if guest.path.gate is Gate.BARRIER:
                guest, effects = self.build.engine.guard(guest)
            else:
                path, effects = guest.path.lapse()
                guest = replace(guest, path=path, leased=False)
            end = guest.closed_ns + cut.NS_PER_MS
            host = world.host(name).with_guest(guest)
            world = world.with_host(replace(host, now=max(host.now, end)))
            world = self._route(world, effects)
            opened.append(guest)
        return self._leak(world, opened)

    def _packet(self, world, sender, receiver, how):
        """A packet crosses at once; it may ask the receiver to cut itself first."""
        if how == "fail":
            world = world.spend("failures")
        _, effects = sender.path.send(Packet(sender.name, receiver.name, 0))
        return self._route(world, effects, at_once=True, cut_fails=how == "fail")

    # -- hosts ------------------------------------------------------------------------------------
    def _do(self, world, name, n, how, units):
        host = world.host(name)
        command, rest = host.threads[n][0], host.threads[n][1:]
        others = host.threads[:n] + host.threads[n + 1 :]
        all_units = self._units(host, command)
        if self._fault is not None:
            kind, to_go = self._fault
            self._fault = None
            if to_go < all_units:
                how, units = kind, None if kind == "second stop" else to_go
            else:
                self._fault = (kind, to_go - all_units)
        self._done += [command] * all_units
        if how in ("fail", "second stop"):
            world = world.spend("failures")
        if how == "crash":
            world = world.spend("host_crashes")
        if isinstance(command, do.Journal):
            if how == "crash":
                return world.with_host(replace(host, machine=None, threads=()))
            if how == "fail":
                outcome = do.CommandFailed(command, FAILED)
            else:
                host = write_journal(host, command)
                outcome = do.Journaled(command)
        else:
            if how == "ok" and not self.build.engine.allows(host, command):
                how, units = "fail", 0
            world = self._work(world, name, command, units, how)
            host = world.host(name)
            if how == "crash":
                return world.with_host(replace(host, machine=None, threads=()))
            if how == "fail":
                outcome = do.CommandFailed(command, FAILED)
            else:
                outcome = self.build.engine.outcome(host, command)
            if isinstance(command, do.DiscardMembers):  # it ends a save that was going on
                others = tuple(t for t in others if not isinstance(t[0], do.SaveMembers))
        if how == "fail" and self.build.stops_at_failure:
            rest = ()
        host = replace(host, threads=others)
        return self._hear(world, host, outcome, rest)

    def _work(self, world, name, command, limit, how):
        """The first ``limit`` units of an engine's command, or all."""
        engine = self.build.engine
        for member, unit in engine.units(world.host(name), command)[:limit]:
            host = world.host(name)
            journalled = {part.snapshot for part in host.parts}
            if unit is cut.Step.SUSPEND and command.snapshot not in journalled:
                raise Violation(f"{name} stops a guest without having journalled that it may")
            guest, effects = engine.apply(host.guest(member), unit, command, host.now)
            if how == "second stop" and unit is cut.Step.FREEZE:
                taken = replace(guest.taken, torn=True)
                guest = replace(guest, taken=taken, stops=guest.stops + 1)
            world = self._route(world.with_host(host.with_guest(guest)), effects)
            world = self._leak(world)
        return world

    def _units(self, host, command):
        if isinstance(command, do.Journal):
            return 1
        return len(self.build.engine.units(host, command))

    def _hear(self, world, host, message, rest=()):
        machine = self.build.participant(host.machine)
        return self._obey(world, host, machine, machine.receive(message, host.now), rest)

    def _obey(self, world, host, machine, commands, rest=()):
        """Replies go out at once; a save goes on beside the rest, which goes on in its thread."""
        thread, threads = [], list(host.threads)
        net = set()
        for command in (*commands, *rest):
            if isinstance(command, do.Reply):
                if isinstance(command.answer, Refused):
                    net.add(replace(command.answer, cause=FAILED))
                elif not isinstance(command.answer, Working):
                    net.add(command.answer)
            elif isinstance(command, do.SaveMembers):
                threads.append((command,))
            else:
                thread.append(command)
        if thread:
            threads.append(tuple(thread))
        if machine.state is host.machine and not threads and net <= world.net:
            return world
        threads.sort(key=repr)
        host = replace(host, machine=machine.state, threads=tuple(threads))
        world = replace(world.with_host(host), net=world.net | net)
        for n, waiting in enumerate(host.threads if self.atomic else ()):
            if not isinstance(waiting[0], do.SaveMembers):
                return self._do(world, host.name, n, "ok", None)
        return world

    # -- coordinators -----------------------------------------------------------------------------
    def _tell(self, world, slot, message):
        machine = self.build.coordinator(world.coordinators[slot].state)
        commands = machine.receive(message, 0)
        return self._coordinate(world, slot, machine.state, commands)

    def _wake(self, world, slot, now):
        machine = self.build.coordinator(world.coordinators[slot].state)
        commands = machine.tick(now)
        return self._coordinate(world, slot, machine.state, commands)

    def _coordinate(self, world, slot, state, commands):
        sent = {command.message for command in commands if isinstance(command, do.Send)}
        if state is world.coordinators[slot].state and sent <= world.net:
            return world
        if state is not None and state.phase is Stage.STOOD_DOWN:
            state = None  # the service forgets it, and later takes over what nobody drives
        if state is not None and state.cause is not None:  # one cause is as good as another
            write = state.write and replace(state.write, cause=state.write.cause and FAILED)
            state = replace(state, cause=FAILED, write=write)
        slots = list(world.coordinators)
        slots[slot] = Slot(state)
        return replace(world, coordinators=tuple(slots), net=world.net | sent)

    # -- packets between guests -------------------------------------------------------------------
    def _route(self, world, effects, at_once=False, cut_fails=False):
        for effect in effects:
            match effect:
                case Emit(packet=packet) if at_once:
                    world = self._arrive(world, packet, cut_fails)
                case Emit(packet=packet) if packet.number:
                    world = replace(world, packets=(*world.packets, packet))
                case Deliver(packet=packet):
                    world = self._receive(world, packet)
        return world

    def _arrive(self, world, packet, cut_fails=False):
        host = _host_of(world, packet.target)
        guest = host.guest(packet.target)
        path, effects = guest.path.arrive(packet)
        world = world.with_host(host.with_guest(replace(guest, path=path)))
        for effect in effects:
            if isinstance(effect, TakeCut):
                world = self._cut_now(world, host.name, packet.target, cut_fails)
            else:
                world = self._route(world, (effect,))
        return world

    def _cut_now(self, world, name, member, fails):
        guest = world.host(name).guest(member)
        if fails:
            path, effects = guest.path.fail()
            guest = replace(guest, path=path)
            return self._route(world.with_host(world.host(name).with_guest(guest)), effects)
        work = dict(world.row.hosts)[name]
        alone = replace(work, members=(Member(member),))
        command = do.RecordMembers(world.row.snapshot, world.row.epoch, alone)
        return self._work(world, name, command, None, "ok")

    def _receive(self, world, packet):
        host = _host_of(world, packet.target)
        guest = host.guest(packet.target)
        if guest.path.epoch < packet.epoch:
            guest = replace(guest, orphan=True)
        if packet.number:
            received = dict(guest.received)
            received[packet.source] = max(received.get(packet.source, 0), packet.number)
            guest = replace(guest, received=tuple(sorted(received.items())))
        return world.with_host(host.with_guest(guest))

    def _leak(self, world, opened=()):
        """The worst case: who is past its cut and may send, at once sends to all before theirs.

        With markers it is an action of its own, because it changes the receiver.
        """
        if world.row.hosts[0][1].gate is Gate.MARKER:
            return world
        snapshot = world.row.snapshot
        guests = [guest for host in world.hosts for guest in host.guests]
        if not opened and not any(_is_taken(g, snapshot) and g.leaks for g in guests):
            return world
        hosts = tuple(
            replace(host, guests=tuple(
                g if _is_taken(g, snapshot) or g.path.suspended else replace(g, orphan=True)
                for g in host.guests
            ))
            for host in world.hosts
        )  # fmt: skip
        return replace(world, hosts=hosts)

    # -- what must never be -----------------------------------------------------------------------
    def _check_decision(self, world, row):
        final = world.row.decision in (Decision.FINISH, Decision.DISCARD)
        if final and row.decision is not world.row.decision:
            raise Violation("a decision was changed")
        if row.decision is not Decision.FINISH or row.closed:
            return
        for host in world.hosts:
            for guest in host.guests:
                taken = guest.taken
                if taken is None or taken.snapshot != row.snapshot or not guest.saved:
                    raise Violation(f"available without the state of {guest.name}")
                if taken.orphan:
                    raise Violation(f"{guest.name} has received what nobody has sent")
                if taken.torn:
                    raise Violation(f"{guest.name}'s memory and disk are of two instants")
                for other in (g for h in world.hosts for g in h.guests):
                    sent = dict(other.taken.sent).get(guest.name, 0) if other.taken else 0
                    if dict(taken.received).get(other.name, 0) > sent:
                        raise Violation(f"{guest.name} has a packet {other.name} has not sent")

    def check(self, world):
        """Raise where a promise is broken in this world."""
        row = world.row
        for host in world.hosts:
            for known in host.decided:
                decided = known.decision in (Decision.FINISH, Decision.DISCARD)
                if known.snapshot == row.snapshot and decided and known.decision != row.decision:
                    raise Violation(f"{host.name} believes {known.decision}, not {row.decision}")
            for guest in host.guests:
                published = any(taken.snapshot == row.snapshot for taken in guest.published)
                if published and row.decision is not Decision.FINISH:
                    raise Violation(f"{guest.name} was published but never decided")
                if row.closed and row.decision is Decision.FINISH and not published:
                    raise Violation(f"{guest.name} of an available snapshot is missing")
            idle = host.machine is not None and not host.threads and not host.machine.parts
            for guest in host.guests if idle or row.closed else ():
                if not guest.untouched:
                    raise Violation(f"{guest.name} is left with traces of a snapshot")
            if row.closed and (host.parts or (host.machine and host.machine.parts)):
                raise Violation(f"{host.name} still holds on to a closed snapshot")

    def is_quiet(self, world):
        """Everything is over, and the guests are as they were."""
        return (
            world.row.closed
            and all(host.machine is not None and not host.threads for host in world.hosts)
            and all(guest.untouched for host in world.hosts for guest in host.guests)
        )


def _is_answer(message):
    return type(message).__name__.endswith("ed") or isinstance(message, Refused)


def _is_taken(guest, snapshot):
    return guest.taken is not None and guest.taken.snapshot == snapshot


def _host_of(world, member):
    return next(h for h in world.hosts if any(g.name == member for g in h.guests))
