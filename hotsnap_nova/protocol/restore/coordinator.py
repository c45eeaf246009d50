# SPDX-License-Identifier: Apache-2.0
"""The coordinator of one restore.

Theory of operation. All hosts are ordered the same step, again and again, until each has done it::

    PREPARE ─► STOP ─► START ─► (resume?) ─► RESUME ─► (close) ─► CLOSED
       └─────────┴───────┴─────► (undo?) ──► UNDO ───► (close) ─┘

What stands in brackets is phase DECIDE: the decision is written to the database, under the
condition that nobody else changed the row, and only when it is known to be durable does a host
hear of it. START ends when every member on every host stands at the cut, paused, and STOP before
it when every old one is proved stopped: so no restored member runs before that. Up to the
decision a refusal, a deadline, silence, a user's wish or a restart leads to UNDO; after it there
is nothing left to wonder about. A host that is then away, or does not get done, keeps nobody
waiting: it is left an errand, made from the stored decision, and the restore closes without it.

Whoever takes a restore over writes the row before he does anything else, be it only to decide
again what was decided: from then on whoever stood still can decide nothing.
"""

import dataclasses
import enum

from hotsnap_nova.protocol.calls import Call
from hotsnap_nova.protocol.commands import CommandFailed
from hotsnap_nova.protocol.cut import NS_PER_MS
from hotsnap_nova.protocol.messages import Cause
from hotsnap_nova.protocol.restore import commands as do
from hotsnap_nova.protocol.restore.durable import Resolution, Restore
from hotsnap_nova.protocol.restore.messages import (
    BEFORE_DECISION,
    AbortRestore,
    MemberFault,
    MemberWarning,
    Order,
    OrderDone,
    OrderRefused,
    OrderWorking,
    Step,
)


class Phase(enum.StrEnum):
    """Where a restore is; the first five are the steps that hosts are ordered."""

    PREPARE = "prepare"
    STOP = "stop"
    START = "start"
    RESUME = "resume"
    UNDO = "undo"
    DECIDE = "decide"  # a decision is being written; `CoordinatorState.write` says which
    CLOSED = "closed"
    STOOD_DOWN = "stood_down"  # another coordinator is in charge of it


ABORTABLE = frozenset(Phase(step) for step in BEFORE_DECISION)
_DECIDED = {Resolution.RESUME: Phase.RESUME, Resolution.UNDO: Phase.UNDO}
_ENDING = frozenset(_DECIDED.values())
_THEN = dict(zip(BEFORE_DECISION, (*BEFORE_DECISION[1:], None), strict=True))

_replace = dataclasses.replace


@dataclasses.dataclass(frozen=True, slots=True)
class CoordinatorState:
    """``row`` is what the database holds as far as known; the rest was heard since."""

    row: Restore
    phase: Phase
    waiting: tuple[Call, ...] = ()
    deadline_ns: int | None = None
    write: do.Resolve | None = None
    write_again_ns: int | None = None
    cause: Cause | None = None
    faults: tuple[MemberFault, ...] = ()
    absent: tuple[str, ...] = ()
    warnings: tuple[MemberWarning, ...] = ()


