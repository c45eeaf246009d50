# SPDX-License-Identifier: Apache-2.0
"""What the coordinator asks of its database.

Two kinds of columns. Those a decision rests on change by
``compare_and_swap`` alone: of two coordinators that believe they are in
charge, one is told so and stands down. The others (progress, measurements,
wishes) anyone may write at any time.
"""

import datetime
from collections.abc import Callable, Collection

import sqlalchemy as sa
from oslo_db import exception as db_exception
from oslo_db.sqlalchemy import utils as db_pages

from hotsnap_nova import exception
from hotsnap_nova.db import claims, clock, engine, errands, hosts, migration, models, records

#: Statuses in which a row no longer takes its name from others.
_NAMELESS = frozenset({'error', 'error_deleting'})
_FREE_COLUMNS = frozenset({'name', 'description', 'properties', 'skew_ms',
                           'action_status', 'last_action'})
_MEMBER_COLUMNS = frozenset({'pause_ms', 'wait_ms', 'hold_ms', 'size_bytes', 'done_bytes',
                             'total_bytes', 'detail'})
_NEW = {'description': '', 'properties': {}, 'project_id': '', 'user_id': '', 'request_id': '',
        'group_name': '', 'decision': 'none', 'closed': False, 'generation': 0, 'machine': '',
        'disk': 'backup'}
#: Of snapshots in error whose row alone is left.
_NOTHING_LEFT = (models.Snapshot.status == 'error', models.Snapshot.closed.is_(True),
                 models.Snapshot.decision == 'discard', models.Snapshot.restore.is_(None))
#: Of what was there before there was a bound, the rest goes with the snapshots that follow.
_DROPPED_AT_ONCE = 100
_NEW_MEMBER = {'done_bytes': 0, 'total_bytes': 0, 'detail': {}}


