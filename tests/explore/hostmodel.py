# SPDX-License-Identifier: Apache-2.0
"""One host as the explorer sees it: guests, an engine that can fail anywhere, a journal.

Everything is a frozen value, so that a whole world can be remembered and compared. The engine
does what `hotsnap_nova.virt` promises and nothing more: what it leaves behind when it fails or
dies is what the protocol has to live with.
"""

import dataclasses
from dataclasses import replace

from hotsnap_nova.protocol import commands as do
from hotsnap_nova.protocol import cut
from hotsnap_nova.protocol.cut import DataPath, Step
from hotsnap_nova.protocol.durable import Decided, Part, Phase, Residue
from hotsnap_nova.protocol.hoststate import HostState
from hotsnap_nova.protocol.messages import Gate, Member, MemberCut, MemberRelease

_frozen = dataclasses.dataclass(frozen=True, slots=True)


def remembers_hash(cls):
    """Worlds share most of their parts: hash each part once."""
    computed = cls.__hash__

    def remembered(self):
        if "_hash" not in self.__dict__:
            self.__dict__["_hash"] = computed(self)
        return self.__dict__["_hash"]

    cls.__hash__ = remembered
    return cls


class Violation(AssertionError):
    """The protocol's promise is broken in this world."""


@_frozen
class Taken:
    """A member's state as recorded: what makes it worthless, and its packet counts by peer."""

    snapshot: str
    orphan: bool
    torn: bool
    sent: tuple[tuple[str, int], ...]
    received: tuple[tuple[str, int], ...]


@_frozen
class Guest:
    """``orphan``: has received what a member's recorded state has not sent."""

    path: DataPath
    residue: bool = False  # nodes, filters, jobs, files of ours
    claimed: bool = False  # its owner may do nothing with it
    saved: bool = False
    published: tuple[Taken, ...] = ()
    taken: Taken | None = None
    orphan: bool = False
    leased: bool = False  # a gate is closed whose lease has not ended yet
    opened: bool = False  # the guardian opened it
    stops: int = 0
    resumes: int = 0
    closed_ns: int = 0
    sent: tuple[tuple[str, int], ...] = ()
    received: tuple[tuple[str, int], ...] = ()

    @property
    def name(self):
        return self.path.member

    @property
    def untouched(self):
        """Runs, sends freely, and nothing of ours is in it (rule 8)."""
        path = self.path
        ours = path.suspended or path.closed or path.held or path.keeping or path.strips
        return not (ours or self.residue or path.armed or self.claimed)

    @property
    def leaks(self):
        """Sends to others as it likes."""
        path = self.path
        holding = path.closed and not path.lapsed and path.gate is not Gate.NONE
        return not path.suspended and not holding


@remembers_hash
@dataclasses.dataclass(frozen=True)
class Host:
    """``machine`` is None while its process is dead; each of ``threads`` is a list of commands."""

    name: str
    guests: tuple[Guest, ...]
    machine: HostState | None
    threads: tuple[tuple, ...] = ()
    parts: tuple[Part, ...] = ()  # the journal
    decided: tuple[Decided, ...] = ()
    now: int = 1
    lost: bool = False  # its journal, once: it may take a late message for a new one

    def guest(self, name):
        return next(guest for guest in self.guests if guest.name == name)

    def with_guest(self, guest):
        guests = tuple(guest if g.name == guest.name else g for g in self.guests)
        return replace(self, guests=guests)


