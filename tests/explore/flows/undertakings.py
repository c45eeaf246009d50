# SPDX-License-Identifier: Apache-2.0
"""Snapshots and restores of one group: each a row, and coordinators that believe it is theirs."""

import dataclasses
from dataclasses import replace
from functools import partial

from hotsnap_nova.protocol import commands as snap
from hotsnap_nova.protocol import messages as say
from hotsnap_nova.protocol.coordinator import Phase as SnapshotPhase
from hotsnap_nova.protocol.durable import Decision
from hotsnap_nova.protocol.restore import commands as rest
from hotsnap_nova.protocol.restore import messages as order
from hotsnap_nova.protocol.restore.coordinator import Phase as RestorePhase
from hotsnap_nova.protocol.restore.durable import Resolution
from tests.explore.flows import patience
from tests.explore.flows.engine import FAILED
from tests.explore.flows.guests import Violation

_OVER = frozenset({
    SnapshotPhase.CLOSED, SnapshotPhase.STOOD_DOWN, RestorePhase.CLOSED, RestorePhase.STOOD_DOWN
})  # fmt: skip
_FINAL = (Decision.FINISH, Decision.DISCARD, Resolution.RESUME, Resolution.UNDO)


@dataclasses.dataclass(frozen=True, slots=True)
class Undertaking:
    """``slots`` are two coordinators, for the time they know nothing of each other, or None."""

    row: object
    slots: tuple = (None, None)
    begun: bool = False

    @property
    def id(self):
        return self.row.restore if self.is_restore else self.row.snapshot

    @property
    def is_restore(self):
        return hasattr(self.row, "restore")

    @property
    def decision(self):
        return self.row.resolution if self.is_restore else self.row.decision


