# SPDX-License-Identifier: Apache-2.0
"""The coordinator of one group snapshot.

Theory of operation. The snapshot is driven through phases; in each, every host is sent the same
request, again and again, until each has given the answer the phase waits for::

    PREPARE ─► RECORD ─► (release?) ─► RELEASE ─► SAVE ─► (finish?) ─► FINISH ─► (close) ─► CLOSED
       └──────────┴───────────┴───────────┴─────────┴─► (discard?) ─► DISCARD ─► (close) ─┘

What stands in brackets is phase DECIDE: the decision is written to the database, under the
condition that nobody else changed the row, and only when it is known to be durable does a host
hear of it. So a coordinator that was restarted, or one of two that both believe they are in
charge, can never contradict what a host has been told. Up to `Decision.FINISH` anything that
goes wrong (a refusal, a deadline, a user's wish, a restart before `Decision.RELEASE`) leads to
`Decision.DISCARD`; after either there is nothing left to wonder about, and the coordinator
repeats itself until the last host has answered. Where somebody runs errands a host that is silent,
or does not get done, keeps nobody waiting: it is left one, and the snapshot closes without it. A
host that answers `Finish` with knowing nothing of the snapshot has lost its journal; it, too, is
named as absent, with the cause.

Nothing here makes the cut consistent. That is the gates' work, and each host's to judge: the
coordinator only waits until all have said "recorded" before it lets anyone open a gate.
"""

import dataclasses
import enum

from hotsnap_nova.protocol import commands as do
from hotsnap_nova.protocol.calls import Call
from hotsnap_nova.protocol.cut import NS_PER_MS
from hotsnap_nova.protocol.durable import Decision, Snapshot
from hotsnap_nova.protocol.messages import (
    Abort,
    Answer,
    Cause,
    Discard,
    Discarded,
    Finish,
    Finished,
    Prepare,
    Prepared,
    Record,
    Recorded,
    Refused,
    Release,
    Released,
    Save,
    Saved,
    Working,
)


class Phase(enum.StrEnum):
    """Where a snapshot is. How each phase is left is in the picture above."""

    PREPARE = "prepare"  # nothing a guest can feel
    RECORD = "record"  # gates close; a deadline of a second or so
    RELEASE = "release"  # all are cut; gates open
    SAVE = "save"  # in the background, an hour perhaps
    DECIDE = "decide"  # a decision is being written; `CoordinatorState.write` says which
    FINISH = "finish"  # available for ever: hosts publish
    DISCARD = "discard"  # hosts clean up
    CLOSED = "closed"  # every host has answered the decision, or was left an errand
    STOOD_DOWN = "stood_down"  # another coordinator is in charge of it


# phase → its request, the answer it waits for, what comes when all have given it
_STEPS = {
    Phase.PREPARE: (Prepare, Prepared, Phase.RECORD),
    Phase.RECORD: (Record, Recorded, Decision.RELEASE),
    Phase.RELEASE: (Release, Released, Phase.SAVE),
    Phase.SAVE: (Save, Saved, Decision.FINISH),
    Phase.FINISH: (Finish, Finished, None),
    Phase.DISCARD: (Discard, Discarded, None),
}
ABORTABLE = frozenset({Phase.PREPARE, Phase.RECORD, Phase.RELEASE, Phase.SAVE})
_DECIDED = {
    Decision.RELEASE: Phase.RELEASE,
    Decision.FINISH: Phase.FINISH,
    Decision.DISCARD: Phase.DISCARD,
}
_ENDING = frozenset({Phase.FINISH, Phase.DISCARD})
LOST = frozenset({"unknown_snapshot", "nothing_saved", "already_discarded"})
"""Causes with which only a host refuses `Finish` that has nothing left to finish."""

_replace = dataclasses.replace


@dataclasses.dataclass(frozen=True, slots=True)
class CoordinatorState:
    """``row`` is what the database holds as far as known; ``answers`` what was heard since."""

    row: Snapshot
    phase: Phase
    waiting: tuple[Call, ...] = ()
    deadline_ns: int | None = None
    write: do.Persist | None = None
    write_again_ns: int | None = None
    cause: Cause | None = None
    answers: tuple[Answer, ...] = ()
    absent: tuple[str, ...] = ()


