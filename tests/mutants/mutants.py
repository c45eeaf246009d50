# SPDX-License-Identifier: Apache-2.0
"""Each rule of the protocol, broken on purpose in one small way.

A mutant changes one machine, the runner, the engine or the gate, and nothing else.
"""

from dataclasses import replace

from hotsnap_nova.protocol import commands as do
from hotsnap_nova.protocol.coordinator import Coordinator
from hotsnap_nova.protocol.coordinator import Phase as Stage
from hotsnap_nova.protocol.cut import DataPath, Deliver, Emit, Step
from hotsnap_nova.protocol.durable import Decision, Phase
from hotsnap_nova.protocol.messages import (
    Cause,
    Discard,
    Finish,
    Prepare,
    Prepared,
    Record,
    Recorded,
    Release,
)
from hotsnap_nova.protocol.participant import KEPT, Participant
from tests.explore.hostmodel import Engine, EngineOfOurs


# -- rule 1: intent before the stop, no fsync until recorded, decisions durable before sent -------
class NoIntent(Participant):
    """Stops guests without having journalled that it may."""

    def receive(self, message, now):
        commands = super().receive(message, now)
        if isinstance(message, Prepare):
            return [command for command in commands if not isinstance(command, do.Journal)]
        return commands


class JournalsBesideTheStop(Participant):
    """Makes "recorded" durable before it says so."""

    def receive(self, message, now):
        commands = super().receive(message, now)
        if isinstance(message, do.MembersRecorded):
            part = self.state.part(message.snapshot)
            return [do.Journal(message.snapshot, part), *commands]
        return commands


class TellsBeforeItIsDurable(Coordinator):
    """Lets hosts hear of "available" while it is still being written."""

    def _decide(self, decision, closed=False):
        commands = super()._decide(decision, closed)
        row = self.state.row
        if decision is Decision.FINISH and not closed:
            commands += [do.Send(Finish(row.snapshot, row.epoch, h)) for h, _ in row.hosts]
        return commands


# -- rule 2: packets sent after a cut never reach a member before its cut -------------------------
class ClosesAfterResume(Engine):
    """Lets the guest run for a moment before its gate is closed."""

    @staticmethod
    def record_steps(gate):
        return (Step.SUSPEND, Step.FREEZE, Step.RESUME, Step.CLOSE)


class ReleasesEachAtOnce(Coordinator):
    """Opens a gate as soon as its own host has recorded."""

    def receive(self, message, now):
        commands = super().receive(message, now)
        if isinstance(message, Recorded) and self.state.phase is Stage.RECORD:
            one = Release(message.snapshot, message.epoch, message.host)
            return [*commands, do.Send(one)]
        return commands


class MarksNothing(DataPath):
    """Lets what goes to members pass as it is."""

    def send(self, packet):
        path, effects = super().send(packet)
        return path, tuple(Emit(replace(each.packet, mark=0)) for each in effects)


class PassesWhatItCannotMark(DataPath):
    """Holds nothing: that a mark is not to be had is no reason to wait."""

    def send(self, packet):
        path, effects = super().send(packet)
        if effects or self.suspended:
            return path, effects
        return self, (Emit(replace(packet, epoch=self.epoch)),)


class DeliversBeforeTheCut(DataPath):
    """Asks for the cut, and lets the guest have the packet meanwhile."""

    def arrive(self, packet):
        path, effects = super().arrive(packet)
        early = (Deliver(replace(packet, mark=0)),) if path.keeping else ()
        return path, early + effects


# -- rule 3: a closed gate is a lease -------------------------------------------------------------
class IgnoresTheClock(Participant):
    """Believes that a gate is closed because nobody said that it opened."""

    def _expire(self, part, now):
        return []

    def _ended(self, part, outcome, now):
        if isinstance(outcome, do.MembersReleased):
            timeless = tuple(replace(each, hold_ms=0.0) for each in outcome.releases)
            outcome = replace(outcome, releases=timeless)
        return super()._ended(part, outcome, now)


class HidesTheGuardian(Participant):
    """Does not say that its gates opened by themselves."""

    def _expire(self, part, now):
        return []

    def _ended(self, part, outcome, now):
        if isinstance(outcome, do.MembersReleased):
            quiet = tuple(
                replace(each, hold_ms=0.0, opened_by_itself=False) for each in outcome.releases
            )
            outcome = replace(outcome, releases=quiet)
        return super()._ended(part, outcome, now)


# -- rule 4: a deadline means abort ---------------------------------------------------------------
class LateAnswersCount(Coordinator):
    """Takes up an aborted snapshot again when the last "recorded" comes late."""

    def receive(self, message, now):
        if isinstance(message, Recorded) and self.state.phase is Stage.DISCARD:
            return self._decide(Decision.RELEASE)
        return super().receive(message, now)


# -- rule 5: repeat until answered, answer repeats identically ------------------------------------
class AnswersOnce(Participant):
    """Has nothing to say about a snapshot that it is done with."""

    def _serve_unknown(self, request):
        commands = super()._serve_unknown(request)
        answers = [each for each in commands if isinstance(each, do.Reply)]
        return [] if answers and isinstance(request, Discard) else commands


