# SPDX-License-Identifier: Apache-2.0
"""A host's side of the protocol: one machine a host, with a `Part` for each snapshot.

The machine decides nothing about a snapshot; it says what happened, once, and says it again as
often as it is asked. What it may do on its own is give up: until it has said `Saved`, a failure,
a restart, a lease that ended or a coordinator that fell silent spoils its part, it cleans up
without waiting for anybody, and from then on answers `Refused` until the coordinator has decided.
"""

import dataclasses
from collections.abc import Iterable

from hotsnap_nova.protocol import commands as do
from hotsnap_nova.protocol import cut
from hotsnap_nova.protocol.durable import Decided, Decision, Part, Phase, Residue
from hotsnap_nova.protocol.hoststate import HostState
from hotsnap_nova.protocol.messages import (
    Cause,
    Discard,
    Discarded,
    Finish,
    Finished,
    Gate,
    Prepare,
    Prepared,
    Record,
    Recorded,
    Refused,
    Release,
    Released,
    Request,
    Save,
    Saved,
    Work,
    Working,
)

BUSY = frozenset(phase for phase in Phase if phase.endswith("ing"))
"""Phases in which the engine works for a part."""

LEASED = frozenset({Phase.PREPARED, Phase.RELEASED})
"""Phases in which a part waits for its coordinator with guests in hand: `Work.silence_ms` long."""

KEPT = frozenset({Phase.UNKEPT, Phase.SAVED})
"""Phases in which a part waits, as long as it takes, and needs its guests no more.

After `Work.silence_ms` they are given back to their owner, and the part stays.
"""

RESTARTED = Cause("participant_restarted", "the service on this host was restarted meanwhile")

UNKNOWN_SNAPSHOT = "unknown_snapshot"
"""The code with which what leads on from a `Prepare` is refused where nothing is known of it."""

_replace = dataclasses.replace

# request → (the phase that may take it, the phase it leads to, the engine's command, its answer)
_STEPS = {
    Record: (Phase.PREPARED, Phase.RECORDING, do.RecordMembers, Recorded),
    Release: (Phase.RECORDED, Phase.RELEASING, do.ReleaseMembers, Released),
    Save: (Phase.RELEASED, Phase.SAVING, do.SaveMembers, Saved),
    Finish: (Phase.SAVED, Phase.FINISHING, do.FinishMembers, Finished),
    Prepare: (None, Phase.PREPARING, do.PrepareMembers, Prepared),
}


