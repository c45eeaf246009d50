# SPDX-License-Identifier: Apache-2.0
"""Each rule of restores, and of rivals for a group, broken on purpose in one small way."""

from dataclasses import replace

from hotsnap_nova.protocol.messages import Cause
from hotsnap_nova.protocol.participant import Participant
from hotsnap_nova.protocol.restore import commands as do
from hotsnap_nova.protocol.restore.coordinator import ABORTABLE, Phase, RestoreCoordinator
from hotsnap_nova.protocol.restore.durable import Resolution, Status
from hotsnap_nova.protocol.restore.messages import DECISIONS, AbortRestore, Order, Step
from hotsnap_nova.protocol.restore.participant import RestoreParticipant
from tests.explore.flows.engine import Engine, Failed
from tests.explore.flows.hosts import write_order


# -- rule 1: "resume" and "undo" are decisions ----------------------------------------------------
class TellsBeforeItIsDurable(RestoreCoordinator):
    """Lets hosts resume while the decision is still being written."""

    def _resolve(self, resolution, closed=False):
        commands = super()._resolve(resolution, closed)
        row = self.state.row
        if resolution is Resolution.RESUME and not closed:
            commands += [
                do.SendOrder(Order(row.restore, host, Step.RESUME, share))
                for host, share in row.hosts
            ]  # fmt: skip
        return commands


class TakesAFailureForANo(RestoreCoordinator):
    """Believes that a decision of unknown outcome was not written, and takes the other."""

    def _not_resolved(self, write, now):
        if write.resolution is not Resolution.RESUME or write.closed:
            return super()._not_resolved(write, now)
        row = self.state.row
        self.state = replace(self.state, row=replace(row, generation=row.generation + 1))
        return self._give_up(Cause("broken"))


class ActsAlthoughOvertaken(RestoreCoordinator):
    """Does not mind that another coordinator was first."""

    def receive(self, message, now):
        write = self.state.write
        if isinstance(message, do.Overtaken) and write is not None:
            message = do.Resolved(message.restore, write.generation + 1)
        return super().receive(message, now)


class UndoesWhateverWasDecided(RestoreCoordinator):
    """Gives up what it finds after a restart, whatever the database says."""

    @classmethod
    def resume(cls, row, now):
        if row.closed:
            return super().resume(row, now)
        return super().resume(replace(row, resolution=Resolution.NONE), now)


class UndoesByErrand(RestoreCoordinator):
    """Leaves an errand as if nothing had been decided."""

    def _leave_one(self, now):
        return [
            replace(each, order=replace(each.order, step=Step.UNDO))
            for each in super()._leave_one(now)
        ]


# -- rule 2: no member runs twice -----------------------------------------------------------------
class WaitsForTheFirst(RestoreCoordinator):
    """Takes the word of the first host that is stopped, and then started, for everybody's."""

    def _done(self, call, answer, now):
        if answer.step == self.state.phase and answer.step in (Step.STOP, Step.START):
            self.state = replace(self.state, waiting=(call,))
        return super()._done(call, answer, now)


class SwapsUnproved(Engine):
    """Believes what it was told when it stopped the guest."""

    def link(self, guest, restore, work):
        found = super().link(replace(guest, state="off"), restore, work)
        return replace(found, state=guest.state)


class SwapsUnlocked(Engine):
    """Proves that nobody has the disk open, and lets anybody open it a moment later."""

    def link(self, guest, restore, work):
        return replace(super().link(guest, restore, work), guarded=False)


# -- rule 3: no disk loses its only name ----------------------------------------------------------
class SwapsWithoutASecondName(Engine):
    """Puts the disk of the cut over the one that it replaces."""

    def link(self, guest, restore, work):
        files = guest.files
        return replace(super().link(guest, restore, work), files=files)


class PutsBackUnderARunner(Engine):
    """Undoes the swap although somebody has started the guest meanwhile."""

    def put_back(self, guest, restore, work):
        found = super().put_back(replace(guest, state="off", elsewhere=""), restore, work)
        return replace(found, state=guest.state, elsewhere=guest.elsewhere)


class DropsWhatWasWritten(Engine):
    """Undoes the swap as if nobody had run on the disk of the cut."""

    def put_back(self, guest, restore, work):
        found = super().put_back(guest, restore, work)
        return found.with_files(**{f"kept_{restore}": None})


# -- rule 4: after the decision, forward; one member's fault keeps no other -----------------------
class KeepsAllForOne(Engine):
    """Fails as a whole where one member cannot be let run."""

    def stand(self, guest, restore, work):
        faults = work.faults
        guest = super().stand(guest, restore, work)
        if work.faults != faults:
            raise Failed
        return guest


