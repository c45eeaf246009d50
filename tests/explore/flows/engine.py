# SPDX-License-Identifier: Apache-2.0
"""What a host's engine does to guests, in units between which a process can die, or work fail.

It does what `hotsnap_nova.virt` promises and nothing more; `Failed` ends a command. In `CarryOut`
what concerns one member alone is a fault, which `Work.faults` gathers.
"""

import dataclasses
from dataclasses import replace

from hotsnap_nova.protocol import commands as snap
from hotsnap_nova.protocol.messages import Cause, MemberCut, MemberRelease
from hotsnap_nova.protocol.restore import commands as rest
from hotsnap_nova.protocol.restore.messages import MemberFault, Step
from tests.explore.flows.guests import PAUSED, RUNNING, minus, plus

FAILED = Cause("injected")


class Failed(Exception):
    """The command fails here."""


@dataclasses.dataclass
class Work:
    """One command under way: ``notes`` are what the command brought, by place of the member."""

    command: object
    ids: tuple[str, ...]
    withdrawn: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    standing: tuple[str, ...] = ()  # members that are to be let run


_RESTORE = {
    Step.PREPARE: (("claim",), ("place",)),
    Step.STOP: (("claim",), ("stop",)),
    Step.START: (("claim",), ("link", "swap"), ("load",)),
    Step.RESUME: (("claim",), ("stand",), ("mark",), ("let_run",)),
    Step.FINISH: (("try_lock",), ("keep",),),
    Step.UNDO: (("try_lock",), ("kill", "put_back", "boot")),
    Step.CLEAR: (("try_lock",), ("forget",),),
}
_SNAPSHOT = {
    snap.PrepareMembers: (("snap_claim",), ("insert",)),
    snap.RecordMembers: (("record",),),
    snap.ReleaseMembers: (("release",),),
    snap.SaveMembers: (("save",),),
    snap.FinishMembers: (("publish",),),
    snap.DiscardMembers: (("clean",),),
}