class RestoreCoordinator:
    """The machine of one restore; not thread-safe."""

    def __init__(self, state: CoordinatorState):
        self.state = state

    @classmethod
    def begin(cls, row: Restore, now: int):
        """(machine, commands) of a restore whose row was just written: nobody has heard of it."""
        machine = cls(CoordinatorState(row, Phase.PREPARE, warnings=row.warnings))
        return machine, machine._enter(Phase.PREPARE, now)

    @classmethod
    def resume(cls, row: Restore, _now: int):
        """(machine, commands) that go on from the row; what is undecided there is undone."""
        state = CoordinatorState(
            row, Phase.CLOSED, cause=row.cause, faults=row.faults, absent=row.absent,
            warnings=row.warnings,
        )  # fmt: skip
        machine = cls(state)
        if row.closed:
            return machine, []
        if row.resolution is Resolution.NONE:
            return machine, machine._give_up(Cause("coordinator_restarted"))
        return machine, machine._resolve(row.resolution)

    def wakeup(self) -> int | None:
        """When `tick` has to be called at the latest, if nothing else happens."""
        s = self.state
        times = [call.wakeup_ns for call in s.waiting] + [s.deadline_ns, s.write_again_ns]
        return min((time for time in times if time is not None), default=None)

    def tick(self, now: int) -> list[do.CoordinatorCommand]:
        """Give up, leave errands, or repeat what was not answered."""
        s = self.state
        if s.write_again_ns is not None and now >= s.write_again_ns:
            self.state = _replace(s, write_again_ns=None)
            return [s.write]
        if s.deadline_ns is not None and now >= s.deadline_ns:
            silent = ", ".join(call.host for call in s.waiting)
            return self._give_up(Cause("timeout", f"{s.phase} took too long on {silent}"))
        over = next((call for call in s.waiting if call.is_over(now)), None)
        if over and s.phase in ABORTABLE:
            text = f"silent for {s.row.limits.silence_ms / 1e3:.0f} s"
            return self._give_up(Cause("host_unreachable", text, over.host))
        due = [call for call in s.waiting if now >= call.repeat_ns]
        for call in due:
            self._put(self._again(call, now))
        return [do.SendOrder(self._order(call.host)) for call in due] + self._leave_one(now)

    def receive(self, message, now: int) -> list[do.CoordinatorCommand]:
        """The commands that an answer, a wish or the outcome of a command leads to."""
        match message:
            case CommandFailed(command=do.Resolve() as write):
                return self._not_resolved(write, now)
            case CommandFailed():
                return []
        if message.restore != self.state.row.restore:
            return []
        match message:
            case AbortRestore(cause=cause) | OrderRefused(cause=cause):
                return self._give_up(cause) if self.state.phase in ABORTABLE else []
            case do.Resolved():
                return self._resolved(message, now)
            case do.Overtaken():
                self.state = CoordinatorState(self.state.row, Phase.STOOD_DOWN)
                return []
            case do.ErrandLeft(host=host):
                return self._without(host)
        if self.state.deadline_ns is not None and now >= self.state.deadline_ns:
            return self.tick(now)  # a late answer changes nothing
        call = next((call for call in self.state.waiting if call.host == message.host), None)
        if call is None or self.state.phase is Phase.DECIDE:
            return []
        if isinstance(message, OrderWorking):
            return self._working(call, message, now)
        return self._done(call, message, now)

    # -- answers ----------------------------------------------------------------------------------
    def _done(self, call, answer: OrderDone, now):
        s = self.state
        if answer.step != s.phase:
            return []
        waiting = tuple(other for other in s.waiting if other is not call)
        self.state = _replace(
            s, waiting=waiting, faults=(*s.faults, *answer.faults),
            warnings=tuple(dict.fromkeys((*s.warnings, *answer.warnings))),
        )  # fmt: skip
        if waiting:
            return []
        if s.phase not in ABORTABLE:
            return self._resolve(s.row.resolution, closed=True)
        then = _THEN[Step(s.phase)]
        return self._enter(Phase(then), now) if then else self._resolve(Resolution.RESUME)

    def _working(self, call, message, now):
        absent_ms, _ = self._patience(self.state.phase)
        self._put(self._again(call, now, gets_on=not message.trouble).heard(now, absent_ms))
        if not message.progress:
            return []
        announced = do.AnnounceStep(
            self.state.row.restore, self.state.phase, call.host, message.progress
        )
        return [announced]

    def _without(self, host):
        """The host was left an errand."""
        s = self.state
        if s.phase not in _ENDING or host not in [call.host for call in s.waiting]:
            return []
        waiting = tuple(call for call in s.waiting if call.host != host)
        self.state = _replace(s, waiting=waiting, absent=(*s.absent, host))
        return [] if waiting else self._resolve(s.row.resolution, closed=True)

    # -- decisions --------------------------------------------------------------------------------
    def _give_up(self, cause):
        self.state = _replace(self.state, cause=self.state.cause or cause)
        return self._resolve(Resolution.UNDO)

    def _resolve(self, resolution, closed=False):
        s = self.state
        write = do.Resolve(
            s.row.restore, s.row.generation, resolution, closed, s.cause,
            tuple(sorted(s.faults, key=lambda fault: fault.member)), tuple(sorted(s.absent)),
            s.warnings,
        )  # fmt: skip
        self.state = _replace(
            s, phase=Phase.DECIDE, waiting=(), deadline_ns=None, write=write, write_again_ns=None
        )
        return [write]

    def _resolved(self, outcome, now):
        write = self.state.write
        if write is None:
            return []
        row = _replace(
            self.state.row, generation=outcome.generation, resolution=write.resolution,
            closed=write.closed, cause=write.cause, faults=write.faults, absent=write.absent,
            warnings=write.warnings,
        )  # fmt: skip
        self.state = _replace(self.state, row=row, write=None, write_again_ns=None)
        if write.closed:
            self.state = _replace(self.state, phase=Phase.CLOSED)
            return [do.AnnounceStep(row.restore, Phase.CLOSED)]
        return self._enter(_DECIDED[write.resolution], now)

    def _not_resolved(self, write, now):
        """It may or may not have been written: writing it again tells, by its generation."""
        if write != self.state.write:
            return []
        again = now + self.state.row.limits.urgent_repeat_ms * NS_PER_MS
        self.state = _replace(self.state, write_again_ns=again)
        return []

    # -- ordering ---------------------------------------------------------------------------------
    def _enter(self, phase, now):
        row, limits = self.state.row, self.state.row.limits
        timeout_ms = {
            Phase.PREPARE: limits.prepare_timeout_ms,
            Phase.STOP: limits.stop_timeout_ms,
            Phase.START: limits.start_timeout_ms,
        }.get(phase)
        hosts = [host for host, _ in row.hosts if host not in self.state.absent]
        wait_ms, patience = self._wait_ms(phase), self._patience(phase)
        self.state = _replace(
            self.state, phase=phase,
            waiting=tuple(Call.first(host, now, wait_ms, *patience) for host in hosts),
            deadline_ns=None if timeout_ms is None else now + timeout_ms * NS_PER_MS,
        )  # fmt: skip
        asked = [do.SendOrder(self._order(host)) for host in hosts]
        return [*asked, do.AnnounceStep(row.restore, phase)]

    def _order(self, host):
        row = self.state.row
        return Order(row.restore, host, Step(self.state.phase), dict(row.hosts)[host])

    def _leave_one(self, now):
        """One errand at a time: a failure of it must not be in the way of another."""
        for call in self.state.waiting:
            if call.is_over(now):
                self._put(call.left(now, self.state.row.limits.repeat_ms))
                return [do.LeaveErrand(self._order(call.host))]
        return []

    def _again(self, call, now, gets_on=False):
        """Once decided a host is asked less and less often, unless it gets on."""
        phase = self.state.phase
        return call.again(now, self._wait_ms(phase), phase in _ENDING and not gets_on)

    def _put(self, call):
        waiting = tuple(call if each.host == call.host else each for each in self.state.waiting)
        self.state = _replace(self.state, waiting=waiting)

    def _patience(self, phase):
        """For how long a host may be silent, and may answer without getting done; in ms."""
        limits = self.state.row.limits
        if phase not in _ENDING:
            return limits.silence_ms, None
        if limits.absent_ms is None:
            return None, None
        return limits.absent_ms, limits.decided_timeout_ms

    def _wait_ms(self, phase):
        limits = self.state.row.limits
        return limits.repeat_ms if phase is Phase.PREPARE else limits.urgent_repeat_ms
