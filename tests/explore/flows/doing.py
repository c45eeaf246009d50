# SPDX-License-Identifier: Apache-2.0
"""All that may happen to a host, from outside and by its own work, with what may go wrong.

What a `Doing` leads to depends on the host alone: so it is worked out once for each host that is
met, and whole worlds are put together from that.
"""

import dataclasses
from dataclasses import replace

from hotsnap_nova.protocol import commands as snap
from hotsnap_nova.protocol.durable import Residue
from hotsnap_nova.protocol.hoststate import HostState
from hotsnap_nova.protocol.messages import Cause, Member
from hotsnap_nova.protocol.restore import commands as rest
from tests.explore.flows import guests as g
from tests.explore.flows.engine import FAILED, Failed
from tests.explore.flows.guests import Violation
from tests.explore.flows.hosts import ANSWERS, Host, epoch_of, may_happen, plain

_REPLIES = (snap.Reply, rest.ReplyToOrder)
_BACKGROUND = (rest.CarryOut, snap.SaveMembers)
WITHDRAWN = Cause("withdrawn")


class Dead(Exception):
    """The process ended in the middle of its work."""


@dataclasses.dataclass
class Doing:
    """One deed under way, with what may go wrong at one of its units.

    :ivar fault: (what, to which guest), at unit number ``at``
    :ivar atomic: no message arrives while a host works, but while it saves
    """

    build: object
    host: Host
    atomic: bool
    fault: tuple[str, str] | None = None
    at: int = -1
    units: int = 0
    ran: tuple[str, ...] = ()
    asked: object = None
    carrying_out: bool = False
    waiting: tuple[tuple[str, str, bool], ...] = ()  # owners, for what is carried out

    # -- what is done, from outside ---------------------------------------------------------------
    def order(self, message):
        self.asked = message
        self._obey(self._hear(message))

    def work(self, n):
        """What goes on in the background ends."""
        command = self.host.works[n]
        works = self.host.works[:n] + self.host.works[n + 1 :]
        self.host = replace(self.host, works=works)
        self._obey(self._outcome_of(command)[0])

    def thread(self, n):
        """The next command of a thread."""
        thread = self.host.threads[n]
        self.host = replace(self.host, threads=self.host.threads[:n] + self.host.threads[n + 1 :])
        todo, failed = self._outcome_of(thread[0])
        self._obey([*todo, *(() if failed and self.build.stops_at_failure else thread[1:])])

    def restart(self):
        """Snapshots first: what these leave is in a QEMU, and cleaned before restores lock."""
        if self.build.snapshots_lock_first:
            todo = (*self._take_up_snapshots(), *self._take_up_restores())
        else:
            todo = (*self._take_up_restores(), *self._take_up_snapshots())
        for command in todo:
            self._obey([command])
        for guest in self.host.guests:
            if guest.elsewhere:  # whoever evacuated it says so
                self.withdraw(guest.name)

    def _take_up_snapshots(self):
        host, left = self.host, {}
        for part in host.snapshot_journal:
            self._lock(part.snapshot, part.work.members)
        for guest in host.guests:
            for snapshot in guest.left:
                left.setdefault(snapshot, []).append(Member(guest.name))
        residues = tuple(Residue(s, epoch_of(s), tuple(found)) for s, found in left.items())
        snapshots, todo = self.build.snapshots.recover(
            host.name, residues, host.snapshot_journal, host.decided
        )  # fmt: skip
        self.host = replace(self.host, snapshots=snapshots.state)
        for command in todo:
            self._obey([command])
        return ()

    def _take_up_restores(self):
        host = self.host
        for part in host.restore_journal:
            self._lock(part.restore, part.share.members)
        restores, todo = self.build.restores.recover(host.name, host.restore_journal, host.ended)
        self.host = replace(self.host, restores=restores.state)
        return todo

    def _lock(self, what, members):
        for member in members:
            guest = self.host.guest(member.id)
            self.host = self.host.with_guest(replace(guest, lock=guest.lock or what))

    def crash(self):
        guests = tuple(each.forgotten() for each in self.host.guests)
        self.host = replace(
            self.host, guests=guests, restores=None, snapshots=None, threads=(), works=()
        )  # fmt: skip

    def lose_power(self):
        self.crash()
        guests = (replace(guest.off(), harmed=True) for guest in self.host.guests)
        self.host = replace(self.host, guests=tuple(guests), power=False)

    def get_power(self):
        self.host = replace(self.host, power=True)

    def withdraw(self, name):
        """The owner of a guest says that it is his; he waits until that is on record.

        Where a machine has nothing to put on record, he does not. Where it cannot be put on record
        it is his, too, but only as long as the service lives.
        """
        for part in self.host.restores.parts:
            if name in [member.id for member in part.share.members]:
                self._obey(self._hear(rest.MemberWithdrawn(part.restore, name, WITHDRAWN)))
                heard = self.host.restores.part(part.restore)
                if heard is None or name not in heard.withdrawn:
                    self._own(name, part.restore)
        for part in self.host.snapshots.parts:
            if name in [member.id for member in part.work.members]:
                withdrawn = snap.MembersWithdrawn(part.snapshot, part.epoch, WITHDRAWN)
                self._obey(self._hear(withdrawn))

    def _own(self, name, restore, recorded=True):
        if self.carrying_out:
            self.waiting += ((name, restore, recorded),)
            return
        guest = self.host.guest(name)
        unrecorded = guest.unrecorded
        if recorded:
            unrecorded = g.minus(unrecorded, restore)
        elif restore not in guest.owned:
            unrecorded = g.plus(unrecorded, restore)
        owned = g.plus(guest.owned, restore)
        self.host = self.host.with_guest(replace(guest, owned=owned, unrecorded=unrecorded))

    def happen(self, what, name):
        """Somebody, or something, does this to a guest."""
        guest = replace(self.host.guest(name), harmed=True)
        self.host = self.host.with_guest(guest)
        if what == "withdraw":
            return self.withdraw(name)
        if what == "delete":
            self.withdraw(name)
            guest = replace(self.host.guest(name), gone=True, files=(), before=(), elsewhere="")
            guest = guest.off()
        elif what in ("kill", "stop"):
            guest = guest.off()
        elif what == "start":
            guest = guest.booted()
        elif what == "pause":
            guest = replace(guest, state=g.PAUSED)
        elif what == "evacuate":
            cut = (guest.disk,) if guest.disk.startswith("cut") else ()
            written = tuple(sorted({*guest.written, *cut}))
            guest = replace(guest, elsewhere=guest.disk, written=written)
        self.host = self.host.with_guest(guest)
        g.check(guest)
        return None

    # -- commands ---------------------------------------------------------------------------------
    def _hear(self, message):
        """The commands of the machine that the message is for."""
        about = getattr(message, "command", message)
        if hasattr(about, "restore"):
            machine = self.build.restores(self.host.restores)
            todo = machine.receive(message, 1)
            self.host = replace(self.host, restores=machine.state)
        else:
            machine = self.build.snapshots(self.host.snapshots)
            todo = machine.receive(message, 1)
            self.host = replace(self.host, snapshots=machine.state)
        return todo

    def _obey(self, todo):
        """Do what takes no time, and with ``atomic`` all of it; else there is one thread more."""
        todo = list(todo)
        while todo:
            command = todo[0]
            if isinstance(command, _REPLIES):
                self._say(command.answer)
            elif isinstance(command, _BACKGROUND):
                self.host = replace(self.host, works=(*self.host.works, command))
            elif not isinstance(command, rest.Hasten):
                if not self.atomic:
                    break
                more, failed = self._outcome_of(command)
                todo = [*more, *(() if failed and self.build.stops_at_failure else todo[1:])]
                continue
            todo = todo[1:]
        if todo:
            self.host = replace(self.host, threads=(*self.host.threads, tuple(todo)))
        if self.atomic:
            for n, command in enumerate(self.host.works):
                if isinstance(command, rest.CarryOut):
                    return self.work(n)
        return None

    def _say(self, answer):
        if isinstance(answer, ANSWERS):
            self.host = replace(self.host, mail=self.host.mail | {plain(answer, self.asked)})

    def _outcome_of(self, command):
        """What the machine commands next, and whether the command failed."""
        work = None
        try:
            if isinstance(command, rest.JournalOrder | snap.Journal):
                self._unit()
                self._write(command)
                self._unit()
                known = isinstance(command, rest.JournalOrder)
                outcome = (rest.OrderJournaled if known else snap.Journaled)(command)
            else:
                self.carrying_out |= isinstance(command, rest.CarryOut)
                work = self._work(command)
                self._unit()
                guests = {guest.name: guest for guest in self.host.guests}
                outcome = self.build.engine.outcome(command, work, guests)
        except Failed:
            for name in work.ids if work else ():  # a lock on a disk is let go of
                guest = replace(self.host.guest(name), guarded=False)
                self.host = self.host.with_guest(guest)
            if isinstance(command, rest.JournalOrder) and command.part:
                for name in command.part.withdrawn:
                    self._own(name, command.restore, recorded=False)
            outcome = snap.CommandFailed(command, FAILED)
        if isinstance(command, rest.CarryOut):
            self.carrying_out, waiting, self.waiting = False, self.waiting, ()
            for name, restore, recorded in waiting:
                self._own(name, restore, recorded)
        return self._hear(outcome), isinstance(outcome, snap.CommandFailed)

    def _work(self, command):
        what = command.restore if isinstance(command, rest.CarryOut) else command.snapshot
        withdrawn = ()
        if isinstance(command, rest.CarryOut):
            part = self.host.restores.part(command.restore)
            withdrawn = part.withdrawn if part else ()
        elif isinstance(command, snap.DiscardMembers):  # it ends a save that goes on
            works = (w for w in self.host.works if getattr(w, "snapshot", "") != what)
            self.host = replace(self.host, works=tuple(works))
        work = self.build.engine.work(command, withdrawn)
        for name, unit in self.build.engine.units(command, work):
            self._unit()
            before = self.host.guest(name)
            after = getattr(self.build.engine, unit)(before, what, work)
            if after is not before:
                self._check(before, after, what)
                self.host = self.host.with_guest(after)
            if unit == "let_run" and what in after.ran and what not in before.ran:
                self.ran += (what,)
        return work

    def _check(self, before, after, what):
        name = after.name
        g.check(after)
        if what in [end.restore for end in self.host.ended]:
            raise Violation(f"{name} is touched by {what}, which has ended here")
        if what in before.owned and (before.state, before.open) != (after.state, after.open):
            raise Violation(f"{name} is touched although its owner needs it")

    def _write(self, command):
        if isinstance(command, rest.JournalOrder):
            self.host = self.build.write_order(self.host, command)
            for name in command.part.withdrawn if command.part else ():
                self._own(name, command.restore)
            return
        parts = {part.snapshot: part for part in self.host.snapshot_journal}
        parts.pop(command.snapshot, None)
        if command.part:
            parts[command.snapshot] = command.part
        ledger = HostState("", (), self.host.decided).with_decision("", command.decided)
        self.host = replace(
            self.host, decided=ledger.decided,
            snapshot_journal=tuple(part for _, part in sorted(parts.items())),
        )  # fmt: skip

    def _unit(self):
        """One more unit begins; perhaps something happens right before it."""
        here = self.units == self.at
        self.units += 1
        if not here:
            return
        what, name = self.fault
        if what == "fail":
            raise Failed
        if what in ("crash", "lose power"):
            getattr(self, what.replace(" ", "_"))()
            raise Dead
        if may_happen(self.host, what, name):
            self.happen(what, name)
