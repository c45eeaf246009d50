# SPDX-License-Identifier: Apache-2.0
"""One snapshot, driven from its row to its end by the coordinator machine."""

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent import futures

from oslo_log import log as logging

from hotsnap_nova import exception, runner
from hotsnap_nova.conductor import rows
from hotsnap_nova.protocol import commands, coordinator, durable, messages

LOG = logging.getLogger(__name__)

#: How often somebody else's wish to abort is looked for, and the lease renewed.
_LOOK_EVERY_S = 1.0
#: Calls to one host that may be under way: the first, and repeats answered "working".
_CALLS_A_HOST = 4
#: A call that takes longer is asked again, and answered then.
_CALL_MS = 10_000
_LEAVE_S = 30.0
#: Longer than a broker or a nova-compute takes to be restarted.
SILENCE_S = 120.0
#: No row is ever at it.
_NO_GENERATION = -1
_URGENT = frozenset({coordinator.Phase.RECORD, coordinator.Phase.RELEASE})
_DECIDED = frozenset({coordinator.Phase.FINISH, coordinator.Phase.DISCARD})
_OVER = frozenset({coordinator.Phase.CLOSED, coordinator.Phase.STOOD_DOWN})

#: Called with a dict: ``snapshot``, ``phase``, and with progress also ``members``
#: {name: (done, total)}.
Watcher = Callable[[dict], None]