class Engine:
    """What a host's engine does, in units between which it can die or fail."""

    record_steps = staticmethod(cut.record_steps)
    release_steps = staticmethod(cut.release_steps)

    def units(self, host, command):
        """(member, unit) in order."""
        if isinstance(command, do.DiscardMembers):
            return [(member.id, "discard") for member in command.members]
        if isinstance(command, do.GiveBackMembers):
            return [(member.id, "give back") for member in command.members]
        steps = {
            do.PrepareMembers: ("prepare",),
            do.RecordMembers: self.record_steps(command.work.gate),
            do.ReleaseMembers: self.release_steps(command.work.gate),
            do.SaveMembers: ("save",),
            do.FinishMembers: ("finish",),
        }[type(command)]
        return [
            (member.id, step)
            for member in command.work.members
            for step in steps
            if not (
                isinstance(command, do.RecordMembers)
                and host.guest(member.id).taken  # cut already, by a marked packet
            )
        ]

    def allows(self, host, command):
        """Whether the command can succeed at all."""
        if isinstance(command, do.RecordMembers):
            paths = (host.guest(member.id).path for member in command.work.members)
            return all(command.epoch not in path.poisoned for path in paths)
        if isinstance(command, do.ReleaseMembers):
            paths = (host.guest(member.id).path for member in command.work.members)
            return not any(path.overflowed for path in paths)
        return True

    def answers_marks(self, _host):
        """Whether a cut that a packet has asked for may be taken now."""
        return True

    def apply(self, guest, unit, command, now):
        """The guest after one unit, and what its data path emits or delivers."""
        path, effects = guest.path, ()
        match unit:
            case "prepare":
                path, effects = path.arm(command.epoch, command.work.gate)
                guest = replace(
                    guest, residue=True, claimed=True, taken=None, saved=False, stops=0, resumes=0,
                    opened=False, closed_ns=0,
                )  # fmt: skip
            case Step.SUSPEND:
                path, effects = path.suspend()
                guest = replace(guest, stops=guest.stops + 1)
            case Step.CLOSE:
                path, effects = path.close()
                guest = replace(guest, leased=path.gate is not Gate.NONE, closed_ns=now)
            case Step.FREEZE:
                path, effects = path.freeze()
                taken = Taken(
                    command.snapshot, guest.orphan, False, guest.sent, guest.received
                )  # fmt: skip
                guest = replace(guest, taken=taken)
            case Step.RESUME:
                path, effects = path.resume()
                guest = replace(guest, resumes=guest.resumes + 1)
            case Step.OPEN:
                path, effects = path.open()
                guest = replace(guest, leased=False)
            case "save":
                guest = replace(guest, saved=True)
            case "finish":
                path, effects = path.decide(command.epoch)
                published = guest.published
                if guest.taken is not None:
                    published = (*published, guest.taken)
                guest = replace(
                    guest, residue=False, claimed=False, published=published, taken=None,
                    leased=False,
                )  # fmt: skip
            case "discard":
                path = replace(path, suspended=False)
                path, effects = path.decide(command.epoch) if command.decided else path.disarm()
                guest = replace(
                    guest, residue=False, claimed=False, taken=None, saved=False, leased=False
                )  # fmt: skip
            case "give back":
                guest = replace(guest, claimed=False)
        return replace(guest, path=path), effects

    def outcome(self, host, command):
        """What a command that did all its units reports."""
        if isinstance(command, do.DiscardMembers):
            return do.MembersDiscarded(command.snapshot, command.epoch)
        who = (command.snapshot, command.epoch)
        guests = [host.guest(member.id) for member in command.work.members]
        match command:
            case do.PrepareMembers():
                return do.MembersPrepared(*who)
            case do.RecordMembers():
                return do.MembersRecorded(*who, tuple(
                    MemberCut(g.name, host.now, g.closed_ns, 0.0, g.stops, g.resumes)
                    for g in guests
                ))  # fmt: skip
            case do.ReleaseMembers():
                return do.MembersReleased(*who, tuple(
                    MemberRelease(
                        g.name, max(0, host.now - g.closed_ns) / cut.NS_PER_MS,
                        opened_by_itself=g.opened,
                    )
                    for g in guests
                ))  # fmt: skip
            case do.SaveMembers():
                return do.MembersSaved(*who)
            case do.FinishMembers():
                return do.MembersFinished(*who)
        raise AssertionError(command)

    def guard(self, guest):
        """The guardian: our process died or the lease ended, so the guest runs and may send."""
        path, passed = guest.path.lapse()
        path, _ = path.open()
        path, resumed = path.resume()
        changed = guest.path.closed or guest.path.suspended
        guest = replace(guest, path=path, leased=False, opened=guest.opened or changed)
        return guest, passed + resumed

    def survey(self, host, snapshot, epoch):
        """What QEMU shows of ours."""
        left = tuple(Member(guest.name) for guest in host.guests if guest.residue)
        return (Residue(snapshot, epoch, left),) if left else ()


class EngineOfOurs(Engine):
    """As `hotsnap_nova.virt.cuts` has it: a mark is answered from Record on.

    The other one, which answers any mark of an armed epoch at once, goes through more worlds; but
    it is for networks in which nobody forges marks.
    """

    def answers_marks(self, host):
        return any(part.phase is Phase.RECORDING for part in host.machine.parts)


def write_journal(host, command):
    """The journal after the command. A stop needs its intent, and no fsync beside it (rule 1)."""
    if any(guest.path.suspended or guest.leased for guest in host.guests):
        raise Violation(f"{host.name} writes its journal between a stop and the release")
    parts = tuple(part for part in host.parts if part.snapshot != command.snapshot)
    if command.part is not None:
        parts += (command.part,)
    state = HostState(host.name, (), host.decided).with_decision("", command.decided)
    return replace(host, parts=parts, decided=state.decided)
