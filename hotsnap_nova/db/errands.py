# SPDX-License-Identifier: Apache-2.0
"""What hosts have yet to do, and the removal of the rows that wait for it.

The errands of a snapshot at a host are done one after the other, as they were given, and each
by one coordinator at a time. Whatever touches a snapshot's row as well writes that first, so
that two who end its last errands see each other.
"""

import json

import sqlalchemy as sa
from oslo_db import exception as db_exception

from hotsnap_nova import exception
from hotsnap_nova.db import claims, clock, models, records

#: Statuses of a row that goes with its last errand.
_VANISHING = ('deleting', 'error_deleting')


class Errands(claims.Claims):
    """For any number of threads and processes."""

    @claims.transaction
    def add_errand(self, snapshot_id: str, host: str, kind: str, detail: dict) -> None:
        """Have a host do something; repeating it is harmless.

        Another detail replaces that of its kind.
        """
        this = (models.Errand.snapshot_id == snapshot_id, models.Errand.host == host,
                models.Errand.kind == kind, models.Errand.detail != json.dumps(detail))
        try:
            with self._engine.writing() as session:
                session.execute(sa.delete(models.Errand).where(*this)
                                .execution_options(synchronize_session=False))
                _add(session, snapshot_id, host, kind, detail)
        except db_exception.DBDuplicateEntry:
            pass

    @claims.transaction
    def errands(self, host: str | None = None,
                snapshot_id: str | None = None) -> tuple[records.Errand, ...]:
        """What is to be done, in the order in which it was given."""
        query = sa.select(models.Errand).order_by(models.Errand.id)
        if host is not None:
            query = query.where(models.Errand.host == host)
        if snapshot_id is not None:
            query = query.where(models.Errand.snapshot_id == snapshot_id)
        with self._engine.reading() as session:
            return tuple(_record(row) for row in session.scalars(query))

    @claims.transaction
    def claim_errand(self, errand: records.Errand, owner: str, lease_s: float) -> bool:
        """Whether ``owner`` may do it now, and nobody else for ``lease_s`` seconds.

        Not where it is done, somebody is at it, it is to be left alone for a while, or another of
        the same snapshot and host comes first.
        """
        now, row = clock.now(), models.Errand
        with self._engine.writing() as session:
            claimed = session.execute(sa.update(row).where(
                row.id == errand.id,
                sa.or_(row.claimed_until.is_(None), row.claimed_until <= now),
                sa.or_(row.not_before.is_(None), row.not_before <= now),
            ).values(claimed_by=owner, claimed_until=now + lease_s)
                .execution_options(synchronize_session=False)).rowcount == 1
            if claimed and session.scalar(sa.select(row.id).where(
                    row.snapshot_id == errand.snapshot_id, row.host == errand.host,
                    row.id < errand.id).limit(1)):
                _free(session, errand, owner)
                return False
            return claimed

    @claims.transaction
    def put_off_errand(self, errand: records.Errand, owner: str, for_s: float,
                       error: str | None) -> None:
        """Give the errand back, to be tried again after so many seconds.

        :param error: why it could not be done; None: it is under way
        """
        with self._engine.writing() as session:
            _free(session, errand, owner, not_before=clock.now() + for_s,
                  attempts=models.Errand.attempts + 1, error=error)

    @claims.transaction
    def hasten_errands(self, *, host: str | None = None, snapshot_id: str | None = None) -> None:
        """Have these tried again at once."""
        query = sa.update(models.Errand).values(not_before=None, attempts=0)
        for column, value in (('host', host), ('snapshot_id', snapshot_id)):
            if value is not None:
                query = query.where(getattr(models.Errand, column) == value)
        with self._engine.writing() as session:
            session.execute(query.execution_options(synchronize_session=False))

    @claims.transaction
    def end_errand(self, errand: records.Errand) -> None:
        """Forget it: it is done, or nobody will do it. A row that waited for that alone goes."""
        row = models.Snapshot
        with self._engine.writing() as session:
            session.execute(
                sa.update(row).where(row.id == errand.snapshot_id).values(status=row.status)
                .execution_options(synchronize_session=False))
            session.execute(
                sa.delete(models.Errand).where(models.Errand.id == errand.id)
                .execution_options(synchronize_session=False))
            if session.scalar(sa.select(models.Errand.id).where(
                    models.Errand.snapshot_id == errand.snapshot_id).limit(1)) is None:
                session.execute(
                    sa.delete(row).where(row.id == errand.snapshot_id, row.closed.is_(True),
                                         row.decision == 'discard',
                                         row.status.in_(_VANISHING))
                    .execution_options(synchronize_session=False))

    @claims.transaction
    def swap_for_errands(self, snapshot_id: str, generation: int,
                         owed: list[tuple[str, str, dict]], *, remove: bool, **values) -> None:
        """In one go, if the row is still at ``generation``: hosts owe this, and columns are set.

        Nobody has the row's lease any more. What a host owes already it goes on owing, at once;
        another detail of the same kind replaces that.

        :param owed: (host, kind, detail) in the order in which a host is to do it
        :param remove: the row goes instead
        :raises StaleGeneration, SnapshotNotFound: as ``compare_and_swap``
        """
        row = models.Snapshot
        with self._engine.writing() as session:
            this = row.id == snapshot_id, row.generation == generation
            values |= claims.lease(None) | {'generation': generation + 1,
                                            'updated_at': clock.moment()}
            done = session.execute(
                (sa.delete(row).where(*this) if remove else sa.update(row).where(*this).values(
                    **values)).execution_options(synchronize_session=False))
            if not done.rowcount:
                claims.must_exist(session, snapshot_id)
                raise exception.StaleGeneration(snapshot=snapshot_id, generation=generation)
            session.execute(
                sa.update(models.Errand).where(models.Errand.snapshot_id == snapshot_id)
                .values(not_before=None, attempts=0)
                .execution_options(synchronize_session=False))
            known = {(each.host, each.kind): each for each in session.scalars(
                sa.select(models.Errand).where(models.Errand.snapshot_id == snapshot_id))}
            for host, kind, detail in owed:
                if before := known.get((host, kind)):
                    if json.loads(before.detail) == detail:
                        continue
                    session.delete(before)
                    session.flush()
                _add(session, snapshot_id, host, kind, detail)

    @claims.transaction
    def show_lost(self, snapshot_id: str, **error) -> None:
        """Have an available snapshot shown in error: a host has lost its part of it.

        :param error: columns
        """
        self._set(snapshot_id, {'status': 'error', 'live_name': None, **error},
                  models.Snapshot.status == 'available')

    @claims.transaction
    def show_deletion_failed(self, snapshot_id: str, **error) -> None:
        """Have the row of a snapshot that is being deleted say why that takes so long.

        :param error: columns
        """
        self._set(snapshot_id, {'status': 'error_deleting', 'live_name': None, **error},
                  models.Snapshot.status.in_(_VANISHING))


def _add(session, snapshot_id, host, kind, detail):
    session.execute(sa.insert(models.Errand).values(
        snapshot_id=snapshot_id, host=host, kind=kind, detail=json.dumps(detail),
        created_at=clock.now()))


def _free(session, errand, owner, **values):
    session.execute(
        sa.update(models.Errand).where(
            models.Errand.id == errand.id, models.Errand.claimed_by == owner)
        .values(claimed_by=None, claimed_until=None, **values)
        .execution_options(synchronize_session=False))


def _record(row):
    columns = {column.key: getattr(row, column.key) for column in row.__table__.columns}
    return records.Errand(**columns | {'detail': json.loads(row.detail)})