class UnsaysWhatItSaid(Participant):
    """Gives up a guest that is deleted although it has said that all of it is saved."""

    def _ended(self, part, outcome, now):
        if isinstance(outcome, do.MembersWithdrawn) and part.phase is Phase.SAVED:
            return self._spoil(part, outcome.cause)
        return super()._ended(part, outcome, now)


class ResumesSilently(Coordinator):
    """Takes it for granted that hosts heard the decision before the restart."""

    @classmethod
    def resume(cls, row, now):
        machine, commands = super().resume(row, now)
        return machine, [each for each in commands if not isinstance(each, do.Send)]


# -- rule 6: a decision raises the epoch even where nothing was recorded --------------------------
class RaisesOnlyWhatItKnew(Participant):
    """Forgets a discarded snapshot that it had never prepared."""

    def _forget(self, part):
        (journal,) = super()._forget(part)
        return [journal if part.work.max_hold_ms else replace(journal, decided=())]


# -- rule 7: after a restart, the database; on hosts, QEMU first ----------------------------------
class DecidesAlthoughSuperseded(Coordinator):
    """Does not mind that another coordinator was first."""

    def receive(self, message, now):
        write = self.state.write
        if isinstance(message, do.Superseded) and write is not None:
            message = do.Persisted(message.snapshot, write.generation + 1)
        return super().receive(message, now)


class ResumesFromNothing(Coordinator):
    """Discards what it finds after a restart, whatever the database says."""

    @classmethod
    def resume(cls, row, now):
        if row.closed:
            return super().resume(row, now)
        machine, commands = super().resume(replace(row, decision=Decision.NONE), now)
        return machine, commands


# -- rule 8: the guest comes first ----------------------------------------------------------------
class SpoilsWithoutCleaning(Participant):
    """Leaves the cleaning to the coordinator's Discard."""

    def _spoil(self, part, cause):
        commands = super()._spoil(part, cause)
        if self.state.part(part.snapshot).phase is not Phase.SPOILING:
            return commands
        return self._cleaned(self.state.part(part.snapshot))


class RecoversWithoutCleaning(Participant):
    """Starts again as if nothing could have been left by the process before it."""

    @classmethod
    def recover(cls, host, residues, parts, decided):
        machine, _ = super().recover(host, (), (), decided)
        return machine, []


class LeavesSuspended(Engine):
    """Removes all that is ours but does not resume the guest."""

    def apply(self, guest, unit, command, now):
        suspended = guest.path.suspended
        guest, effects = super().apply(guest, unit, command, now)
        if unit == "discard":
            guest = replace(guest, path=replace(guest.path, suspended=suspended))
        return guest, effects


class KeepsWhatItNeedsNoMore(Participant):
    """Waits for its coordinator with guests that are saved, however long that is away."""

    def wakeup(self):
        kept = self.state.parts
        self.state = replace(self.state, parts=tuple(p for p in kept if p.phase not in KEPT))
        try:
            return super().wakeup()
        finally:
            self.state = replace(self.state, parts=kept)


class GivesUpWhatItSaid(Participant):
    """Takes a coordinator's silence for a "no" although all is saved."""

    def tick(self, now):
        commands = super().tick(now)
        for command in commands:
            if isinstance(command, do.GiveBackMembers):
                return self._spoil(self.state.part(command.snapshot), Cause("coordinator_silent"))
        return commands


class StripsUntilItsRelease(Engine):
    """Takes its programs out with its own release, while others still send marks."""

    def apply(self, guest, unit, command, now):
        guest, effects = super().apply(guest, unit, command, now)
        if unit is Step.OPEN:
            guest = replace(guest, path=replace(guest.path, strips=False))
        return guest, effects


class HidesTheOverflow(Engine):
    """Does not say that a guest's packets were dropped."""

    def allows(self, host, command):
        return isinstance(command, do.ReleaseMembers) or super().allows(host, command)


# -- rule 9: a poisoned epoch stays poisoned ------------------------------------------------------
class AcceptsASecondStop(Participant):
    """Does not count how often a guest was stopped."""

    def _ended(self, part, outcome, now):
        if isinstance(outcome, do.MembersRecorded):
            once = tuple(replace(each, stops=1) for each in outcome.cuts)
            outcome = replace(outcome, cuts=once)
        return super()._ended(part, outcome, now)


class ForgetsItsRefusal(Participant):
    """Is as new, once it has cleaned up."""

    def _cleaned(self, part):
        commands = super()._cleaned(part)
        if not part.discard:
            self.state = self.state.with_decision(part.snapshot, ())
        return commands


class AnswersAnyMark(EngineOfOurs):
    """Has a member cut by a mark before anybody said that all are armed."""

    def answers_marks(self, _host):
        return True


class RecordsThePoisoned(Engine):
    """Cuts a member that has seen packets of the epoch already."""

    def allows(self, host, command):
        return True


class RecordsBeforeAllAreArmed(Coordinator):
    """Has a host record as soon as it is prepared, while others would see no mark."""

    def receive(self, message, now):
        commands = super().receive(message, now)
        if isinstance(message, Prepared) and self.state.phase is Stage.PREPARE:
            one = Record(message.snapshot, message.epoch, message.host)
            return [*commands, do.Send(one)]
        return commands


class ForgetsWhatItDelivered(DataPath):
    """Takes part in an epoch although packets of it were delivered before the cut."""

    def lapse(self):
        path, effects = super().lapse()
        return replace(path, armed=self.armed, poisoned=self.poisoned), effects
