# SPDX-License-Identifier: Apache-2.0
"""What goes on with a coordinator's snapshots: looked after, and taken over from dead ones."""

import threading
import uuid
from collections.abc import Callable

from oslo_log import log as logging

from hotsnap_nova import exception
from hotsnap_nova.conductor import actions, background, deletion, drive, restore, rows

LOG = logging.getLogger(__name__)


class Recovery:
    """Work that is under way here, or was elsewhere.

    :param database: `db.api`, or one like it
    :param compute: `compute.rpcapi.ComputeApi`
    :param owner: who holds the leases; unique to this process
    :param is_dead: whether an owner is no more, so that its leases need not be waited for; False
        where it is known to live, however late it is; None: its leases tell
    :param patience_s: how long hosts may take for what was decided before those
        who wait are told
    :param silence_s: as of `drive.Drive`
    :param works: does long work in threads, and somebody runs the errands of hosts that were
        away; None: whoever asks for work waits for it
    """

    def __init__(self, database, compute, owner: str, lease_s: float = 30.0,
                 is_dead: Callable[[str], bool | None] = lambda _owner: None,
                 patience_s: float = 30.0, silence_s: float = drive.SILENCE_S,
                 works: background.Background | None = None):
        self._database = database
        self._compute = compute
        self._owner = owner
        self._lease_s = lease_s
        self._is_dead = is_dead
        self._patience_s = patience_s
        self._silence_s = silence_s
        self._works = works
        self._beginning: set[str] = set()
        self._drives: dict[str, drive.Drive] = {}
        self._mutex = threading.Lock()

    def wait(self, snapshot: str, timeout_s: float | None = None) -> bool:
        """Whether a snapshot made or recovered here has ended, after waiting for that."""
        with self._mutex:
            driven = self._drives.get(snapshot)
        return driven is None or driven.wait(timeout_s)

    def wait_patiently(self, snapshot: str, timeout_s: float) -> bool:
        """As `wait`, but where hosts fail at what was decided not for ever.

        :raises CleanupIncomplete: recovery goes on with it
        """
        if self.wait(snapshot, timeout_s):
            return True
        if self._drives[snapshot].seconds_decided() >= self._patience_s:
            found = self._database.get(snapshot)
            raise exception.CleanupIncomplete(snapshot=found.name, decision=found.decision)
        return False

    def deleting(self, found, force: bool = False, owner: str | None = None) -> deletion.Deletion:
        """A deletion of this row, not begun.

        :param owner: has the row's lease already
        """
        return deletion.Deletion(found, self._database, self._compute, owner or self._new_owner(),
                                 self._lease_s, force)

    def restoring(self, found, context: dict | None = None, action: dict | None = None,
                  owner: str | None = None,
                  places: dict[str, str] | None = None) -> restore.Restore:
        """A restore of this row, not begun, or found under way.

        :param action: the row's `last_action`, ended with it
        :param places: see `places`; None: all are where they were kept
        :param owner: has the row's lease already
        """
        return restore.Restore(
            found, self._database, self._compute, owner or self._new_owner(), self._lease_s,
            context, lambda error: actions.ended(action, error),
            has_errands=self._works is not None, places=places)

    def claim(self, found, columns: dict) -> str:
        """Write columns and take the lease, for work that changes nothing on the hosts.

        :returns: the lease's owner
        :raises StaleGeneration: somebody else was quicker
        """
        owner = self._new_owner()
        self._database.compare_and_swap(
            found.id, found.generation, **columns, lease=(owner, self._lease_s))
        return owner

    # -- after a restart -----------------------------------------------------------------------

    def recover(self, only: str | None = None) -> tuple[str, ...]:
        """Go on with what dead coordinators left; ids of the snapshots taken over."""
        taken = []
        for found in self._database.open_snapshots():
            if only not in (None, found.id) or self._is_at(found.id):
                continue
            is_dead = self._is_dead(found.lease_owner) if found.lease_owner else None
            if is_dead is False or not self._database.take_lease(
                    found.id, self._owner, self._lease_s, force=bool(is_dead)):
                continue
            LOG.warning('Snapshot %s is taken over', found.id)
            try:
                self._take_over(self._database.get(found.id))
            except Exception as exc:
                # One that cannot be gone on with must not be in the way of all else.
                LOG.error('Snapshot %(id)s cannot be gone on with yet: %(error)s',
                          {'id': found.id, 'error': exc})
                self._database.release_lease(found.id, self._owner)
            else:
                taken.append(found.id)
        return tuple(taken)

    def show_decided(self) -> None:
        """Have those shown as what was decided whose hosts take too long to do their part."""
        for snapshot, driven in tuple(self._drives.items()):
            if not self.wait(snapshot, 0) and driven.seconds_decided() >= self._patience_s:
                self._database.show_decided(snapshot)

    def leave(self) -> None:
        """End all that is driven here where it is: whoever recovers it goes on at once."""
        for driven in tuple(self._drives.values()):
            driven.leave()

    def close(self) -> None:
        """Return when nothing is driven here any more; what hosts fail at is left to recovery."""
        for snapshot, driven in tuple(self._drives.items()):
            while not self.wait(snapshot, timeout_s=0.2):
                if driven.seconds_decided() >= self._patience_s:
                    driven.leave()

    # -- inside --------------------------------------------------------------------------------

    def _is_at(self, snapshot):
        if snapshot in self._beginning:    # asked first: what leaves it is among the drives
            return True
        return (snapshot in self._drives and not self.wait(snapshot, 0)) or (
            self._works is not None and self._works.has(snapshot))

    def _take_over(self, found):
        if found.status == rows.DELETING:
            self._do(found, self.deleting(found, owner=self._owner).carry_out)
        elif found.restore:    # whatever status an operator has set
            self._do(found, self.restoring(
                found, action=found.last_action, owner=self._owner).recover)
        elif found.action_status == actions.RUNNING:
            self._database.update(found.id, **actions.ended(
                found.last_action, exception.Aborted(who='a restart of the coordinator')))
            self._database.release_lease(found.id, self._owner)
        else:
            self._start(drive.Drive(rows.load(found.machine, found.generation),
                                    self._database, self._compute, self._owner,
                                    self._lease_s, silence_s=self._silence_s), resume=True)

    def _do(self, found, work):
        if self._works is None:
            work()
        else:
            self._works.start(found.id, self._owner, work)

    def _new_owner(self):
        """Of a lease for work in a thread; see `background`."""
        return self._owner if self._works is None else f'{self._owner}/{uuid.uuid4().hex[:8]}'

    def _start(self, driven, resume=False):
        with self._mutex:
            self._drives[driven.snapshot] = driven
            driven.start(resume)
