# SPDX-License-Identifier: Apache-2.0
"""A host's side of restores: one machine a host, with a `RestorePart` for each restore.

The machine decides nothing. It carries out the next step when it is ordered, once, and answers
the same as often as it is asked. What it may do on its own is refuse: after a failure, or when the
owner of a guest needs it, it goes no further and waits for the decision, which it then obeys from
wherever it is. A decision is carried out until it has succeeded; from then on the restore has
ended here, and nothing that is said of it touches a guest.

::

    PREPARE ─► STOP ─► START ─► RESUME ─► FINISH ─► ended
       └─────────┴───────┴────► UNDO ────► CLEAR ─► ended
"""

import dataclasses
from collections.abc import Iterable

from hotsnap_nova.protocol.commands import CommandFailed
from hotsnap_nova.protocol.messages import Cause
from hotsnap_nova.protocol.restore import commands as do
from hotsnap_nova.protocol.restore.durable import RestoreEnded, RestorePart, Status
from hotsnap_nova.protocol.restore.messages import (
    BEFORE_DECISION,
    DECISIONS,
    MemberFault,
    Order,
    OrderDone,
    OrderRefused,
    OrderWorking,
    Step,
)

KEPT = 1024
"""So many restores that have ended are remembered; messages do not linger for longer."""

_DECISION_OF = {
    Step.RESUME: Step.RESUME, Step.FINISH: Step.RESUME,
    Step.UNDO: Step.UNDO, Step.CLEAR: Step.UNDO,
}  # fmt: skip
_THEN = {Step.RESUME: Step.FINISH, Step.UNDO: Step.CLEAR}

_replace = dataclasses.replace


@dataclasses.dataclass(frozen=True, slots=True)
class RestoreHostState:
    """``parts`` are of restores that have not ended here; ``ended`` of those that have."""

    host: str
    parts: tuple[RestorePart, ...] = ()
    ended: tuple[RestoreEnded, ...] = ()

    def part(self, restore: str) -> RestorePart | None:
        return next((part for part in self.parts if part.restore == restore), None)

    def end_of(self, restore: str) -> RestoreEnded | None:
        return next((end for end in self.ended if end.restore == restore), None)

    def with_part(self, part: RestorePart) -> "RestoreHostState":
        others = (other for other in self.parts if other.restore != part.restore)
        parts = sorted((*others, part), key=lambda each: each.restore)
        return _replace(self, parts=tuple(parts))

    def with_end(self, end: RestoreEnded) -> "RestoreHostState":
        """The part forgotten, its end remembered."""
        parts = tuple(part for part in self.parts if part.restore != end.restore)
        others = tuple(other for other in self.ended if other.restore != end.restore)
        return _replace(self, parts=parts, ended=(*others, end)[-KEPT:])


