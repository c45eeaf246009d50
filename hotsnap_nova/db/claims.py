# SPDX-License-Identifier: Apache-2.0
"""Who may do what next: epochs, quotas, leases, and wishes left for who drives a snapshot.

Leases only keep coordinators from working twice; no correctness rests on them
or on clocks. They are measured by the database's own.
"""

import functools

import sqlalchemy as sa
from oslo_db import api as db_retry
from oslo_db import exception as db_exception

from hotsnap_nova import exception
from hotsnap_nova.db import clock, engine, models


def transaction(method):
    """Repeat what a deadlock rolled back; tell the operator of anything else."""
    retried = db_retry.wrap_db_retry(
        max_retries=5, retry_interval=0.02, max_retry_interval=0.5,
        retry_on_deadlock=True)(method)

    @functools.wraps(method)
    def call(*args, **kwargs):
        try:
            return retried(*args, **kwargs)
        except db_exception.DBError as exc:
            raise engine.unavailable(exc) from exc
    return call


def lease(owner: str | None, lease_s: float = 0.0) -> dict:
    """Columns of a snapshot that ``owner`` has for so long from now; of nobody's with None."""
    return {'lease_owner': owner,
            'lease_expires_at': None if owner is None else clock.now() + lease_s}


def must_exist(session, snapshot_id: str) -> None:
    """Nothing, where there is such a row.

    :raises SnapshotNotFound:
    """
    if session.get(models.Snapshot, snapshot_id) is None:
        raise exception.SnapshotNotFound(snapshot=snapshot_id)


def take_turn(session, column: str, value: str) -> None:
    """Nobody else adds to what is counted by this, until this transaction ends.

    A row that all of them write: where a cluster has several writers, locks hold on one of them
    alone, but of two that wrote one row the second is undone, and then repeated.
    """
    scope = f'{column}/{value}'
    done = session.execute(
        sa.update(models.QuotaTurn).where(models.QuotaTurn.scope == scope)
        .values(turn=models.QuotaTurn.turn + 1).execution_options(synchronize_session=False))
    if not done.rowcount:
        try:
            session.execute(sa.insert(models.QuotaTurn).values(scope=scope, turn=1))
        except db_exception.DBDuplicateEntry as exc:
            raise db_exception.RetryRequest(exc) from exc


def keep_quota(session, column: str, value: str, limit: int) -> None:
    """Nothing, where the row just added is within the limit.

    :raises OverQuota:
    """
    used = session.scalar(sa.select(sa.func.count()).select_from(models.Snapshot).where(
        getattr(models.Snapshot, column) == value, models.Snapshot.status != 'error')) - 1
    if used >= limit:
        raise exception.OverQuota(
            used=used, limit=limit, scope=f'{column.removesuffix("_id")} {value}')


class Claims:
    """For any number of threads and processes.

    Any method raises DatabaseUnavailable where the database does not answer.

    :param url: see ``engine.Engine``
    """

    def __init__(self, url: str):
        self._engine = engine.Engine(url)

    @transaction
    def now(self) -> float:
        """Seconds since 1970 by the database's clock, of which all its times are."""
        with self._engine.reading() as session:
            return session.scalar(sa.select(clock.now()))

    # -- wishes --------------------------------------------------------------------------------

    @transaction
    def request_abort(self, snapshot_id: str, text: str) -> None:
        """Leave word for whoever drives the snapshot.

        :raises SnapshotNotFound:
        """
        if not self._set(snapshot_id, {'abort_request': text}):
            raise exception.SnapshotNotFound(snapshot=snapshot_id)

    @transaction
    def abort_requested(self, snapshot_id: str) -> str | None:
        """What ``request_abort`` left, or None."""
        with self._engine.reading() as session:
            return session.scalar(sa.select(models.Snapshot.abort_request).where(
                models.Snapshot.id == snapshot_id))

    # -- epochs --------------------------------------------------------------------------------

    @transaction
    def next_epoch(self, group_id: str) -> int:
        """A number above all that this group was ever given, from 1; never given again."""
        with self._engine.writing() as session:
            # The write comes first: it makes another process wait, not fail.
            done = session.execute(
                sa.update(models.GroupEpoch).where(models.GroupEpoch.group_id == group_id)
                .values(epoch=models.GroupEpoch.epoch + 1)
                .execution_options(synchronize_session=False))
            if done.rowcount:
                return session.scalar(sa.select(models.GroupEpoch.epoch).where(
                    models.GroupEpoch.group_id == group_id))
            try:
                session.execute(sa.insert(models.GroupEpoch).values(group_id=group_id, epoch=1))
            except db_exception.DBDuplicateEntry as exc:
                raise db_exception.RetryRequest(exc) from exc
            return 1

    # -- leases --------------------------------------------------------------------------------

    @transaction
    def take_lease(self, snapshot_id: str, owner: str, lease_s: float,
                   dead: str | None = None) -> bool:
        """Whether ``owner`` now has the snapshot's lease, for ``lease_s`` seconds.

        :param dead: this holder is known to be no more
        """
        free = sa.or_(
            models.Snapshot.lease_owner.is_(None),
            models.Snapshot.lease_owner.in_([owner] + ([dead] if dead else [])),
            models.Snapshot.lease_expires_at <= clock.now())
        return self._set(snapshot_id, lease(owner, lease_s), free)

    @transaction
    def renew_lease(self, snapshot_id: str, owner: str, lease_s: float) -> bool:
        """Whether ``owner`` still had the lease; it then has it for ``lease_s`` from now."""
        return self._set(snapshot_id, lease(owner, lease_s),
                         models.Snapshot.lease_owner == owner)

    @transaction
    def release_lease(self, snapshot_id: str, owner: str) -> bool:
        """Whether ``owner`` had the lease; nobody has it now."""
        return self._set(snapshot_id, lease(None),
                         models.Snapshot.lease_owner == owner)

    # -- inside --------------------------------------------------------------------------------

    def _set(self, snapshot_id, values, *conditions, **more):
        with self._engine.writing() as session:
            done = session.execute(
                sa.update(models.Snapshot).where(models.Snapshot.id == snapshot_id, *conditions)
                .values(**values, **more, updated_at=clock.moment())
                .execution_options(synchronize_session=False))
            return done.rowcount == 1