class Coordinator:
    """The machine of one snapshot; not thread-safe."""

    def __init__(self, state: CoordinatorState):
        self.state = state

    @classmethod
    def begin(cls, row: Snapshot, now: int) -> tuple["Coordinator", list[do.CoordinatorCommand]]:
        """Start a snapshot whose row was just created: nobody has heard of it yet."""
        machine = cls(CoordinatorState(row, Phase.PREPARE))
        return machine, machine._enter(Phase.PREPARE, now)

    @classmethod
    def resume(cls, row: Snapshot, now: int) -> tuple["Coordinator", list[do.CoordinatorCommand]]:
        """Go on from the database (rule 7); what is undecided there is discarded."""
        state = CoordinatorState(
            row, Phase.CLOSED, cause=row.cause, answers=row.answers, absent=row.absent
        )
        machine = cls(state)
        if row.closed:
            return machine, []
        if row.decision is Decision.NONE:
            return machine, machine._give_up(Cause("coordinator_restarted"))
        return machine, machine._enter(_DECIDED[row.decision], now)

    def wakeup(self) -> int | None:
        """When `tick` has to be called at the latest, if nothing else happens."""
        s = self.state
        times = [call.wakeup_ns for call in s.waiting] + [s.deadline_ns, s.write_again_ns]
        return min((time for time in times if time is not None), default=None)

    def tick(self, now: int) -> list[do.CoordinatorCommand]:
        """Give up, or repeat what was not answered."""
        s = self.state
        if s.write_again_ns is not None and now >= s.write_again_ns:
            self.state = _replace(s, write_again_ns=None)
            return [s.write]
        if s.deadline_ns is not None and now >= s.deadline_ns:
            return self._give_up(Cause("timeout", f"no answer in time: {self._silent()}"))
        due = [call for call in s.waiting if now >= call.repeat_ns]
        for call in due:
            self._put(self._again(call, now))
        return [self._send(call.host) for call in due] + self._leave_one(now)

    def receive(self, message, now: int) -> list[do.CoordinatorCommand]:
        """The commands that an answer, a wish or the outcome of a command leads to."""
        match message:
            case Abort():
                return self._refused(message.cause) if self._concerns(message) else []
            case do.Persisted():
                return self._persisted(message, now)
            case do.Superseded():
                if self._concerns(message):
                    self.state = CoordinatorState(self.state.row, Phase.STOOD_DOWN)
                return []
            case do.ErrandLeft(host=host):
                return self._without(host) if self._concerns(message) else []
            case do.CommandFailed(command=do.Persist()):
                return self._not_persisted(message, now)
            case do.CommandFailed():
                return []
        row = self.state.row
        if not self._concerns(message) or message.epoch != row.epoch:
            return []
        if message.host not in dict(row.hosts):
            return []
        call = next((call for call in self.state.waiting if call.host == message.host), None)
        if self.state.deadline_ns is not None and now >= self.state.deadline_ns:
            return self.tick(now)  # a late answer changes nothing (rule 4)
        if isinstance(message, Refused):
            return self._refused(message.cause, message.host)
        if isinstance(message, Finished) and self.state.phase in ABORTABLE:
            # another coordinator has decided that: the write is superseded
            return self._refused(Cause("already_finished", host=message.host))
        if call is None:
            return []
        if isinstance(message, Working):
            return self._working(call, message, now)
        return self._answered(call, message, now)

    # -- answers ----------------------------------------------------------------------------------
    def _answered(self, call, answer, now):
        _, wanted, then = _STEPS[self.state.phase]
        if not isinstance(answer, wanted):
            return []
        waiting = tuple(other for other in self.state.waiting if other is not call)
        self.state = _replace(self.state, waiting=waiting, answers=self._with_answer(answer))
        if waiting:
            return []
        if then is None:
            return self._decide(self.state.row.decision, closed=True)
        return self._enter(then, now) if isinstance(then, Phase) else self._decide(then)

    def _working(self, call, message, now):
        self._put(self._again(call, now).heard(now, self._patience(self.state.phase)[0]))
        if not message.progress:
            return []
        row = self.state.row
        return [do.Announce(row.snapshot, self.state.phase, call.host, message.progress)]

    def _refused(self, cause, host=None):
        """Stop if that is still possible; a release being written is undone once it is written."""
        s = self.state
        if s.phase is Phase.FINISH and cause.code in LOST:
            return self._without(host, cause)
        if s.phase in ABORTABLE:
            return self._give_up(cause)
        if s.write is not None and s.write.decision is Decision.RELEASE and s.cause is None:
            self.state = _replace(s, cause=cause)
        return []

    def _without(self, host, cause=None):
        """Close without a host that was left an errand, or has nothing left to finish."""
        s = self.state
        if s.phase not in _ENDING or host not in [call.host for call in s.waiting]:
            return []
        waiting = tuple(call for call in s.waiting if call.host != host)
        absent = tuple(sorted((*s.absent, host)))
        self.state = _replace(s, waiting=waiting, absent=absent, cause=s.cause or cause)
        return [] if waiting else self._decide(s.row.decision, closed=True)

    # -- decisions --------------------------------------------------------------------------------
    def _give_up(self, cause):
        # what hosts measured is of no use any more, and would grow every row that failed
        self.state = _replace(self.state, cause=self.state.cause or cause, answers=())
        return self._decide(Decision.DISCARD)

    def _decide(self, decision, closed=False):
        s = self.state
        write = do.Persist(
            s.row.snapshot, s.row.generation, decision, closed, s.cause, s.answers, s.absent
        )
        self.state = _replace(
            s, phase=Phase.DECIDE, waiting=(), deadline_ns=None, write=write, write_again_ns=None
        )
        return [write]

    def _persisted(self, outcome, now):
        write = self.state.write
        if write is None or not self._concerns(outcome):
            return []
        row = _replace(
            self.state.row, generation=outcome.generation, decision=write.decision,
            closed=write.closed, cause=write.cause, answers=write.answers, absent=write.absent,
        )  # fmt: skip
        self.state = _replace(self.state, row=row, write=None, write_again_ns=None)
        if write.closed:
            self.state = _replace(self.state, phase=Phase.CLOSED)
            return [do.Announce(row.snapshot, Phase.CLOSED)]
        if write.decision is Decision.RELEASE and self.state.cause:
            return self._give_up(self.state.cause)
        return self._enter(_DECIDED[write.decision], now)

    def _not_persisted(self, outcome, now):
        """It may or may not have been written; the generation tells us when we write again."""
        if outcome.command != self.state.write:
            return []
        if outcome.command.decision is Decision.RELEASE:
            return self._give_up(outcome.cause)  # gates are closed: there is no time to try again
        again = now + self.state.row.limits.repeat_ms * NS_PER_MS
        self.state = _replace(self.state, write_again_ns=again)
        return []

    # -- asking -----------------------------------------------------------------------------------
    def _enter(self, phase, now):
        row, limits = self.state.row, self.state.row.limits
        timeout_ms = {
            Phase.PREPARE: limits.prepare_timeout_ms,
            Phase.RECORD: limits.record_timeout_ms,
            Phase.RELEASE: limits.record_timeout_ms,
            Phase.SAVE: limits.save_timeout_ms,
        }.get(phase)
        hosts = [host for host, _ in row.hosts if host not in self.state.absent]
        wait_ms, patience = self._wait_ms(phase), self._patience(phase)
        self.state = _replace(
            self.state, phase=phase,
            waiting=tuple(Call.first(host, now, wait_ms, *patience) for host in hosts),
            deadline_ns=None if timeout_ms is None else now + timeout_ms * NS_PER_MS,
        )  # fmt: skip
        return [*map(self._send, hosts), do.Announce(row.snapshot, phase)]

    def _send(self, host):
        s = self.state
        kind = _STEPS[s.phase][0]
        address = (s.row.snapshot, s.row.epoch, host)
        if kind is Prepare:
            return do.Send(Prepare(*address, dict(s.row.hosts)[host]))
        if kind is Discard:
            work = dict(s.row.hosts)[host]
            return do.Send(Discard(*address, work.group, work.members))
        if kind is Finish:
            return do.Send(Finish(*address, s.row.answers))
        return do.Send(kind(*address))

    def _leave_one(self, now):
        """One errand at a time: a failure of it must not be in the way of another."""
        for call in self.state.waiting:
            if call.is_over(now):
                self._put(call.left(now, self._wait_ms(self.state.phase)))
                return [do.LeaveErrand(self._send(call.host).message)]
        return []

    def _patience(self, phase):
        """For how long a host may be silent, and may answer without getting done; in ms."""
        limits = self.state.row.limits
        if phase not in _ENDING or limits.absent_ms is None:
            return None, None
        return limits.absent_ms, limits.decided_timeout_ms

    def _again(self, call, now):
        phase = self.state.phase
        return call.again(now, self._wait_ms(phase), phase in _ENDING)

    def _wait_ms(self, phase):
        limits = self.state.row.limits
        urgent = phase in (Phase.RECORD, Phase.RELEASE)
        return limits.urgent_repeat_ms if urgent else limits.repeat_ms

    # -- small words ------------------------------------------------------------------------------
    def _concerns(self, message):
        return message.snapshot == self.state.row.snapshot

    def _with_answer(self, answer):
        """Answers in the order of phases and hosts, however they came."""
        if isinstance(answer, Finished | Discarded):
            return self.state.answers
        kinds = [step[1] for step in _STEPS.values()]
        hosts = [host for host, _ in self.state.row.hosts]
        answers = {*self.state.answers, answer}
        return tuple(
            sorted(answers, key=lambda a: (kinds.index(type(a)), hosts.index(a.host)))
        )  # fmt: skip

    def _put(self, call):
        waiting = tuple(call if each.host == call.host else each for each in self.state.waiting)
        self.state = _replace(self.state, waiting=waiting)

    def _silent(self):
        return ", ".join(call.host for call in self.state.waiting)