class Participant:
    """The machine of one host; not thread-safe, and quick enough to be called under a lock."""

    def __init__(self, state: HostState):
        self.state = state

    @classmethod
    def recover(
        cls,
        host: str,
        residues: Iterable[Residue],
        parts: Iterable[Part],
        decided: Iterable[Decided],
    ) -> tuple["Participant", list[do.ParticipantCommand]]:
        """The machine of a fresh process, and what it must clean up first.

        ``residues`` is what QEMU shows, ``parts`` and ``decided`` what the journal says; QEMU is
        believed first (rule 7). Only a part that is saved survives a restart: nobody can prove
        of the others that their gate stayed closed (rule 9). Each command is of another part.
        """
        machine = cls(HostState(host, (), tuple(decided)))
        known = {part.snapshot: part for part in parts}
        for left in residues:
            nothing = Work("", left.members, Gate.NONE, 0, 0)
            known.setdefault(
                left.snapshot, Part(left.snapshot, left.epoch, Phase.SPOILING, nothing)
            )
        todo = []
        for part in known.values():
            discarded = machine.state.decision_of(part.snapshot) is Decision.DISCARD
            if part.phase is Phase.SAVED and not discarded:
                machine._put(part)
            else:
                todo += machine._spoil(_replace(part, discard=discarded), RESTARTED)
        return machine, todo

    def wakeup(self) -> int | None:
        """When `tick` has to be called at the latest, if nothing else happens."""
        ends = (end for part in self.state.parts for end in _ends(part))
        return min((end for end in ends if end is not None), default=None)

    def tick(self, now: int) -> list[do.ParticipantCommand]:
        """Give up what has been held too long: one part, for its failure is no other's.

        Where there is another `wakeup` says so.
        """
        return next((todo for part in self.state.parts if (todo := self._expire(part, now))), [])

    def receive(self, message, now: int) -> list[do.ParticipantCommand]:
        """The commands that a request, or the outcome of an earlier command, leads to."""
        match message:
            case do.CommandFailed():
                return self._failed(message.command, message.cause, now)
            case do.Journaled():
                return self._journaled(message.command, now)
            case do.Outcome():
                part = self.state.part(message.snapshot)
                if part is None or part.epoch != message.epoch:
                    return []
                return self._ended(part, message, now)
        if message.host != self.state.host:
            return []
        part = self.state.part(message.snapshot)
        if part is None:
            return self._serve_unknown(message)
        if part.epoch != message.epoch:
            return [self._refuse(message, Cause("other_epoch"))]
        if isinstance(message, Discard):
            return self._serve_discard(part, message)
        if part.phase not in KEPT and (given_up := self._expire(part, now)):
            return given_up
        if part.phase in LEASED or _is_claimed(part):
            part = self._put(_replace(part, heard_ns=now))
        return self._serve(part, message)

    # -- requests ---------------------------------------------------------------------------------
    def _serve_unknown(self, request: Request):
        known = self.state.decision_of(request.snapshot)
        if isinstance(request, Discard):
            if known is Decision.FINISH and not request.deleted:
                return [self._refuse(request, Cause("already_finished"))]
            if known is Decision.DISCARD:
                return [do.Reply(_address(Discarded, request))]
            work = Work(request.group, request.members, Gate.NONE, 0, 0)
            return self._discard(Part(
                request.snapshot, request.epoch, Phase.DISCARDING, work, deleted=request.deleted
            ))  # fmt: skip
        if known is Decision.FINISH:
            return [do.Reply(_address(Finished, request))]
        if known is Decision.DISCARD:
            return [self._refuse(request, Cause("already_discarded"))]
        if not isinstance(request, Prepare):
            cause = Cause(UNKNOWN_SNAPSHOT, "nothing is known of it here")
            return [self._refuse(request, cause)]
        work = request.work
        if self.state.is_past(request.epoch, work):
            return [self._refuse(request, Cause("epoch_decided"))]
        part = Part(request.snapshot, request.epoch, Phase.PREPARING, work)
        if busy := self.state.busy_member(work):
            # kept, so that repeats are refused too when the member is free again
            cause = Cause("member_busy", "in another snapshot", member=busy.id)
            refused = self._refuse(request, cause)
            self._put(_replace(part, phase=Phase.SPOILED, refusal=refused.answer))
            return [refused]
        self._put(part)
        # the intent of all that follows, the stop included: nothing is written beside it
        return [do.Journal(part.snapshot, part), self._command(do.PrepareMembers, part)]

    def _serve(self, part: Part, request: Request):
        if part.refusal and not part.discard and part.phase not in BUSY:
            if isinstance(request, Finish):  # which nobody decides unless it has said `Saved`
                text = "the host lost its journal after it had saved"
                return [self._refuse(request, Cause("nothing_saved", text))]
            return [do.Reply(part.refusal)]
        needs, leads_to, command, answer = _STEPS[type(request)]
        given = next((each for each in part.answers if isinstance(each, answer)), None)
        if given and part.phase in (Phase.SAVING, Phase.KEEPING) and not part.discard:
            # Another coordinator goes on from its row: it must not wait for the save to hear it.
            return [do.Reply(given)]
        if part.phase in BUSY or part.phase is Phase.STUCK:
            return [self._working(part)]
        if part.phase is Phase.UNKEPT:
            part = self._put(_replace(part, phase=Phase.KEEPING))
            return [do.Journal(part.snapshot, _replace(part, phase=Phase.SAVED, heard_ns=0))]
        if given:
            return [do.Reply(given)]
        if part.phase is not needs:
            return self._spoil(part, Cause("out_of_order", f"asked to go on from {part.phase}"))
        part = self._put(_replace(part, phase=leads_to))
        if isinstance(request, Finish):
            return [self._command(command, part, request.answers)]
        if isinstance(request, Save):
            return [self._command(command, part), self._working(part)]
        return [self._command(command, part)]

    def _serve_discard(self, part, request):
        if part.phase is Phase.FINISHING and not (request.deleted or part.deleted):
            return [self._refuse(request, Cause("already_finished"))]
        part = self._put(_replace(part, deleted=part.deleted or request.deleted))
        if part.phase in BUSY - {Phase.SAVING}:
            part = self._put(_replace(part, discard=True))
            return [self._working(part)]
        return self._discard(part)

    # -- outcomes ---------------------------------------------------------------------------------
    def _ended(self, part, outcome, now):
        match outcome, part.phase:
            case do.MembersDiscarded(), Phase.SPOILING | Phase.DISCARDING:
                return self._cleaned(part)
            case do.SaveProgress(progress=progress), Phase.SAVING:
                self._put(_replace(part, progress=progress))
                return []
            case do.MembersWithdrawn(cause=cause), (
                Phase.PREPARED | Phase.RECORDED | Phase.RELEASED | Phase.SAVING
            ):
                return self._spoil(part, cause)
            case do.MembersFinished(), Phase.FINISHING:
                return self._discard(part) if part.discard else self._forget(part)
            case do.MembersPrepared(detail=detail), Phase.PREPARING:
                answer = self._answer(Prepared, part, detail)
                after = Phase.PREPARED
            case do.MembersRecorded(cuts=cuts), Phase.RECORDING:
                if fault := cut.fault_of_cuts(part.work, cuts):
                    return self._spoil(part, fault)
                answer = self._answer(Recorded, part, cuts)
                after = Phase.RECORDED
            case do.MembersReleased(releases=releases), Phase.RELEASING:
                if fault := cut.fault_of_releases(part.work, releases):
                    return self._spoil(part, fault)
                answer = self._answer(Released, part, releases)
                after = Phase.RELEASED
            case do.MembersSaved(detail=detail), Phase.SAVING:
                answer = self._answer(Saved, part, detail)
                after = Phase.SAVED
            case _:
                return []  # of work that was given up meanwhile
        if part.discard:
            return self._discard(part)
        done = _replace(
            part, phase=after, answers=(*part.answers, answer), progress=(),
            heard_ns=now if after in LEASED else 0,
        )  # fmt: skip
        if after is Phase.SAVED:  # which is in force when `Journaled` comes
            self._put(_replace(part, phase=Phase.KEEPING))
            return [do.Journal(part.snapshot, done)]
        self._put(done)
        return self._expire(done, now) or [do.Reply(answer)]

    def _journaled(self, command, now):
        part = self.state.part(command.snapshot)
        if command.part is None:
            if part is None or part.phase not in (Phase.FINISHING, Phase.DISCARDING):
                return []
            self.state = self.state.with_decision(part.snapshot, command.decided)
            if part.phase is Phase.DISCARDING:
                return [do.Reply(self._answer(Discarded, part))]
            return self._discard(part) if part.discard else [
                do.Reply(self._answer(Finished, part))
            ]
        if part is None or part.phase is not Phase.KEEPING:
            return []
        if part.discard:
            return self._discard(part)
        self._put(_replace(command.part, heard_ns=now))
        return [do.Reply(command.part.answers[-1])]

    def _failed(self, command, cause, now):
        part = self.state.part(command.snapshot) if hasattr(command, "snapshot") else None
        if isinstance(command, do.GiveBackMembers) and part and part.phase in KEPT:
            self._put(_replace(part, heard_ns=now))  # its owner is asked again as much later
        if part is None or part.phase not in BUSY:
            return []
        match command, part.phase:
            case do.DiscardMembers(), Phase.SPOILING | Phase.DISCARDING:
                return [self._working(self._put(_replace(part, phase=Phase.STUCK)))]
            case do.Journal(part=None), Phase.DISCARDING:
                return [self._working(self._put(_replace(part, phase=Phase.STUCK)))]
            case (do.Journal(part=None) | do.FinishMembers()), Phase.FINISHING:
                if part.discard:
                    return self._discard(part)
                saved = self._put(_replace(part, phase=Phase.SAVED, heard_ns=now))
                return [self._working(saved)]
            case do.Journal(part=Part()), Phase.PREPARING:
                return self._spoil(part, cause)
            case do.Journal(part=Part()), Phase.KEEPING if not part.discard:
                # It may have been written, and a restart may find it: so what it says has to
                # stay true, and from here on only the coordinator can give up.
                unkept = _replace(command.part, phase=Phase.UNKEPT, heard_ns=now)
                return [self._working(self._put(unkept))]
            case do.Journal(part=Part()), Phase.KEEPING:
                return self._discard(part)
            case do.EngineCommand(), _ if isinstance(command, _engine_command_of(part.phase)):
                return self._spoil(part, cause)
        return []

    # -- giving up --------------------------------------------------------------------------------
    def _expire(self, part, now):
        gate, silence = (end is not None and now >= end for end in _ends(part))
        if gate:
            return self._spoil(part, Cause("gate_opened", "its lease ended before the release"))
        if silence and part.phase in KEPT:
            self._put(_replace(part, heard_ns=0))
            return [do.GiveBackMembers(part.snapshot, part.epoch, part.work.members)]
        if silence:
            text = f"nothing was heard of a coordinator for {part.work.silence_ms / 1e3:.0f} s"
            return self._spoil(part, Cause("coordinator_silent", text))
        return []

    def _spoil(self, part, cause):
        if part.discard:
            return self._discard(part)
        refusal = self._answer(Refused, part, _replace(cause, host=self.state.host))
        return self._clean(_replace(part, phase=Phase.SPOILING, refusal=refusal))

    def _discard(self, part):
        return self._clean(_replace(part, phase=Phase.DISCARDING, discard=True))

    def _clean(self, part):
        self._put(part)
        return [do.DiscardMembers(
            part.snapshot, part.epoch, part.work.members, part.discard, part.deleted
        )]  # fmt: skip

    def _cleaned(self, part):
        if part.discard:
            return self._forget(self._put(_replace(part, phase=Phase.DISCARDING)))
        part = self._put(_replace(part, phase=Phase.SPOILED))
        return [do.Reply(part.refusal)]

    def _forget(self, part):
        ended = Decision.FINISH if part.phase is Phase.FINISHING else Decision.DISCARD
        return [do.Journal(part.snapshot, None, self.state.rows_of(part, ended))]

    # -- small words ------------------------------------------------------------------------------
    def _put(self, part):
        self.state = self.state.with_part(part)
        return part

    def _command(self, kind, part, *more):
        return kind(part.snapshot, part.epoch, part.work, *more)

    def _answer(self, kind, part, *more):
        return kind(part.snapshot, part.epoch, self.state.host, *more)

    def _working(self, part):
        return do.Reply(self._answer(Working, part, part.phase, part.progress))

    def _refuse(self, request, cause):
        return do.Reply(_address(Refused, request, _replace(cause, host=request.host)))


def _address(kind, request, *more):
    return kind(request.snapshot, request.epoch, request.host, *more)


def _engine_command_of(phase):
    return next((step[2] for step in _STEPS.values() if step[1] is phase), ())


def _is_claimed(part):
    """Whether a part that needs its guests no more may have them; a restart gives them back."""
    return part.phase in KEPT and part.heard_ns > 0


def _ends(part):
    """When the part's gates count as opened and when its coordinator counts as gone, or None."""
    gate = silence = None
    if part.phase is Phase.RECORDED:
        gate = cut.lease_end_ns(part.work, part.answers[-1].cuts)
    if part.phase in LEASED or _is_claimed(part):
        silence = part.heard_ns + part.work.silence_ms * cut.NS_PER_MS
    return gate, silence