class Database(hosts.Hosts, errands.Errands):
    """All rows of one coordinator's database; what it begins with is in ``claims.Claims``."""

    def upgrade(self) -> None:
        """Create the tables or bring them to this version; harmless to repeat."""
        try:
            migration.upgrade(self._engine.engine)
        except db_exception.DBError as exc:
            raise engine.unavailable(exc) from exc

    def version(self) -> tuple[str | None, str]:
        """(what the tables have, what this software needs)."""
        try:
            return migration.versions(self._engine.engine)
        except db_exception.DBError as exc:
            raise engine.unavailable(exc) from exc

    def must_be_current(self) -> None:
        """Nothing, where this software can work with the tables.

        :raises DatabaseUnavailable:
        """
        found, needed = self.version()
        if not migration.serves(found):
            raise exception.DatabaseUnavailable(
                reason=f'its tables are of version {found or "none"}, not {needed}; run '
                       'nova-hotsnap-manage db sync')

    def close(self) -> None:
        self._engine.close()

    # -- rows --------------------------------------------------------------------------------

    @claims.transaction
    def create(self, values: dict, members: Collection[dict], *, owner: str | None = None,
               lease_s: float = 0.0, unique_name: bool = True,
               quotas: Collection[tuple[str, str, int]] = (),
               must_fit: Callable[[Collection[records.Snapshot]], None] | None = None,
               keep_failed: int | None = None) -> None:
        """Add a snapshot at generation 0 and its members, in the order given.

        :param values: columns; id, name, group_id, epoch, gate, status and
            phase at least
        :param members: columns each; member_id, name and host at least
        :param owner: has the lease for ``lease_s`` seconds
        :param quotas: (column, value, limit) each: at most so many that are not in error
        :param must_fit: of all others of the project that are not in error, which become no more
            meanwhile; where it raises, nothing was added
        :param keep_failed: of the project's in error so many stay, the newest, and those of which
            something is left, as for `purge`; None: all
        :raises OverQuota: nothing was added
        :raises NameTaken: another of the project has the name, and is not in error
        """
        row = _NEW | values | {'created_at': clock.moment(), 'updated_at': clock.moment()}
        if unique_name:
            row['live_name'] = _live_name(row['project_id'], row['name'])
        if owner:
            row |= claims.lease(owner, lease_s)
        try:
            with self._engine.writing() as session:
                turns = {(column, value) for column, value, _ in quotas}
                if must_fit:
                    turns.add(('project_id', row['project_id']))
                for column, value in sorted(turns):
                    claims.take_turn(session, column, value)
                session.execute(sa.insert(models.Snapshot).values(**row))
                for position, member in enumerate(members):
                    session.execute(sa.insert(models.Member).values(
                        **_NEW_MEMBER | member, snapshot_id=row['id'], position=position))
                for column, value, limit in quotas:
                    claims.keep_quota(session, column, value, limit)
                if must_fit:
                    must_fit(tuple(map(_record, session.scalars(sa.select(models.Snapshot).where(
                        models.Snapshot.project_id == row['project_id'],
                        models.Snapshot.status != 'error', models.Snapshot.id != row['id'])))))
                if keep_failed is not None:
                    self._drop_failed(session, row['project_id'], keep_failed)
        except db_exception.DBDuplicateEntry as exc:
            if not _is_of_names(exc):
                raise
            raise exception.NameTaken(name=row['name']) from exc
        # Nothing waits yet: the decisions of this snapshot shall find a short log.
        self._engine.checkpoint()

    @claims.transaction
    def get(self, name: str, project_id: str | None = None) -> records.Snapshot:
        """The snapshot of this id, or else of this name.

        A name means the snapshot that holds it; one in error only where no
        other has it.

        :raises SnapshotNotFound, NameNotUnique:
        """
        with self._engine.reading() as session:
            for wanted in (models.Snapshot.id == name,
                           sa.and_(models.Snapshot.name == name,
                                   models.Snapshot.status.not_in(_NAMELESS)),
                           models.Snapshot.name == name):
                query = sa.select(models.Snapshot).where(wanted).limit(2)
                if project_id is not None:
                    query = query.where(models.Snapshot.project_id == project_id)
                found = session.scalars(query).all()
                if len(found) > 1:
                    raise exception.NameNotUnique(name=name)
                if found:
                    return _record(found[0])
        raise exception.SnapshotNotFound(snapshot=name)

    @claims.transaction
    def list(self, *, status: str | Collection[str] | None = None, name: str | None = None,
             group_id: str | None = None, project_id: str | None = None,
             limit: int | None = None, marker: str | None = None) -> tuple[records.Snapshot, ...]:
        """Snapshots, newest first.

        :param marker: id of the last one of the page before
        :raises SnapshotNotFound: the marker is none
        """
        query = sa.select(models.Snapshot)
        if status is not None:
            statuses = [status] if isinstance(status, str) else list(status)
            query = query.where(models.Snapshot.status.in_(statuses))
        for column, value in (('name', name), ('group_id', group_id), ('project_id', project_id)):
            if value is not None:
                query = query.where(getattr(models.Snapshot, column) == value)
        with self._engine.reading() as session:
            last = session.get(models.Snapshot, marker) if marker is not None else None
            if marker is not None and last is None:
                raise exception.SnapshotNotFound(snapshot=marker)
            query = db_pages.paginate_query(
                query, models.Snapshot, limit, ['created_at', 'id'], marker=last, sort_dir='desc')
            return tuple(_record(row) for row in session.scalars(query))

    @claims.transaction
    def open_snapshots(self) -> tuple[records.Snapshot, ...]:
        """What some coordinator must still work on, oldest first: not closed, or acted upon.

        What hosts owe goes on by itself.
        """
        owed = sa.exists().where(models.Errand.snapshot_id == models.Snapshot.id)
        query = sa.select(models.Snapshot).where(sa.or_(
            models.Snapshot.closed.is_(False), models.Snapshot.action_status == 'running',
            models.Snapshot.restore.is_not(None), models.Snapshot.status == 'restoring',
            sa.and_(models.Snapshot.status == 'deleting', ~owed),
        )).order_by(models.Snapshot.created_at, models.Snapshot.id)
        with self._engine.reading() as session:
            return tuple(_record(row) for row in session.scalars(query))

    @claims.transaction
    def compare_and_swap(self, snapshot_id: str, generation: int, *,
                         lease: tuple[str | None, float] | None = None, **values) -> int:
        """Set columns if the row is still at ``generation``; the new generation.

        One statement, durable when it returns. Where the database failed the
        caller cannot know whether it happened, and looks.

        :param lease: (owner, seconds): whose lease it is from now on, (None, 0) nobody's;
            None: whose it was
        :raises StaleGeneration: somebody else changed it; nothing was set
        :raises SnapshotNotFound:
        """
        if values.get('status') in _NAMELESS:
            values['live_name'] = None
        if lease is not None:
            values |= claims.lease(*lease)
        if self._set(snapshot_id, values, models.Snapshot.generation == generation,
                     generation=generation + 1):
            return generation + 1
        with self._engine.reading() as session:
            claims.must_exist(session, snapshot_id)
        raise exception.StaleGeneration(snapshot=snapshot_id, generation=generation)

    @claims.transaction
    def update(self, snapshot_id: str, **values) -> None:
        """Set columns no decision rests on: name, description, skew_ms and the like.

        :raises NameTaken, SnapshotNotFound:
        """
        if set(values) - _FREE_COLUMNS:
            raise exception.Bug(reason=f'{set(values) - _FREE_COLUMNS} need compare_and_swap')
        try:
            with self._engine.writing() as session:
                # The write comes first: it makes another process wait, not fail.
                if not session.execute(
                        sa.update(models.Snapshot).where(models.Snapshot.id == snapshot_id)
                        .values(updated_at=clock.moment())
                        .execution_options(synchronize_session=False)).rowcount:
                    raise exception.SnapshotNotFound(snapshot=snapshot_id)
                row = session.get(models.Snapshot, snapshot_id)
                for column, value in values.items():
                    setattr(row, column, value)
                if row.live_name is not None:
                    row.live_name = _live_name(row.project_id, row.name)
        except db_exception.DBDuplicateEntry as exc:
            raise exception.NameTaken(name=values['name']) from exc

    @claims.transaction
    def set_status(self, snapshot_id: str, status: str) -> None:
        """What an operator wants shown, whatever goes on; who is at work does not notice.

        :raises SnapshotBusy: it is available no more, for nothing of it is to be kept
        :raises SnapshotNotFound:
        """
        values = {'status': status} | ({'live_name': None} if status in _NAMELESS else {})
        may = (models.Snapshot.decision != 'discard',) if status == 'available' else ()
        if self._set(snapshot_id, values, *may):
            return
        with self._engine.reading() as session:
            claims.must_exist(session, snapshot_id)
        raise exception.SnapshotBusy(
            snapshot=snapshot_id, status='discarded or deleted, or about to be: nothing of it is '
                                         'kept that could be available')

    @claims.transaction
    def show_phase(self, snapshot_id: str, phase: str, generation: int) -> bool:
        """Have this shown as what goes on, until the next decision.

        :returns: whether it is; not where it comes late
        """
        return self._set(snapshot_id, {'phase': phase}, models.Snapshot.generation == generation)

    @claims.transaction
    def update_members(self, snapshot_id: str, values: dict[str, dict]) -> None:
        """Set columns of members, by member id; members it does not have are passed over."""
        for columns in values.values():
            if set(columns) - _MEMBER_COLUMNS:
                raise exception.Bug(reason=f'members have no {set(columns) - _MEMBER_COLUMNS}')
        with self._engine.writing() as session:
            for member_id, columns in values.items():
                session.execute(
                    sa.update(models.Member).where(models.Member.snapshot_id == snapshot_id,
                                                   models.Member.member_id == member_id)
                    .values(**columns).execution_options(synchronize_session=False))

    @claims.transaction
    def delete(self, snapshot_id: str) -> bool:
        """Remove a row and its members; whether there was one."""
        return self._remove(models.Snapshot.id == snapshot_id) == 1

    @claims.transaction
    def purge(self, before: datetime.datetime) -> int:
        """Remove snapshots in error of which nothing is left, unchanged since; how many.

        Others stay, whatever word an operator has set: one that some host has not answered for,
        one that was available, one that is being restored.
        """
        return self._remove(
            *_NOTHING_LEFT,
            models.Snapshot.updated_at < before.astimezone(datetime.UTC).replace(tzinfo=None))

    # -- inside --------------------------------------------------------------------------------

    @staticmethod
    def _drop_failed(session, project_id, keep):
        """Remove the oldest of a project's failed snapshots; who adds one more has its turn."""
        old = session.scalars(
            sa.select(models.Snapshot.id).where(
                models.Snapshot.project_id == project_id, *_NOTHING_LEFT)
            .order_by(models.Snapshot.created_at.desc(), models.Snapshot.id).offset(keep)
            .limit(_DROPPED_AT_ONCE)).all()
        if old:
            session.execute(sa.delete(models.Snapshot).where(models.Snapshot.id.in_(old))
                            .execution_options(synchronize_session=False))

    def _remove(self, *conditions):
        with self._engine.writing() as session:
            return session.execute(
                sa.delete(models.Snapshot).where(*conditions)
                .execution_options(synchronize_session=False)).rowcount


def _is_of_names(exc):
    """Of the name's key, which MariaDB tells at the end and SQLite as a column."""
    return str(exc.inner_exception.orig.args[-1]).rstrip("'").endswith('live_name')


def _live_name(project_id, name):
    return f'{project_id}/{name}'


def _record(row: models.Snapshot) -> records.Snapshot:
    columns = {column.key: getattr(row, column.key) for column in row.__table__.columns}
    del columns['live_name']
    for moment in ('created_at', 'updated_at'):
        columns[moment] = columns[moment].replace(tzinfo=datetime.UTC)
    members = tuple(records.Member(**{
        column.key: getattr(member, column.key) for column in member.__table__.columns
        if column.key not in ('snapshot_id', 'position')}) for member in row.members)
    return records.Snapshot(**columns, members=members)
