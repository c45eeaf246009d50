# SPDX-License-Identifier: Apache-2.0
"""A coordinator machine, driven from its row to its end; `making` and `restoring` are the two."""

import abc
import threading
import time
from collections.abc import Callable, Iterable
from concurrent import futures

from oslo_log import log as logging

from hotsnap_nova import exception, runner
from hotsnap_nova.conductor import work

LOG = logging.getLogger(__name__)

#: Calls to one host that may be under way: the first, and repeats answered "working".
_CALLS_A_HOST = 4
#: A call that takes longer is asked again, and answered then.
CALL_MS = 10_000


class Drive(work.Work):
    """Does what a machine says, and hands it what comes of that.

    :param snapshot: id of the row
    :param hosts: that the machine sends to
    :param compute: `compute.rpcapi.ComputeApi`
    """

    def __init__(self, snapshot: str, hosts: Iterable[str], database, compute, owner: str,
                 lease_s: float, watcher: work.Watcher | None = None):
        super().__init__(snapshot, database, owner, lease_s)
        hosts = tuple(hosts)
        self._compute = compute
        self._watcher = watcher
        self._heard: dict[str, float] = {}    # when a host answered last
        self._calls = {host: threading.Semaphore(_CALLS_A_HOST) for host in hosts}
        self._pool = futures.ThreadPoolExecutor(
            _CALLS_A_HOST * len(hosts), thread_name_prefix='hotsnap-call')
        self._decided_at = 0.0
        self._todo = ()
        self._machine = None
        self._runner: runner.Runner | None = None

    def seconds_decided(self) -> float:
        return time.monotonic() - self._decided_at if self._decided_at else 0.0

    def _drive(self, made, executors: dict) -> None:
        """Have `start` run this machine.

        :param made: (machine, commands)
        """
        self._machine, self._todo = made
        self._runner = runner.Runner(self._machine, executors, self._phases)

    def _begin(self):
        self._used.callback(self._pool.shutdown, wait=False, cancel_futures=True)
        self._used.callback(self._runner.close)
        self._runner.carry_out(self._todo)
        self._runner.start_ticking()

    @abc.abstractmethod
    def _phases(self):
        """What is logged, by what is in it."""

    # -- hosts ---------------------------------------------------------------------------------

    def _ask(self, host: str, what: str, call: Callable[[], object]) -> None:
        """Have a thread call the host, and the machine receive its answer; it may get lost."""
        if self._calls[host].acquire(blocking=False):
            try:
                self._pool.submit(self._call, host, what, call)
            except RuntimeError:    # this has ended
                self._calls[host].release()

    def _call(self, host, what, call):
        about = {'id': self.snapshot, 'host': host, 'what': what}
        try:
            try:
                answer = call()
            finally:
                self._calls[host].release()
            if answer is not None:
                self._heard[host] = time.monotonic()
                self._runner.receive(answer)
        except exception.HostUnreachable as exc:
            LOG.debug('Snapshot %(id)s: %(what)s lost: %(error)s', about | {'error': exc})
        except exception.HotsnapError as exc:
            LOG.error('Snapshot %(id)s: %(host)s failed at %(what)s: %(error)s',
                      about | {'error': exc})
        except Exception:
            LOG.exception('Snapshot %(id)s: %(what)s at %(host)s failed', about)

    # -- the row -------------------------------------------------------------------------------

    def _swap(self, generation: int, values: dict, closed: bool) -> int | None:
        """The new generation where the row still was at this one; None where another was first.

        :param closed: nobody needs a lease any more: who dies right after it leaves none
        :raises DatabaseUnavailable: it is not known which: to do the same again tells
        """
        try:
            return self._database.compare_and_swap(
                self.snapshot, generation, lease=(None, 0) if closed else None, **values)
        except exception.SnapshotNotFound:    # deleted by force
            return None
        except exception.StaleGeneration:
            # Perhaps it was us: a write whose end we did not hear of.
            try:
                found = self._database.get(self.snapshot)
            except exception.SnapshotNotFound:
                return None
            owner = None if closed else self._owner
            ours = (found.generation, found.lease_owner) == (generation + 1, owner)
            if ours and all(getattr(found, name) == value for name, value in values.items()):
                return found.generation
            return None

    # -- who watches ---------------------------------------------------------------------------

    def _note_decided(self):
        with self._news:
            self._decided_at = self._decided_at or time.monotonic()

    def _tell(self, phase, **more):
        with self._news:
            self._news.notify_all()
        if self._watcher:
            self._watcher({'snapshot': self.snapshot, 'phase': str(phase), **more})