class Drive:
    """Drives one snapshot; whoever starts it owns the snapshot's lease.

    :param database: `db.api`, or one like it
    :param compute: `compute.rpcapi.ComputeApi`
    :param deadline_s: seconds from now after which the snapshot is aborted
    :param silence_s: for so long a host may be silent while it saves; else it is aborted, for
        all other members would be kept from their users as long as a save may take
    """

    def __init__(self, row: durable.Snapshot, database, compute, owner: str, lease_s: float,
                 watcher: Watcher | None = None, deadline_s: float | None = None,
                 silence_s: float = SILENCE_S):
        self._database = database
        self._compute = compute
        self._owner = owner
        self._lease_s = lease_s
        self._watcher = watcher
        self._ends = None if deadline_s is None else time.monotonic() + deadline_s
        self._silence_s = silence_s
        self._heard: dict[str, float] = {}    # when a host answered last
        self._row = row
        self._names = {member.id: member.name or member.id
                       for _, work in row.hosts for member in work.members}
        self._calls = {host: threading.Semaphore(_CALLS_A_HOST) for host, _ in row.hosts}
        self._pool = futures.ThreadPoolExecutor(
            _CALLS_A_HOST * len(row.hosts), thread_name_prefix='hotsnap-call')
        self._news = threading.Condition()
        self._progress: dict[str, tuple[int, int]] = {}
        self._decided_at = 0.0
        self._leaving = False
        self._thread = None
        self._machine = None

    @property
    def snapshot(self) -> str:
        return self._row.snapshot

    @property
    def lease_s(self) -> float:
        """For how long to take the lease: it is not renewed while gates are closed."""
        return self._lease_s + 2 * self._row.limits.record_timeout_ms / 1e3

    def start(self, resume: bool = False) -> None:
        """Begin, or with ``resume`` go on from the row, in a thread of its own."""
        self._warm_up()
        make = coordinator.Coordinator.resume if resume else coordinator.Coordinator.begin
        self._machine, todo = make(self._row, time.monotonic_ns())
        self._runner = runner.Runner(self._machine, {
            commands.Send: self._send,
            commands.Persist: self._persist,
            commands.Announce: self._announce,
        }, self._phases)
        self._thread = threading.Thread(target=self._run, args=(todo,), daemon=True,
                                        name=f'hotsnap-drive-{self.snapshot[:8]}')
        self._thread.start()

    def abort(self, cause: messages.Cause) -> None:
        """Give the snapshot up, if that is still possible."""
        self._runner.receive(messages.Abort(self.snapshot, cause))

    def wait(self, timeout_s: float | None = None) -> bool:
        """Whether the drive has ended, after waiting for that.

        Waits in short steps, so that a signal of the main thread is heard.
        """
        ends = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            with self._news:
                if not self._thread.is_alive():
                    return True
                left_s = 0.2 if ends is None else min(0.2, ends - time.monotonic())
                if left_s <= 0:
                    return False
                self._news.wait(left_s)

    def seconds_decided(self) -> float:
        """For how long hosts have been asked to do what was decided; 0 before."""
        return time.monotonic() - self._decided_at if self._decided_at else 0.0

    def leave(self) -> None:
        """End where it is, but not with gates closed; whoever recovers the snapshot goes on."""
        ends = time.monotonic() + self._row.limits.record_timeout_ms / 1e3
        while self._gates_are_closed() and time.monotonic() < ends:
            time.sleep(0.01)
        with self._news:
            self._leaving = True
            self._news.notify_all()
        self._thread.join(_LEAVE_S)
        if self._thread.is_alive():    # a database that hangs
            LOG.warning('Snapshot %s is not let go of in time: its lease ends by itself',
                        self.snapshot)

    # -- the thread ----------------------------------------------------------------------------

    def _run(self, todo):
        try:
            self._runner.carry_out(todo)
            self._runner.start_ticking()
            looked = time.monotonic()
            while not self._is_over():
                with self._news:
                    if not self._is_over():
                        self._news.wait(_LOOK_EVERY_S)
                if self._gates_are_closed():
                    continue    # the database is left alone
                self._keep_progress()
                if time.monotonic() - looked >= _LOOK_EVERY_S:
                    looked = time.monotonic()
                    self._look_around()
        except Exception:
            LOG.exception('Driving snapshot %s failed; recovery goes on with it', self.snapshot)
        finally:
            self._runner.close()
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._quietly(self._database.release_lease, self.snapshot, self._owner)
            with self._news:
                self._news.notify_all()

    def _is_over(self):
        return self._leaving or self._machine.state.phase in _OVER

    def _gates_are_closed(self):
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
        if self._quietly(self._database.renew_lease, self.snapshot, self._owner,
                         self.lease_s) is False:
            self._leaving = True    # the row is another's now, or gone
            return
        wish = self._quietly(self._database.abort_requested, self.snapshot)
        if wish:
            self.abort(messages.Cause(exception.Aborted.code, wish))

    def _give_up_on_silent_hosts(self):
        state, now = self._machine.state, time.monotonic()
        if state.phase is not coordinator.Phase.SAVE:
            return
        for call in state.waiting:
            if now - self._heard.setdefault(call.host, now) >= self._silence_s:
                error = exception.HostUnreachable(
                    host=call.host, reason=f'silent for {self._silence_s:.0f} s of its save')
                self.abort(messages.Cause(error.code, str(error), call.host))

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

    def _quietly(self, call, *args, **kwargs):
        """Nothing depends on it, and the next time may be better."""
        try:
            return call(*args, **kwargs)
        except Exception as exc:
            LOG.warning('Snapshot %(id)s: %(call)s failed: %(error)s', {
                'id': self.snapshot, 'call': call.__name__, 'error': exc})
            return None

    # -- commands, one method each -------------------------------------------------------------

    def _send(self, command):
        host = command.message.host
        if self._calls[host].acquire(blocking=False):    # else: a lost message
            try:
                self._pool.submit(self._call, command.message)
            except RuntimeError:    # the drive has ended
                self._calls[host].release()

    def _call(self, request):
        limits = self._row.limits
        timeout_ms = {messages.Prepare: limits.prepare_timeout_ms,
                      messages.Record: limits.record_timeout_ms,
                      messages.Release: limits.record_timeout_ms}.get(type(request), _CALL_MS)
        try:
            answer = self._compute.receive(request, timeout_ms / 1e3)
        except exception.HostUnreachable as exc:
            LOG.debug('Snapshot %s: %s lost: %s', self.snapshot, type(request).__name__, exc)
            return
        except exception.HotsnapError as exc:
            LOG.error('Snapshot %(id)s: %(host)s failed at %(request)s: %(error)s', {
                'id': self.snapshot, 'host': request.host, 'error': exc,
                'request': type(request).__name__})
            return
        finally:
            self._calls[request.host].release()
        if answer is not None:
            self._heard[request.host] = time.monotonic()
            self._runner.receive(answer)

    def _persist(self, command):
        if command.closed:    # who sees it available shall see all of it
            self._keep_measurements()
        values = rows.decided(self._row, command)
        try:
            generation = self._database.compare_and_swap(
                self.snapshot, command.generation, **values)
        except exception.SnapshotNotFound:    # deleted by force
            return [commands.Superseded(self.snapshot)]
        except exception.StaleGeneration:
            # Perhaps it was us: a write whose end we did not hear of.
            found = self._database.get(self.snapshot)
            if (found.generation, found.lease_owner, found.machine) != (
                    command.generation + 1, self._owner, values['machine']):
                return [commands.Superseded(self.snapshot)]
            generation = found.generation
        return [commands.Persisted(self.snapshot, generation)]

    def _announce(self, command):
        with self._news:
            if command.phase in _DECIDED and not self._decided_at:
                self._decided_at = time.monotonic()
            self._progress |= {each.member: (each.done_bytes, each.total_bytes)
                               for each in command.progress}
            self._news.notify_all()
        if command.phase == coordinator.Phase.SAVE and not command.progress:
            self._keep_measurements()
            self._quietly(self._database.show_phase, self.snapshot, str(command.phase),
                          self._machine.state.row.generation)
        if self._watcher:
            event = {'snapshot': self.snapshot, 'phase': str(command.phase)}
            if command.progress:
                event['members'] = {self._names[each.member]: (each.done_bytes, each.total_bytes)
                                    for each in command.progress
                                    if each.member in self._names}
            self._watcher(event)

    def _phases(self):
        return {f'Snapshot {self.snapshot} epoch {self._row.epoch}': str(
            self._machine.state.phase)}