class Office:
    """How an undertaking goes on: each method gives it as it is then, and the messages sent."""

    def __init__(self, build):
        self._build = build

    def moves(self, all_of_it):
        """(what may happen, its cost, a function that gives what comes of it, or breaks)."""
        if not all_of_it.begun:
            yield "begins", None, partial(self._try, self._begin, all_of_it)
            return
        for slot, state in enumerate(all_of_it.slots):
            for what, cost, do, *about in self._slot_moves(all_of_it, slot, state):
                yield f"{slot} {what}", cost, partial(self._try, do, all_of_it, slot, *about)

    def _slot_moves(self, all_of_it, slot, state):
        if state is None:
            if not all_of_it.row.closed:
                yield "starts", "takeovers" if slot else None, self._resume
            return
        if state.write is not None:
            if state.write_again_ns is not None:
                yield "writes again", None, self._write_again
            else:
                yield "writes", None, self._write, "ok"
                yield "writes, which is lost", "failures", self._write, "lost"
                yield "writes, which is unheard of", "failures", self._write, "unheard"
        if state.deadline_ns is not None:
            yield "meets a deadline", "timeouts", self._deadline
        for call in state.waiting:
            if call.absent_ns is not None and state.deadline_ns is None:
                yield f"leaves {call.host} an errand", "absences", self._leave, call, "ok"
                yield f"fails to leave {call.host} an errand", "failures", self._leave, call, "no"
        yield "hears of an abort", "aborts", self._abort
        yield "dies", "coordinator_crashes", self._die

    def answer(self, all_of_it, message):
        """Both slots' ways to hear it: (slot, a function as of `moves`)."""
        for slot, state in enumerate(all_of_it.slots):
            if state is not None:
                yield slot, partial(self._try, self._tell, all_of_it, slot, message)

    def _try(self, do, all_of_it, *about):
        try:
            then, sent = do(all_of_it, *about)
            patience.check(self._kind(then), then)
        except Violation as exc:
            return str(exc)
        return then, sent

    # -- what happens -----------------------------------------------------------------------------
    def _begin(self, all_of_it):
        machine, todo = self._kind(all_of_it).begin(all_of_it.row, 0)
        return self._obey(replace(all_of_it, begun=True), 0, machine.state, todo)

    def _resume(self, all_of_it, slot):
        machine, todo = self._kind(all_of_it).resume(all_of_it.row, 0)
        return self._obey(all_of_it, slot, machine.state, todo)

    def _write(self, all_of_it, slot, how):
        write, row = all_of_it.slots[slot].write, all_of_it.row
        lost = snap.CommandFailed(write, FAILED)
        if how == "lost":
            return self._tell(all_of_it, slot, lost)
        if row.generation != write.generation:
            late = rest.Overtaken if all_of_it.is_restore else snap.Superseded
            return self._tell(all_of_it, slot, late(all_of_it.id))
        kept = {"cause": write.cause and FAILED, "absent": write.absent, "closed": write.closed}
        if all_of_it.is_restore:
            kept |= {"resolution": write.resolution, "faults": write.faults}
        else:
            kept |= {"decision": write.decision, "answers": write.answers}
        then = replace(all_of_it, row=replace(row, generation=row.generation + 1, **kept))
        if all_of_it.decision in _FINAL and then.decision is not all_of_it.decision:
            raise Violation("a decision was changed")
        done = rest.Resolved if all_of_it.is_restore else snap.Persisted
        return self._tell(then, slot, lost if how == "unheard" else done(
            all_of_it.id, row.generation + 1
        ))  # fmt: skip

    def _write_again(self, all_of_it, slot):
        return self._tick(all_of_it, slot, all_of_it.slots[slot].write_again_ns)

    def _deadline(self, all_of_it, slot):
        return self._tick(all_of_it, slot, all_of_it.slots[slot].deadline_ns)

    def _abort(self, all_of_it, slot):
        kind = order.AbortRestore if all_of_it.is_restore else say.Abort
        return self._tell(all_of_it, slot, kind(all_of_it.id))

    def _die(self, all_of_it, slot):
        return self._obey(all_of_it, slot, None, ())

    def _leave(self, all_of_it, slot, call, how):
        """This host counts as absent, and no other."""
        state = all_of_it.slots[slot]
        others = (each for each in state.waiting if each is not call)
        machine = self._kind(all_of_it)(replace(state, waiting=(call, *others)))
        todo = machine.tick(call.absent_ns)
        errands = [each for each in todo if isinstance(each, rest.LeaveErrand | snap.LeaveErrand)]
        then, sent = self._obey(all_of_it, slot, machine.state, todo)
        if not errands or how == "no":
            return then, sent
        left = rest.ErrandLeft if all_of_it.is_restore else snap.ErrandLeft
        then, more = self._tell(then, slot, left(all_of_it.id, call.host))
        return then, sent | more

    def _tick(self, all_of_it, slot, now):
        machine = self._kind(all_of_it)(all_of_it.slots[slot])
        todo = machine.tick(now)
        return self._obey(all_of_it, slot, machine.state, todo)

    def _tell(self, all_of_it, slot, message):
        machine = self._kind(all_of_it)(all_of_it.slots[slot])
        todo = machine.receive(message, 0)
        return self._obey(all_of_it, slot, machine.state, todo)

    def _obey(self, all_of_it, slot, state, todo):
        sent = set()
        for command in todo:
            match command:
                case rest.SendOrder() | rest.LeaveErrand():
                    sent.add(command.order)
                case snap.Send() | snap.LeaveErrand():
                    sent.add(command.message)
        if state is not None and state.phase in _OVER:
            state = None  # nobody drives what is over; what another drives may be taken over
        if state is not None:
            state = _settled(state)
        slots = list(all_of_it.slots)
        slots[slot] = state
        return replace(all_of_it, slots=tuple(slots)), frozenset(sent)

    def _kind(self, all_of_it):
        build = self._build
        return build.restore_coordinator if all_of_it.is_restore else build.coordinator


def _settled(state):
    """One cause is as good as another, and a host may be asked again at any time."""
    write = state.write and replace(state.write, cause=state.write.cause and FAILED)
    waiting = tuple(replace(call, repeat_ns=0, repeats=0) for call in state.waiting)
    heard = "faults" if hasattr(state, "faults") else "answers"
    return replace(
        state, cause=state.cause and FAILED, write=write, absent=tuple(sorted(state.absent)),
        waiting=tuple(sorted(waiting, key=repr)),
        **{heard: tuple(sorted(getattr(state, heard), key=repr))},
    )  # fmt: skip
