# SPDX-License-Identifier: Apache-2.0
"""One snapshot, made: driven from its row to its end by the coordinator machine."""

import contextlib
import time

from hotsnap_nova import exception
from hotsnap_nova.conductor import drive, errands, rows, work
from hotsnap_nova.protocol import commands, coordinator, durable, messages

#: Longer than a broker or a nova-compute takes to be restarted.
SILENCE_S = 120.0
#: No row is ever at it.
_NO_GENERATION = -1
_URGENT = frozenset({coordinator.Phase.RECORD, coordinator.Phase.RELEASE})
_DECIDED = frozenset({coordinator.Phase.FINISH, coordinator.Phase.DISCARD})
_OVER = frozenset({coordinator.Phase.CLOSED, coordinator.Phase.STOOD_DOWN})


class Making(drive.Drive):
    """Makes a snapshot, or ends what another began to make.

    :param resume: go on from the row
    :param deadline_s: seconds from now after which the snapshot is aborted
    :param silence_s: for so long a host may be silent while it saves; else it is aborted, for
        all other members would be kept from their users as long as a save may take
    """

    def __init__(self, row: durable.Snapshot, database, compute, owner: str, lease_s: float,
                 watcher: work.Watcher | None = None, deadline_s: float | None = None,
                 silence_s: float = SILENCE_S, resume: bool = False):
        super().__init__(row.snapshot, (host for host, _ in row.hosts), database, compute, owner,
                         lease_s, watcher)
        self._row = row
        self._resume = resume
        self._ends = None if deadline_s is None else time.monotonic() + deadline_s
        self._silence_s = silence_s
        self._names = {member.id: member.name or member.id
                       for _, work_of in row.hosts for member in work_of.members}
        self._progress: dict[str, tuple[int, int]] = {}

    @property
    def lease_s(self) -> float:
        """Longer than gates may be closed: meanwhile it is not renewed."""
        return self._lease_s + 2 * self._row.limits.record_timeout_ms / 1e3

    def start(self, forget=lambda _work: None) -> None:
        self._warm_up()
        machine = coordinator.Coordinator
        make = machine.resume if self._resume else machine.begin
        self._drive(make(self._row, time.monotonic_ns()), {
            commands.Send: self._send,
            commands.Persist: self._persist,
            commands.LeaveErrand: self._leave_errand,
            commands.Announce: self._announce,
        })
        super().start(forget)

    def abort(self, cause: messages.Cause) -> None:
        self._runner.receive(messages.Abort(self.snapshot, cause))

    def leave(self) -> None:
        """End where it is, but not with gates closed."""
        ends = time.monotonic() + self._row.limits.record_timeout_ms / 1e3
        while self._must_be_let_be() and time.monotonic() < ends:
            time.sleep(0.01)
        super().leave()

    # -- the thread ----------------------------------------------------------------------------

    def _is_done(self):
        return self._machine.state.phase in _OVER

    def _must_be_let_be(self):
        """Whether gates are closed."""
        state = self._machine.state
        write = state.write
        return state.phase in _URGENT or (
            write is not None and write.decision is durable.Decision.RELEASE)

    def _warm_up(self):
        """Have the statement of a decision compiled, which takes longer than to carry it out."""
        decision = commands.Persist(self.snapshot, _NO_GENERATION, durable.Decision.RELEASE)
        with contextlib.suppress(exception.HotsnapError):
            self._database.compare_and_swap(self.snapshot, _NO_GENERATION,
                                            **rows.decided(self._row, decision))

    def _look_around(self):
        if self._ends is not None and time.monotonic() >= self._ends:
            self.abort(messages.Cause(exception.CutExpired.code,
                                      'not complete when the deadline passed'))
        self._give_up_on_silent_hosts()
        super()._look_around()

    def _give_up_on_silent_hosts(self):
        state, now = self._machine.state, time.monotonic()
        if state.phase is not coordinator.Phase.SAVE:
            return
        for call in state.waiting:
            if now - self._heard.setdefault(call.host, now) >= self._silence_s:
                error = exception.HostUnreachable(
                    host=call.host, reason=f'silent for {self._silence_s:.0f} s of its save')
                self.abort(messages.Cause(error.code, str(error), call.host))

    def _do_what_is_due(self):
        if self._must_be_let_be():
            return False
        self._keep_progress()
        return True

    def _keep_progress(self):
        with self._news:
            progress, self._progress = self._progress, {}
        if progress:
            self._quietly(self._database.update_members, self.snapshot, {
                member: {'done_bytes': done, 'total_bytes': total}
                for member, (done, total) in progress.items()})

    def _keep_measurements(self):
        skew_ms, columns = rows.measured(self._machine.state.answers
                                         or self._machine.state.row.answers)
        self._quietly(self._database.update_members, self.snapshot, columns)
        if skew_ms is not None:
            self._quietly(self._database.update, self.snapshot, skew_ms=skew_ms)

    # -- commands, one method each -------------------------------------------------------------

    def _send(self, command):
        request, limits = command.message, self._row.limits
        # An answer that the broker lost costs no more than a call: the request is repeated.
        timeout_ms = min(drive.CALL_MS, {
            messages.Prepare: limits.prepare_timeout_ms,
            messages.Record: limits.record_timeout_ms,
            messages.Release: limits.record_timeout_ms}.get(type(request), drive.CALL_MS))
        self._ask(request.host, type(request).__name__,
                  lambda: self._compute.receive(request, timeout_ms / 1e3))

    def _persist(self, command):
        if command.closed:    # who sees it available shall see all of it
            self._keep_measurements()
        generation = self._swap(
            command.generation, rows.decided(self._row, command), command.closed)
        return [commands.Superseded(self.snapshot) if generation is None
                else commands.Persisted(self.snapshot, generation)]

    def _leave_errand(self, command):
        self._database.add_errand(
            self.snapshot, command.message.host, *errands.of(command.message))
        return [commands.ErrandLeft(self.snapshot, command.message.host)]

    def _announce(self, command):
        if command.phase in _DECIDED:
            self._note_decided()
        with self._news:
            self._progress |= {each.member: (each.done_bytes, each.total_bytes)
                               for each in command.progress}
        if command.phase == coordinator.Phase.SAVE and not command.progress:
            self._keep_measurements()
            self._quietly(self._database.show_phase, self.snapshot, str(command.phase),
                          self._machine.state.row.generation)
        self._tell(command.phase, **({'members': {
            self._names[each.member]: (each.done_bytes, each.total_bytes)
            for each in command.progress if each.member in self._names}}
            if command.progress else {}))

    def _phases(self):
        return {f'Snapshot {self.snapshot} epoch {self._row.epoch}': str(
            self._machine.state.phase)}
