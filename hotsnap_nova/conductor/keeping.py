# SPDX-License-Identifier: Apache-2.0
"""A restore that waits until a snapshot has kept what its group is now.

Its row is `available` meanwhile and has the action under way, so nothing else begins with it.
Where this ends before the restore has begun, by whatever, no guest was touched: whoever finds the
row after a restart says that it was given up.
"""

import threading
from collections.abc import Callable

from oslo_log import log as logging

from hotsnap_nova import exception
from hotsnap_nova.conductor import rows, work
from hotsnap_nova.protocol import messages

LOG = logging.getLogger(__name__)

#: Of a restore's action: the id of the snapshot that keeps what was before it.
RESULT = 'kept_present'


class PresentNotKept(exception.Conflict):
    """The snapshot that a restore was to wait for has failed; nothing else was done."""

    code = 'present_not_kept'
    message_format = 'The snapshot of the present failed, so nothing was restored: %(reason)s.'


class Keeping(work.Work):
    """Begins a restore once a snapshot is available; else the row tells why not.

    :param snapshot: id of the row that is to be restored
    :param generation: of that row
    :param present: id of the snapshot that keeps the present
    :param action: that row's `last_action`, ended where the restore does not begin
    :param begin_restore: given what raises where nobody wants it any more; begins the restore,
        which has the row from then on
    :param give_up: given an id and who wishes it: whoever makes that snapshot is to stop
    """

    def __init__(self, snapshot: str, generation: int, present: str, database, owner: str,
                 lease_s: float, action: dict,
                 begin_restore: Callable[[Callable[[], None]], None],
                 give_up: Callable[[str, str], None], watcher: work.Watcher | None = None):
        super().__init__(snapshot, database, owner, lease_s)
        self._present = present
        self._generation = generation
        self._action = action
        self._begin_restore = begin_restore
        self._give_up = give_up
        self._watcher = watcher
        self._wish: messages.Cause | None = None
        self._error: exception.HotsnapError | None = None
        self._handed_on = False
        self._told = False
        self._beginning: threading.Thread | None = None

    def watch(self, event: dict) -> None:
        """What goes on with the snapshot of the present; its end is looked for at each news."""
        if self._watcher:
            self._watcher(event)
        with self._news:
            self._news.notify_all()

    def abort(self, cause: messages.Cause) -> None:
        with self._news:
            self._wish = self._wish or cause
            self._news.notify_all()

    def _begin(self):
        pass

    def _is_done(self):
        return self._handed_on or self._told

    def _do_what_is_due(self):
        error = self._error
        if self._wish:    # whoever is about to begin comes too late, or has begun and hears of it
            self._quietly(self._give_up, self._present, 'who gave up the restore it was made for')
            error = exception.Aborted(self._wish.text)
        elif not error and self._beginning is None:
            error = self._look()
        if error:
            self._tell(error)
        return True

    def _look(self):
        """Why the restore does not begin; None where it may yet, or is being begun."""
        try:
            found = self._database.get(self._present)
        except exception.SnapshotNotFound:
            return PresentNotKept(reason='somebody deleted it')
        except exception.DatabaseUnavailable:    # the next time may be better
            return None
        if found.status == rows.AVAILABLE and found.closed:
            # Hosts are asked once more, which takes its time; the lease is renewed meanwhile.
            self._beginning = threading.Thread(target=self._hand_on, daemon=True,
                                               name=f'hotsnap-keep-{self.snapshot[:8]}')
            self._beginning.start()
            return None
        return None if found.status == rows.CREATING else _not_kept(found)

    def _hand_on(self):
        try:
            self._begin_restore(self._must_be_wanted)
            self._handed_on = True
        except exception.HotsnapError as exc:
            self._error = exc
        except Exception as exc:
            LOG.exception('The restore of snapshot %s does not begin', self.snapshot)
            self._error = exception.Bug(reason=f'{type(exc).__name__}: {exc}')
        with self._news:
            self._news.notify_all()

    def _must_be_wanted(self):
        """:raises Aborted: nobody wants the restore to begin, or it is another's to say"""
        if self._wish:
            raise exception.Aborted(self._wish.text)
        if self._leaving:
            raise exception.Aborted(who='a restart of the coordinator')

    def _tell(self, error):
        """Have the row tell the end, unless it is another's by now; where that fails, later."""
        self._told = self._tell_end(self._generation, self._action, error, self._action['result'])


def _not_kept(found):
    """Why the snapshot of the present is none, by its row."""
    said = (found.error_message or found.error_code or f'it is {found.status}').rstrip('.')
    error = PresentNotKept(reason=said)
    # Of whom and of which host they are, who tells of it wants to know.
    error.kwargs |= {key: value for key, value in (
        ('member', found.error_member), ('host', found.error_host)) if value}
    return error