class NamesNobody(RestoreCoordinator):
    """Does not say whom it left off."""

    def _done(self, call, answer, now):
        return super()._done(call, replace(answer, faults=()), now)


class CallsItDone(RestoreParticipant):
    """Ends a decision that could not be carried out."""

    def _failed(self, command, cause):
        part = self.state.part(command.restore)
        if part and part.status is Status.WORKING and part.step in DECISIONS:
            return self._end(part)
        return super()._failed(command, cause)


class LeavesNoErrand(RestoreCoordinator):
    """Asks a host that is away until it answers."""

    def _leave_one(self, now):
        return []


class TellsWhatItHasForgotten(Engine):
    """Drops what an undo has to know before what it has to tell is on record."""

    def boot(self, guest, restore, work):
        return self._forget(super().boot(guest, restore, work), restore)


# -- rule 5: what is ended stays ended ------------------------------------------------------------
class ForgetsTheEnd(RestoreParticipant):
    """Takes a repeated decision for a new one."""

    def _journaled(self, command):
        commands = super()._journaled(command)
        self.state = replace(self.state, ended=())
        return commands


class EndsAgain(RestoreParticipant):
    """Carries out once more what only could not be put on record."""

    def _end(self, part):
        commands = super()._end(part)
        self._put(replace(part, status=Status.FAILED))
        return commands


class ResumesUnmarked(Engine):
    """Does not put on record that it lets a guest run before it does."""

    def mark(self, guest, restore, work):
        return guest


# -- rule 6: until the decision anybody may stop it, after it nobody ------------------------------
class AbortsTooLate(RestoreCoordinator):
    """Undoes on a user's wish what is decided."""

    def receive(self, message, now):
        if isinstance(message, AbortRestore) and self.state.phase is Phase.RESUME:
            return self._give_up(message.cause)
        return super().receive(message, now)


class LateAnswersCount(RestoreCoordinator):
    """Takes up a restore again that is being undone, when the last "started" comes late."""

    def _done(self, call, answer, now):
        if answer.step is Step.START and self.state.phase is Phase.UNDO:
            return self._resolve(Resolution.RESUME)
        return super()._done(call, answer, now)


class WaitsForEver(RestoreCoordinator):
    """Has no deadlines."""

    def _enter(self, phase, now):
        commands = super()._enter(phase, now)
        self.state = replace(self.state, deadline_ns=None)
        return commands

    def _patience(self, phase):
        return (None, None) if phase in ABORTABLE else super()._patience(phase)


class HearsNoUser(RestoreCoordinator):
    """Cannot be aborted while hosts work."""

    def receive(self, message, now):
        return [] if isinstance(message, AbortRestore) else super().receive(message, now)


# -- rule 7: a guest is its owner's ---------------------------------------------------------------
class IgnoresTheOwner(RestoreParticipant):
    """Goes on with a guest that was withdrawn."""

    def _withdrawn(self, message):
        return []


class UnsaysWhatIsNotOnRecord(RestoreParticipant):
    """Forgets a withdrawal that the journal does not take."""

    def _not_journaled(self, command, cause):
        part = self.state.part(command.restore)
        if part and command.part and command.part.withdrawn:
            self._put(replace(part, withdrawn=(), refusal=None))
        return super()._not_journaled(command, cause)


def forgets_who_was_withdrawn(host, command):
    """A journal whose entries may be overtaken by older ones."""
    written = write_order(host, command)
    if command.part is None:
        return written
    parts = tuple(
        replace(part, withdrawn=(), refusal=None) if part.restore == command.restore else part
        for part in written.restore_journal
    )
    return replace(written, restore_journal=parts)


# -- rule 8: one at a time has a guest, and nobody for ever ---------------------------------------
class TakesWhatAnotherHas(Engine):
    """Does not ask whether a rival has locked the guest."""

    def claim(self, guest, restore, work):
        return replace(super().claim(replace(guest, lock=""), restore, work), lock=restore)


def never_unlocks(host, command):
    """An end that leaves the members locked."""
    written = write_order(host, command)
    return replace(written, guests=host.guests)


class KnowsTheNewestAlone(Participant):
    """Forgets how a snapshot ended as soon as a newer one has."""

    def _journaled(self, command, now):
        commands = super()._journaled(command, now)
        newest = max((row.epoch for row in self.state.decided), default=0)
        rows = tuple(row for row in self.state.decided if row.epoch == newest)
        self.state = replace(self.state, decided=rows)
        return commands