class RestoreParticipant:
    """The machine of one host; not thread-safe, and quick enough to be called under a lock."""

    def __init__(self, state: RestoreHostState):
        self.state = state

    @classmethod
    def recover(cls, host: str, parts: Iterable[RestorePart], ended: Iterable[RestoreEnded]):
        """(machine, commands) of a fresh process, from what the journal says.

        What was decided goes on at once. All else waits to be ordered again: each step can be
        repeated, and proves for itself what it rests on. Each command is of another part.
        """
        machine = cls(RestoreHostState(host, (), tuple(ended)))
        todo = []
        for part in parts:
            if end := machine.state.end_of(part.restore):
                todo.append(do.JournalOrder(part.restore, None, end))
                continue
            if part.status is Status.WORKING:
                part = _replace(part, status=Status.INTERRUPTED, then=None, progress=())
            machine._put(part)
            if part.step in _DECISION_OF:
                todo += machine._begin(part, part.step)
        return machine, todo

    def wakeup(self) -> int | None:
        """Nothing here happens by time alone: deadlines are the coordinator's."""
        return None

    def tick(self, _now: int) -> list[do.ParticipantCommand]:
        return []

    def receive(self, message, _now: int) -> list[do.ParticipantCommand]:
        """The commands that an order, or the outcome of an earlier command, leads to."""
        match message:
            case CommandFailed(command=do.JournalOrder() as command, cause=cause):
                return self._not_journaled(command, cause)
            case CommandFailed(command=do.CarryOut() as command, cause=cause):
                return self._failed(command, cause)
            case CommandFailed():
                return []
            case do.OrderJournaled(command=command):
                return self._journaled(command)
            case do.CarriedOut():
                return self._carried_out(message)
            case do.MemberWithdrawn():
                return self._withdrawn(message)
            case do.StepProgress(restore=restore, progress=progress):
                if (part := self.state.part(restore)) and part.status is Status.WORKING:
                    self._put(_replace(part, progress=progress))
                return []
        if message.host != self.state.host:
            return []
        part = self.state.part(message.restore)
        if part is None:
            return self._serve_unknown(message)
        if message.step in DECISIONS:
            return self._serve_decision(part, message.step)
        return self._serve(part, message.step)

    # -- orders -----------------------------------------------------------------------------------
    def _serve_unknown(self, order: Order):
        if end := self.state.end_of(order.restore):
            if order.step is end.step:
                return [self._done(end)]
            return [self._refuse(order.restore, Cause("restore_ended", "it has ended here"))]
        if order.step is Step.PREPARE or order.step in DECISIONS:
            # A decision is obeyed by a host that has lost its journal, too: the engine sees by
            # the names of files what was done, and does nothing where nothing was.
            return self._begin(RestorePart(order.restore, order.share, order.step), order.step)
        cause = Cause("unknown_restore", "nothing is known of it here")
        return [self._refuse(order.restore, cause)]

    def _serve(self, part, step):
        if part.refusal:
            return [self._refuse(part.restore, part.refusal)]
        if part.step in _DECISION_OF or part.then:
            return [self._refuse(part.restore, Cause("decided", f"{part.step} was ordered"))]
        at, wanted = BEFORE_DECISION.index(part.step), BEFORE_DECISION.index(step)
        if wanted < at or (wanted == at and part.status is Status.DONE):
            return [self._answer(part, step)]
        if part.status is Status.WORKING:
            return [self._working(part)]
        if wanted == at or (wanted == at + 1 and part.status is Status.DONE):
            return self._begin(part, step)
        return self._spoil(part, Cause("out_of_order", f"asked to {step} after {part.step}"))

    def _serve_decision(self, part, step):
        if part.step in _DECISION_OF:
            if _DECISION_OF[part.step] is not step:
                return [self._refuse(part.restore, Cause("decided", f"{part.step} was ordered"))]
            if part.status is Status.DONE:  # but for the record of it
                return self._end(part) if part.trouble else [self._working(part)]
            if part.status is Status.WORKING:
                return [self._working(part)]
            return self._begin(part, part.step)
        if part.status is Status.WORKING:
            part = self._put(_replace(part, then=step))
            return [do.Hasten(part.restore), self._working(part)]
        return self._begin(part, step)

    def _begin(self, part, step):
        """The intent is journalled first; where that fails a decision goes on without it.

        Why it failed the last time is told until it has succeeded.
        """
        trouble = part.trouble if step is part.step else ""
        part = self._put(_replace(
            part, step=step, status=Status.WORKING, then=None, progress=(), trouble=trouble
        ))  # fmt: skip
        return [do.JournalOrder(part.restore, part, begins=True)]

    def _carry_out(self, part):
        """Begin the step whose intent was journalled, unless something came in between."""
        if part.then:
            return self._begin(part, part.then)
        if part.refusal and part.step not in _DECISION_OF:
            return self._spoil(part, part.refusal)
        carry_out = do.CarryOut(part.restore, part.step, part.share, part.withdrawn, part.notes)
        return [carry_out, self._working(part)]

    # -- outcomes ---------------------------------------------------------------------------------
    def _carried_out(self, outcome):
        part = self.state.part(outcome.restore)
        if part is None or part.status is not Status.WORKING or part.step is not outcome.step:
            return []
        part = _replace(
            part, notes=outcome.notes or part.notes,
            warnings=tuple(dict.fromkeys((*part.warnings, *outcome.warnings))),
        )  # fmt: skip
        match part.step:
            case Step.RESUME | Step.UNDO:  # on record before anything else, or a repeat might
                # resume again, or find nothing any more of what it has to tell
                faults = outcome.faults
                if part.step is Step.RESUME:
                    faults = self._with_withdrawn(part, faults)
                return self._begin(_replace(part, faults=faults), _THEN[part.step])
            case Step.FINISH | Step.CLEAR:  # who died since it ran is only known by now
                return self._end(_replace(part, faults=_with(part.faults, outcome.faults)))
        if part.then:
            return self._begin(part, part.then)
        status = Status.FAILED if part.refusal else Status.DONE
        # which is in force when it is on record: a restart must find what was said
        return [do.JournalOrder(part.restore, _replace(part, status=status, progress=()))]

    def _failed(self, command, cause):
        part = self.state.part(command.restore)
        if part is None or part.status is not Status.WORKING or part.step is not command.step:
            return []
        if part.step in _DECISION_OF:
            return [self._working(self._trouble(part, cause))]
        if part.then:
            return self._begin(part, part.then)
        return self._spoil(part, cause)

    def _journaled(self, command):
        if command.part is None:
            if command.ended is None:
                return []
            self.state = self.state.with_end(command.ended)
            return [self._done(command.ended)]
        part = self.state.part(command.restore)
        if part is None or part.step is not command.part.step:
            return []
        if part.status is not Status.WORKING:
            return []
        if command.begins:
            return self._carry_out(part)
        if command.part.status is Status.WORKING:  # of a withdrawal
            return []
        if part.then:  # the decision came while this was being written
            return self._begin(part, part.then)
        part = self._put(_replace(
            part, status=command.part.status, notes=command.part.notes,
            warnings=command.part.warnings, progress=(),
        ))  # fmt: skip
        if part.refusal:
            return [self._refuse(part.restore, part.refusal)]
        return [self._answer(part, part.step)]

    def _not_journaled(self, command, cause):
        part = self.state.part(command.restore)
        if part is None:  # an end of what was not known here; it will be ordered again
            return []
        if command.part is None:
            part = self._put(_replace(part, trouble=cause.text or cause.code))
            return [self._working(part)]
        if part.status is not Status.WORKING or part.step is not command.part.step:
            return []
        if command.part.status is Status.WORKING and not command.begins:
            return []  # of a withdrawal: the engine is at work, and will hear of it in time
        if part.step in _DECISION_OF or part.then:
            return self._carry_out(part)
        refusal = part.refusal or _from(cause, self.state.host)
        part = self._put(_replace(part, status=Status.FAILED, refusal=refusal))
        return [self._refuse(part.restore, part.refusal)]

    def _withdrawn(self, message):
        part = self.state.part(message.restore)
        if part is None or message.member not in [member.id for member in part.share.members]:
            return []
        if message.member in part.withdrawn:
            return []
        part = _replace(part, withdrawn=(*part.withdrawn, message.member))
        if part.step not in _DECISION_OF:
            part = _replace(part, refusal=part.refusal or _from(message.cause, self.state.host))
        part = self._put(part)
        written = do.JournalOrder(part.restore, part)
        return [do.Hasten(part.restore), written] if part.status is Status.WORKING else [written]

    # -- small words ------------------------------------------------------------------------------
    def _spoil(self, part, cause):
        refusal = part.refusal or _from(cause, self.state.host)
        part = self._put(_replace(part, status=Status.FAILED, refusal=refusal, progress=()))
        return [do.JournalOrder(part.restore, part), self._refuse(part.restore, refusal)]

    def _with_withdrawn(self, part, faults):
        """The faults, and those of members that their owner took back before they ran."""
        cause = Cause("withdrawn", "its owner needs it for something else", self.state.host)
        return _with(faults, (
            MemberFault(each, _replace(cause, member=each)) for each in part.withdrawn
        ))  # fmt: skip

    def _trouble(self, part, cause):
        return self._put(_replace(part, status=Status.FAILED, trouble=cause.text or cause.code))

    def _end(self, part):
        """All is done, and only that is to be put on record, however often it fails."""
        part = self._put(_replace(part, status=Status.DONE, progress=(), trouble=""))
        end = RestoreEnded(part.restore, _DECISION_OF[part.step], part.faults, part.warnings)
        return [do.JournalOrder(part.restore, None, end)]

    def _put(self, part):
        self.state = self.state.with_part(part)
        return part

    def _answer(self, part, step):
        """That a step before the decision is done."""
        return do.ReplyToOrder(OrderDone(
            part.restore, self.state.host, step, warnings=part.warnings
        ))  # fmt: skip

    def _done(self, end):
        return do.ReplyToOrder(OrderDone(
            end.restore, self.state.host, end.step, end.faults, end.warnings
        ))  # fmt: skip

    def _working(self, part):
        # Coordinators of earlier versions know of no `CLEAR`.
        step = Step.UNDO if part.step is Step.CLEAR else part.step
        return do.ReplyToOrder(OrderWorking(
            part.restore, self.state.host, step, part.progress, part.trouble
        ))  # fmt: skip

    def _refuse(self, restore, cause):
        return do.ReplyToOrder(OrderRefused(restore, self.state.host, cause))


def _with(faults, more):
    """The faults, and those of members that have none yet."""
    known = {fault.member for fault in faults}
    return (*faults, *(fault for fault in more if fault.member not in known))


def _from(cause, host):
    return _replace(cause, host=cause.host or host)
