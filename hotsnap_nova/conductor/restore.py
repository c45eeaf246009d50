# SPDX-License-Identifier: Apache-2.0
"""A group brought back to its cut.

::

    check ─► prepare ─► stop ─► start ─► (decided) ─► resume ─► finish
                └────────┴───────┴──► undo

Each step is done on all hosts before the next begins on any: digests are
proved and files placed before anything is stopped, and no restored member
runs before every old one is proved stopped, or segments of the old run would
enter restored TCP windows. Up to "decided", which is a row in the database,
any failure, a restart included, puts the old disks back; after it the restore
only goes on.
"""

import json
import time
import uuid

from oslo_log import log as logging

from hotsnap_nova import exception
from hotsnap_nova.conductor import fanout, rows

LOG = logging.getLogger(__name__)

_BEFORE = ('prepare', 'stop', 'start')
_AFTER = ('resume', 'finish')
_DECIDED = 'decided'


class Restore:
    """One restore of one snapshot.

    :param found: the database's row, with its members
    """

    def __init__(self, found, database, compute, owner: str, lease_s: float):
        self._found = found
        self._database = database
        self._compute = compute
        self._owner = owner
        self._lease_s = lease_s
        self._generation = found.generation
        self._leased = False
        self._renew_at = 0.0
        self._hosts = tuple(sorted({member.host for member in found.members}))

    def run(self, paused: bool, watcher=None, is_unwanted=lambda: False) -> None:
        """Restore; members run at the end, or with ``paused`` stand at the cut.

        :raises HotsnapError: undone; the snapshot is as good as before
        """
        plan = {'restore_id': str(uuid.uuid4()), 'paused': paused, 'step': _BEFORE[0]}
        self._do('check', plan, watcher, is_unwanted)    # touches nothing: nothing to undo
        # With the lease in the same write: nobody finds the row restoring and unowned.
        self._write(plan, lease_owner=self._owner,
                    lease_expires_at=time.time() + self._lease_s)
        self._leased = True
        try:
            for step in _BEFORE:
                self._do(step, plan, watcher, is_unwanted)
            plan['step'] = _DECIDED
            self._write(plan)
        except (exception.LeaseHeld, exception.StaleGeneration):
            raise    # another ends it: to undo it as well would be to undo what it does
        except exception.HotsnapError as exc:
            if left := self._undo(plan):
                raise exception.RestoreNotUndone(reason=str(exc), left='; '.join(left)) from exc
            raise
        except BaseException:
            self._undo(plan)
            raise
        self._go_on(plan, watcher)

    def recover(self) -> None:
        """End what a dead coordinator began: undo it, or where it was decided go on."""
        plan = json.loads(self._found.restore)
        self._leased = True
        if plan['step'] == _DECIDED:
            self._go_on(plan)
        else:
            self._undo(plan)

    def _go_on(self, plan, watcher=None):
        for step in _AFTER:
            if not (plan['paused'] and step == 'resume'):
                self._do(step, plan, watcher)
        self._end()

    def _undo(self, plan):
        """What hosts left as it is, and told why."""
        try:
            done = self._do('undo', plan)
        except exception.HotsnapError as exc:
            # The row stays as it is: recovery tries again.
            LOG.error('Undoing the restore of %(id)s failed: %(error)s',
                      {'id': self._found.id, 'error': exc})
            self._database.release_lease(self._found.id, self._owner)
            return []
        self._end()
        return [words for left in done.values() for words in left or ()]

    def _do(self, step, plan, watcher=None, is_unwanted=lambda: False):
        LOG.info('Snapshot %s: restore, %s', self._found.id, step)

        def tell(done_bytes, total_bytes):
            self._renew()
            if is_unwanted():
                raise exception.Aborted(who='the user')
            if watcher and total_bytes:
                watcher({'phase': step, 'bytes': (done_bytes, total_bytes)})
        tell(0, 0)
        if watcher:
            watcher({'phase': step})
        return fanout.each(self._hosts, lambda host: self._compute.restore(
            host, step, self._found.id, plan['restore_id'], plan['paused'], tell))

    def _renew(self):
        """Steps take longer than a lease; whoever lost it has nothing more to do."""
        if not self._leased or time.monotonic() < self._renew_at:
            return
        self._renew_at = time.monotonic() + self._lease_s / 4
        if not self._database.renew_lease(self._found.id, self._owner, self._lease_s):
            raise exception.LeaseHeld(snapshot=self._found.id, owner='another coordinator')

    def _end(self):
        self._generation = self._database.compare_and_swap(
            self._found.id, self._generation, status=rows.AVAILABLE, restore=None)
        self._database.release_lease(self._found.id, self._owner)

    def _write(self, plan, **more):
        self._generation = self._database.compare_and_swap(
            self._found.id, self._generation, status=rows.RESTORING, restore=json.dumps(plan),
            **more)
