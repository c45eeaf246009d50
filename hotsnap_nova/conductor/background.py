# SPDX-License-Identifier: Apache-2.0
"""Long work on snapshots, in threads, with their leases kept meanwhile."""

import contextlib
import threading
from collections.abc import Callable

from oslo_log import log as logging

from hotsnap_nova import exception

LOG = logging.getLogger(__name__)


class Background:
    """One piece of work a snapshot at a time.

    Each has an owner of its own for its lease, which its first write has taken: what ends late
    must not give back the lease of what came after.
    """

    def __init__(self, database, lease_s: float):
        self._database = database
        self._lease_s = lease_s
        self._threads: dict[str, threading.Thread] = {}
        self._owners: dict[str, str] = {}
        self._news = threading.Condition()
        self._ended = False
        self._renewer = threading.Thread(target=self._renew, daemon=True, name='hotsnap-leases')
        self._renewer.start()

    def start(self, snapshot: str, owner: str, work: Callable[[], None]) -> None:
        """Do it in a thread; what it raises is logged, and told by the row if it is to be.

        :param owner: of the lease
        """
        thread = threading.Thread(target=self._run, args=(snapshot, owner, work), daemon=True,
                                  name=f'hotsnap-work-{snapshot[:8]}')
        with self._news:
            self._threads[snapshot] = thread
            self._owners[snapshot] = owner
        thread.start()

    def has(self, snapshot: str) -> bool:
        """Whether something is being done with the snapshot here."""
        with self._news:
            return snapshot in self._threads

    def wait(self, timeout_s: float | None = None) -> bool:
        """Whether nothing is being done any more, after waiting for that."""
        with self._news:
            return self._news.wait_for(lambda: not self._threads, timeout_s)

    def close(self, timeout_s: float) -> None:
        """Return when all has ended; what takes longer is left to whoever recovers it."""
        if not self.wait(timeout_s):
            LOG.warning('Left undone: %s', ', '.join(sorted(self._threads)))
        with self._news:
            self._ended = True
            self._news.notify_all()
        self._renewer.join(timeout_s)

    def _run(self, snapshot, owner, work):
        try:
            work()
        except exception.HotsnapError as exc:
            LOG.error('Snapshot %(id)s: %(error)s', {'id': snapshot, 'error': exc})
        except Exception:
            LOG.exception('Work on snapshot %s failed', snapshot)
        finally:
            with contextlib.suppress(exception.HotsnapError):
                self._database.release_lease(snapshot, owner)
            with self._news:
                if self._threads.get(snapshot) is threading.current_thread():
                    del self._threads[snapshot], self._owners[snapshot]
                self._news.notify_all()

    def _renew(self):
        while True:
            with self._news:
                self._news.wait_for(lambda: self._ended, self._lease_s / 4)
                if self._ended:
                    return
                held = tuple(self._owners.items())
            for snapshot, owner in held:
                with contextlib.suppress(exception.HotsnapError):
                    self._database.renew_lease(snapshot, owner, self._lease_s)
