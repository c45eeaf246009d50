# SPDX-License-Identifier: Apache-2.0
"""What goes on with a coordinator's snapshots: looked after, and taken over from dead ones."""

import threading
import time
import uuid
from collections.abc import Callable

from oslo_log import log as logging

from hotsnap_nova import exception
from hotsnap_nova.conductor import (
    actions,
    deletion,
    errands,
    making,
    restorations,
    restoring,
    rows,
    work,
)
from hotsnap_nova.protocol.restore import durable as restores

LOG = logging.getLogger(__name__)


class Recovery:
    """Work that is under way here, or was elsewhere.

    :param database: `db.api`, or one like it
    :param compute: `compute.rpcapi.ComputeApi`
    :param owner: who holds the leases, of each piece of work with an end of its own; unique to
        this process
    :param is_dead: whether an owner is no more, so that its leases need not be waited for; False
        where it is known to live, however late it is; None: its leases tell
    :param patience_s: how long hosts may take for what was decided before nobody waits for them
    :param silence_s: for so long a host may be silent while it saves or restores
    :param has_errands: somebody runs the errands of hosts that were away
    :param restore_timeout_s: in which every member of a restore must be read and placed
    :ivar errands: what hosts owe
    """

    def __init__(self, database, compute, owner: str, lease_s: float = 30.0,
                 is_dead: Callable[[str], bool | None] = lambda _owner: None,
                 patience_s: float = 30.0, silence_s: float = making.SILENCE_S,
                 has_errands: bool = False, restore_timeout_s: float = 3600.0):
        self._database = database
        self._compute = compute
        self._owner = owner
        self._lease_s = lease_s
        self._is_dead = is_dead
        self._patience_s = patience_s
        self._silence_s = silence_s
        self._absent_s = patience_s if has_errands else None
        self._restore_limits = restores.RestoreLimits(
            prepare_timeout_ms=int(restore_timeout_s * 1000), silence_ms=int(silence_s * 1000),
            repeat_ms=rows.REPEAT_MS,
            absent_ms=int(patience_s * 1000) if has_errands else None)
        self.errands = errands.Errands(database, compute, owner)
        self._beginning: set[str] = set()
        self._works: dict[str, work.Work] = {}
        self._mutex = threading.Lock()

    def wait(self, snapshot: str, timeout_s: float | None = None) -> bool:
        """Whether nothing goes on with a snapshot here any more, after waiting for that."""
        ends = None if timeout_s is None else time.monotonic() + timeout_s
        while going_on := self._work_on(snapshot):    # one may have begun the next
            if not going_on.wait(None if ends is None else max(0.0, ends - time.monotonic())):
                return False
        return True

    def wait_patiently(self, snapshot: str, timeout_s: float) -> bool:
        """As `wait`, but where hosts fail at what was decided not for ever.

        :raises CleanupIncomplete: recovery goes on with it
        """
        if self.wait(snapshot, timeout_s):
            return True
        going_on = self._work_on(snapshot)
        if going_on and going_on.seconds_decided() >= self._patience_s:
            found = self._database.get(snapshot)
            raise exception.CleanupIncomplete(
                snapshot=found.name, decision=found.phase if found.restore else found.decision)
        return False

    # -- after a restart -----------------------------------------------------------------------

    def recover(self, only: str | None = None) -> tuple[str, ...]:
        """Go on with what dead coordinators left; ids of the snapshots taken over."""
        taken = []
        for found in self._database.open_snapshots():
            if only not in (None, found.id) or self._is_at(found.id):
                continue
            is_dead = self._is_dead(found.lease_owner) if found.lease_owner else None
            owner = self._new_owner()
            if is_dead is False or not self._database.take_lease(
                    found.id, owner, self._lease_s, found.lease_owner if is_dead else None):
                continue
            LOG.warning('Snapshot %s is taken over', found.id)
            try:
                self._take_over(self._database.get(found.id), owner)
            except Exception as exc:
                # One that cannot be gone on with must not be in the way of all else.
                LOG.error('Snapshot %(id)s cannot be gone on with yet: %(error)s',
                          {'id': found.id, 'error': exc})
                self._database.release_lease(found.id, owner)
            else:
                taken.append(found.id)
        return tuple(taken)

    def leave(self) -> None:
        """End all that goes on here where it is: whoever recovers it goes on at once."""
        for going_on in tuple(self._works.values()):
            going_on.leave()

    def close(self) -> None:
        """Return when nothing goes on here any more; what hosts fail at is left to recovery."""
        closed: set[work.Work] = set()
        while left := [each for each in tuple(self._works.values()) if each not in closed]:
            for going_on in left:    # one may have begun another
                closed.add(going_on)
                while not going_on.wait(timeout_s=0.2):
                    if going_on.seconds_decided() >= self._patience_s:
                        going_on.leave()

    # -- inside --------------------------------------------------------------------------------

    def _work_on(self, snapshot):
        with self._mutex:
            return self._works.get(snapshot)

    def _is_at(self, snapshot):
        # Asked first: what leaves it is among the works.
        return snapshot in self._beginning or self._work_on(snapshot) is not None

    def _take_over(self, found, owner):
        if found.status == rows.DELETING:    # an older version's: nobody owes anything for it yet
            force = found.phase == deletion.PHASE_BY_FORCE
            self.errands.begin(deletion.begin(self._database, found, force))
        elif found.restore:    # whatever status an operator has set
            self._start(restoring.Restoring(
                restorations.load(found, self._restore_limits), self._database, self._compute,
                owner, self._lease_s, found.last_action, restorations.names(found), resume=True))
        elif found.action_status == actions.RUNNING:
            self._database.compare_and_swap(
                found.id, found.generation, lease=(None, 0), **actions.ended(
                    found.last_action, exception.Aborted(who='a restart of the coordinator'),
                    (found.last_action or {}).get('result')))
        else:
            self._start(making.Making(
                rows.load(found.machine, found.generation, self._absent_s), self._database,
                self._compute, owner, self._lease_s, silence_s=self._silence_s, resume=True))

    def _new_owner(self):
        return f'{self._owner}/{uuid.uuid4().hex[:8]}'

    def _start(self, going_on):
        with self._mutex:    # who aborts it waits until it can be
            going_on.start(self._forget)
            self._works[going_on.snapshot] = going_on

    def _forget(self, going_on):
        with self._mutex:
            if self._works.get(going_on.snapshot) is going_on:
                del self._works[going_on.snapshot]