class Engine:
    """Each method is a unit: (guest, what has it, its `Work`) → guest."""

    def work(self, command, withdrawn=()):
        if isinstance(command, rest.CarryOut):
            ids = tuple(member.id for member in command.share.members)
            notes = tuple(command.notes.split(",")) if command.notes else ()
            return Work(command, ids, frozenset((*command.withdrawn, *withdrawn)), notes)
        members = getattr(command, "members", None) or command.work.members
        return Work(command, tuple(member.id for member in members))

    def units(self, command, work):
        """(member, unit) in order."""
        if isinstance(command, rest.CarryOut):
            rounds = _RESTORE[command.step]
            ours = [each for each in work.ids if each not in work.withdrawn]
            ending = command.step in (Step.FINISH, Step.UNDO, Step.CLEAR)
        else:
            rounds, ours, ending = _SNAPSHOT[type(command)], work.ids, True
        return [
            (member, unit)
            for units in rounds for member in (work.ids if ending else ours) for unit in units
        ]  # fmt: skip

    def outcome(self, command, work, guests):
        """What a command reports that did all its units."""
        if isinstance(command, rest.CarryOut):
            faults = tuple(MemberFault(each, FAILED) for each in sorted({*work.faults}))
            notes = ""
            if command.step is Step.PREPARE:
                before = (dict(guests[each].before).get(command.restore, "-") for each in work.ids)
                notes = ",".join(before)
            return rest.CarriedOut(command.restore, command.step, faults, notes)
        who = (command.snapshot, command.epoch)
        match command:
            case snap.RecordMembers():
                cuts = (MemberCut(each, 1, 1, 0.0, 1, 1) for each in work.ids)
                return snap.MembersRecorded(*who, tuple(cuts))
            case snap.ReleaseMembers():
                return snap.MembersReleased(*who, tuple(MemberRelease(m, 0.0) for m in work.ids))
        kind = {
            snap.PrepareMembers: snap.MembersPrepared, snap.SaveMembers: snap.MembersSaved,
            snap.FinishMembers: snap.MembersFinished, snap.DiscardMembers: snap.MembersDiscarded,
        }[type(command)]  # fmt: skip
        return kind(*who)

    # -- a restore, step by step ------------------------------------------------------------------
    def claim(self, guest, restore, work):
        away = guest.gone or guest.elsewhere  # which keeps nobody any more, once decided
        if guest.lock not in ("", restore) or (away and work.command.step is not Step.RESUME):
            raise Failed
        return replace(guest, lock=restore)

    def place(self, guest, restore, _work):
        """The disk of the cut beside the guest's own, which is noted."""
        if guest.named(f"old-{restore}"):
            return guest
        guest = guest.with_files(**{f"new_{restore}": f"cut-{restore}"})
        before = dict(guest.before) | {restore: guest.disk}
        return replace(guest, before=tuple(sorted(before.items())))

    def stop(self, guest, restore, _work):
        if not guest.active:
            return guest
        if guest.state == RUNNING:
            guest = replace(guest, stopped=plus(guest.stopped, restore))
        return guest.off()

    def link(self, guest, restore, work):
        """Proves that no QEMU has the disk, and locks it, so that none can open it."""
        if guest.loaded == restore:
            return guest
        if guest.active:
            raise Failed
        if not guest.named(f"new-{restore}"):
            if not guest.named(f"old-{restore}"):
                raise Failed
            return guest
        if work.notes and guest.disk != work.notes[work.ids.index(guest.name)]:
            raise Failed
        return replace(guest.with_files(**{f"old_{restore}": guest.disk}), guarded=True)

    def swap(self, guest, restore, _work):
        if guest.named(f"new-{restore}"):
            cut = guest.named(f"new-{restore}")
            guest = guest.with_files(**{f"new_{restore}": None}, disk=cut)
        return replace(guest, guarded=False)

    def load(self, guest, restore, _work):
        if guest.loaded == restore:
            return guest
        if guest.active or guest.disk in guest.written:
            raise Failed
        return guest.loads(restore)

    def stand(self, guest, restore, work):
        """At the cut, loaded again where its QEMU has died; or a fault."""
        if guest.gone:
            return guest
        if guest.loaded == restore:
            work.standing += (guest.name,)
            return guest
        if restore in guest.resumed:
            if guest.made_by != restore:  # whether that one ever ran nobody knows
                work.faults += (guest.name,)
            return guest
        swapped = guest.disk == f"cut-{restore}" and guest.disk not in guest.written
        if guest.active or guest.elsewhere or not swapped:
            work.faults += (guest.name,)
            return guest
        work.standing += (guest.name,)
        return guest.loads(restore)

    def mark(self, guest, restore, _work):
        if guest.loaded != restore:
            return guest
        return replace(guest, resumed=plus(guest.resumed, restore))

    def let_run(self, guest, restore, work):
        if guest.loaded != restore:
            if guest.name in work.standing and not guest.gone:
                work.faults += (guest.name,)  # it has died since
            return guest
        state = PAUSED if work.command.share.paused else RUNNING
        guest = replace(guest, state=state, loaded="", ran=plus(guest.ran, restore))
        return guest.wrote()

    def keep(self, guest, restore, _work):
        """The restore is over: what was replaced counts as kept. No guest is touched."""
        if guest.gone or guest.lock not in ("", restore):
            return guest
        old = guest.named(f"old-{restore}")
        kept = {name.replace("-", "_"): None for name, _ in guest.files if name[:4] == "kept"}
        if old:
            kept[f"kept_{restore}"] = old
        guest = guest.with_files(
            **{f"new_{restore}": None, f"old_{restore}": None}, **(kept if old else {})
        )
        named = {inode for _, inode in guest.files}
        written = tuple(inode for inode in guest.written if inode in named)  # else it has expired
        return self._forget(replace(guest, written=written), restore)

    def try_lock(self, guest, restore, _work):
        """What another has is left alone, and was never touched."""
        if guest.gone or guest.lock in ("", restore):
            return replace(guest, lock=restore)
        if self._is_touched(guest, restore):
            raise Failed
        return guest

    def kill(self, guest, restore, work):
        """What stands at a cut that never was."""
        if guest.loaded == restore and guest.name not in work.withdrawn:
            return guest.off()
        return guest

    def put_back(self, guest, restore, work):
        """The disk of before under its name again, unless somebody runs on the other."""
        if guest.gone or not self._is_touched(guest, restore):
            return guest
        old = guest.named(f"old-{restore}")
        swapped = old and old != guest.disk
        new, kept = f"new_{restore}", f"kept_{restore}"
        if swapped and (guest.active or guest.elsewhere):
            work.faults += (guest.name,)
            return guest
        if swapped:
            cut = guest.disk if guest.disk in guest.written else None
            guest = guest.with_files(disk=old, **{kept: cut})
        return guest.with_files(**{new: None, f"old_{restore}": None})

    def boot(self, guest, restore, work):
        """As it was before: what ran, runs."""
        if guest.gone or not self._is_touched(guest, restore):
            return guest
        back = not (guest.named(f"old-{restore}") or guest.elsewhere)
        if restore in guest.stopped and back and guest.name not in work.withdrawn:
            if not guest.active:
                guest = replace(guest.booted(), rebooted=plus(guest.rebooted, restore))
            work.faults += (guest.name,)
        return guest

    def forget(self, guest, restore, _work):
        """What the undo had to know, once what it has to tell is on record."""
        return self._forget(guest, restore)

    def _is_touched(self, guest, restore):
        """Whether anything of this restore is beside the disk, or on record."""
        names = any(name in (f"new-{restore}", f"old-{restore}") for name, _ in guest.files)
        return names or restore in (*guest.stopped, *guest.resumed) or guest.loaded == restore

    def _forget(self, guest, restore):
        return replace(
            guest, stopped=minus(guest.stopped, restore), resumed=minus(guest.resumed, restore),
            before=tuple(each for each in guest.before if each[0] != restore),
        )  # fmt: skip

    # -- a snapshot -------------------------------------------------------------------------------
    def snap_claim(self, guest, snapshot, _work):
        if guest.gone or guest.elsewhere or guest.lock not in ("", snapshot):
            raise Failed
        return replace(guest, lock=snapshot)

    def insert(self, guest, snapshot, _work):
        if not guest.active:
            raise Failed
        return replace(guest, left=plus(guest.left, snapshot))

    def record(self, guest, snapshot, _work):
        if guest.state != RUNNING or snapshot not in guest.left:
            raise Failed
        return guest

    def release(self, guest, _snapshot, _work):
        return guest

    def save(self, guest, snapshot, _work):
        if snapshot not in guest.left:
            raise Failed
        return replace(guest, saved=plus(guest.saved, snapshot))

    def publish(self, guest, snapshot, _work):
        if snapshot not in guest.saved and snapshot not in guest.published:
            raise Failed
        return self._clean(replace(guest, published=plus(guest.published, snapshot)), snapshot)

    def clean(self, guest, snapshot, work):
        """A member that another has locked was never touched for this one."""
        if guest.lock not in ("", snapshot):
            return guest
        if work.command.deleted:
            guest = replace(guest, published=minus(guest.published, snapshot))
        return self._clean(guest, snapshot)

    def _clean(self, guest, snapshot):
        lock = "" if guest.lock == snapshot else guest.lock
        left, saved = minus(guest.left, snapshot), minus(guest.saved, snapshot)
        return replace(guest, left=left, saved=saved, lock=lock)

