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

Where errands are run, a host that is away by then keeps nobody waiting: it is
left an errand, and the restore ends as failed.
"""

import json
import time
import uuid
from collections.abc import Callable

from oslo_log import log as logging

from hotsnap_nova import exception
from hotsnap_nova.conductor import errands, fanout, rows
from hotsnap_nova.conductor import places as where

LOG = logging.getLogger(__name__)

_BEFORE = ('prepare', 'stop', 'start')
_AFTER = ('resume', 'finish')
_DECIDED = 'decided'


class Restore:
    """One restore of one snapshot.

    :param found: the database's row, with its members
    :param context: in whose name, for the hosts
    :param ended: columns to write at the end, given the error or None
    :param places: see `places`; of one found under way its plan has them
    :param has_errands: somebody runs the errands left to hosts that are away
    :ivar owner: of its lease
    """

    def __init__(self, found, database, compute, owner: str, lease_s: float,
                 context: dict | None = None,
                 ended: Callable[[Exception | None], dict] = lambda _error: {},
                 has_errands: bool = False, places: dict[str, str] | None = None):
        self._found = found
        self._database = database
        self._compute = compute
        self.owner = owner
        self._lease_s = lease_s
        self._ended = ended
        self._has_errands = has_errands
        self._generation = found.generation
        self._leased = False
        self._renew_at = 0.0
        self._plan = json.loads(found.restore) if found.restore else {
            'restore_id': str(uuid.uuid4()), 'paused': False, 'context': context and {
                **context, 'names': {each.member_id: each.name for each in found.members}}}
        if places:
            self._plan['places'] = places
        self._hosts = tuple(sorted(set(where.of(found, self._plan).values())))

    def run(self, paused: bool, watcher=None, is_unwanted=lambda: False) -> None:
        """Restore; members run at the end, or with ``paused`` stand at the cut.

        :raises HotsnapError: undone; the snapshot is as good as before
        """
        self._plan['paused'] = paused
        self.check(watcher, is_unwanted)
        self.begin()
        self.carry_out(watcher, is_unwanted)

    def check(self, watcher=None, is_unwanted=lambda: False,
              timeout_s: float | None = None) -> None:
        """Nothing, where every host can restore its part; touches nothing.

        :raises HostUnreachable: one has not said so in time
        :raises HotsnapError:
        """
        self._plan['step'] = _BEFORE[0]
        self._do('check', watcher, is_unwanted, timeout_s=timeout_s)

    def begin(self, **columns) -> None:
        """Have the row say so, with these columns.

        :raises StaleGeneration: somebody else was quicker
        """
        # With the lease in the same write: nobody finds the row restoring and unowned.
        self._write(**columns, lease=(self.owner, self._lease_s), abort_request=None)
        self._leased = True

    def carry_out(self, watcher=None, is_unwanted=lambda: False) -> None:
        """Do what was begun.

        :raises HotsnapError: undone; the snapshot is as good as before
        """
        try:
            for step in _BEFORE:
                self._do(step, watcher, is_unwanted)
            self._plan['step'] = _DECIDED
            self._write()
        except (exception.LeaseHeld, exception.StaleGeneration):
            raise    # another ends it: to undo it as well would be to undo what it does
        except exception.HotsnapError as exc:
            error = self._undo(exc)
            raise error from (None if error is exc else exc)
        except BaseException:
            self._undo(exception.Aborted(who='the coordinator'))
            raise
        self._go_on(watcher)

    def recover(self) -> None:
        """End what a dead coordinator began: undo it, or where it was decided go on."""
        self._leased = True
        if self._plan['step'] == _DECIDED:
            self._go_on()
        else:
            self._undo(exception.Aborted(who='a restart of the coordinator'))

    def _go_on(self, watcher=None):
        away = {}
        for step in _AFTER:
            if not (self._plan['paused'] and step == 'resume'):
                away |= self._do(step, watcher, on=self._hosts_but(away), may_be_away=True)[1]
        error = next(iter(away.values()), None)
        self._end(error)
        if error:
            raise error

    def _undo(self, error):
        """Why it failed, with what hosts left as it is and why."""
        try:
            done, _ = self._do('undo', may_be_away=True)
        except exception.HotsnapError as exc:
            # The row stays as it is: recovery tries again.
            LOG.error('Undoing the restore of %(id)s failed: %(error)s',
                      {'id': self._found.id, 'error': exc})
            self._database.release_lease(self._found.id, self.owner)
            return error
        left = [words for told in done.values() for words in told or ()]
        if left:
            error = exception.RestoreNotUndone(reason=str(error), left='; '.join(left))
        self._end(error)
        return error

    def _do(self, step, watcher=None, is_unwanted=lambda: False, on=None, may_be_away=False,
            timeout_s=None):
        """What hosts answered, and the errors of those that are left an errand."""
        LOG.info('Snapshot %s: restore, %s', self._found.id, step)
        plan = self._plan

        def tell(done_bytes, total_bytes):
            self._renew()
            if is_unwanted():
                raise exception.Aborted(who='the user')
            if watcher and total_bytes:
                watcher({'phase': step, 'bytes': (done_bytes, total_bytes)})
        tell(0, 0)
        if watcher:
            watcher({'phase': step})
        done, errors = fanout.outcomes(
            self._hosts if on is None else on, lambda host: self._compute.restore(
                host, step, self._found.id, plan['restore_id'], plan['paused'], tell,
                plan.get('context'), timeout_s, self._members_on(host)))
        for host, error in errors.items():
            if not (may_be_away and self._has_errands
                    and isinstance(error, exception.HostUnreachable)):
                raise error
            self._database.add_errand(
                self._found.id, host, *errands.of_restore(self._found, host, plan))
        return done, errors

    def _members_on(self, host):
        members, moved = where.of_host(self._found, self._plan, host)
        return members if moved else None

    def _hosts_but(self, away):
        return tuple(host for host in self._hosts if host not in away)

    def _renew(self):
        """Steps take longer than a lease; whoever lost it has nothing more to do."""
        if not self._leased or time.monotonic() < self._renew_at:
            return
        self._renew_at = time.monotonic() + self._lease_s / 4
        if not self._database.renew_lease(self._found.id, self.owner, self._lease_s):
            raise exception.LeaseHeld(snapshot=self._found.id, owner='another coordinator')

    def _end(self, error=None):
        self._generation = self._database.compare_and_swap(
            self._found.id, self._generation, status=rows.AVAILABLE, restore=None,
            **self._ended(error))
        self._database.release_lease(self._found.id, self.owner)

    def _write(self, **columns):
        self._generation = self._database.compare_and_swap(
            self._found.id, self._generation, status=rows.RESTORING,
            restore=json.dumps(self._plan), **columns)
