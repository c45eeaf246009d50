# SPDX-License-Identifier: Apache-2.0
"""What goes on with one snapshot here, in a thread of its own and under the row's lease.

Whatever takes long is one of these, and nothing else renews a lease or hears a wish to abort.
"""

import abc
import contextlib
import threading
import time
from collections.abc import Callable

from oslo_log import log as logging

from hotsnap_nova import exception
from hotsnap_nova.conductor import actions
from hotsnap_nova.protocol import messages

LOG = logging.getLogger(__name__)

#: How often somebody else's wish to abort is looked for, and the lease renewed.
_LOOK_EVERY_S = 1.0
_LEAVE_S = 30.0

#: Called with a dict: ``snapshot``, ``phase``, and with progress also ``members``
#: {name: (done, total)} or ``bytes`` (done, total).
Watcher = Callable[[dict], None]


class Work(abc.ABC):
    """Runs from `start` until it is over, or somewhere else.

    :param database: `db.api`, or one like it
    :param owner: of the lease, which the row's last write has taken; this piece of work's own:
        what ends late must not give back the lease of what came after
    """

    def __init__(self, snapshot: str, database, owner: str, lease_s: float):
        self.snapshot = snapshot
        self._database = database
        self._owner = owner
        self._lease_s = lease_s
        self._news = threading.Condition()
        self._used = contextlib.ExitStack()
        self._leaving = False
        self._ended = False

    @property
    def lease_s(self) -> float:
        """For how long to take the lease."""
        return self._lease_s

    def start(self, forget: Callable[['Work'], None] = lambda _work: None) -> None:
        """Begin, in a thread.

        :param forget: called when it is over
        """
        threading.Thread(target=self._run, args=(forget,), daemon=True,
                         name=f'hotsnap-work-{self.snapshot[:8]}').start()

    @abc.abstractmethod
    def abort(self, cause: messages.Cause) -> None:
        """Give it up, if that is still possible."""

    def seconds_decided(self) -> float:
        """For how long hosts have been asked to do what was decided; 0 before."""
        return 0.0

    def wait(self, timeout_s: float | None = None) -> bool:
        """Whether it has ended here, after waiting for that.

        Waits in short steps, so that a signal of the main thread is heard.
        """
        ends = None if timeout_s is None else time.monotonic() + timeout_s
        with self._news:
            while not self._ended:
                left_s = 0.2 if ends is None else min(0.2, ends - time.monotonic())
                if left_s <= 0:
                    return False
                self._news.wait(left_s)
        return True

    def leave(self) -> None:
        """End where it is; whoever recovers the snapshot goes on."""
        with self._news:
            self._leaving = True
            self._news.notify_all()
        if not self.wait(_LEAVE_S):    # a database that hangs
            LOG.warning('Snapshot %s is not let go of in time: its lease ends by itself',
                        self.snapshot)

    # -- what kinds of work do -----------------------------------------------------------------

    @abc.abstractmethod
    def _begin(self):
        """Set off what is to be done; `_used` lets go of what it needs, once it is over."""

    @abc.abstractmethod
    def _is_done(self):
        """Whether there is nothing left to do."""

    def _do_what_is_due(self) -> bool:
        """Now and then; whether the database may be asked something after it."""
        return True

    def _look_around(self):
        """Each second: whether the row is still ours, and what others wish."""
        if self._quietly(self._database.renew_lease, self.snapshot, self._owner,
                         self.lease_s) is False:
            self._leaving = True    # it is another's now, or gone
            return
        wish = self._quietly(self._database.abort_requested, self.snapshot)
        if wish:
            self.abort(messages.Cause(exception.Aborted.code, wish))

    # -- the thread ----------------------------------------------------------------------------

    def _run(self, forget):
        try:
            with self._used:
                self._begin()
                self._go_on()
        except Exception:
            LOG.exception('Work on snapshot %s failed; recovery goes on with it', self.snapshot)
        finally:
            self._quietly(self._database.release_lease, self.snapshot, self._owner)
            forget(self)
            with self._news:
                self._ended = True
                self._news.notify_all()

    def _go_on(self):
        looked = time.monotonic()
        while not self._is_over():
            with self._news:
                if not self._is_over():
                    self._news.wait(_LOOK_EVERY_S)
            if self._do_what_is_due() and time.monotonic() - looked >= _LOOK_EVERY_S:
                looked = time.monotonic()
                self._look_around()

    def _is_over(self):
        return self._leaving or self._is_done()

    def _tell_end(self, generation, action, error, result):
        """Whether the row tells how the action ended, or is another's by now; else later."""
        about = {'id': self.snapshot, 'action': action['name']}
        try:
            self._database.compare_and_swap(self.snapshot, generation,
                                            **actions.ended(action, error, result))
        except (exception.StaleGeneration, exception.SnapshotNotFound):
            LOG.warning('Snapshot %(id)s: how its %(action)s ended nobody wants to know any more',
                        about)
        except exception.HotsnapError as exc:
            LOG.warning('Snapshot %(id)s: how its %(action)s ended cannot be told yet: %(error)s',
                        about | {'error': exc})
            return False
        return True

    def _quietly(self, call, *args, **kwargs):
        """Nothing depends on it, and the next time may be better."""
        try:
            return call(*args, **kwargs)
        except Exception as exc:
            LOG.warning('Snapshot %(id)s: %(call)s failed: %(error)s', {
                'id': self.snapshot, 'call': call.__name__, 'error': exc})
            return None
