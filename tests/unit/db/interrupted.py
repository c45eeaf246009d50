# SPDX-License-Identifier: Apache-2.0
"""Migrations that are killed before one of their statements, which is behind the one before."""

import itertools

import sqlalchemy as sa

from hotsnap_nova.db import migration

#: Errands (snapshot, kind) in the order in which they were given.
GIVEN = [('s', 'restore'), ('s', 'message'), ('a', 'delete')]
_CHANGES = ('CREATE', 'ALTER', 'DROP', 'INSERT', 'UPDATE', 'DELETE')


class _Killed(BaseException):
    """The process is no more."""


def upgrade(engine, number: int, within: tuple[str, ...] = ('0002', 'head')) -> bool:
    """Bring a database from nothing to this version; whether nothing was killed for it.

    A first try comes to ``number`` statements that change something, a second to the end. On the
    way, at 0002, errands are given.

    :param within: the way to these alone has a first try
    """
    left = itertools.count(number, -1)

    def kill(_connection, _cursor, statement, *_more):
        if statement.lstrip().startswith(_CHANGES) and next(left) == 0:
            raise _Killed
    killed = False
    for revision in ('0002', 'head'):
        if revision in within:
            sa.event.listen(engine, 'before_cursor_execute', kill)
            try:
                migration.upgrade(engine, revision)
            except _Killed:
                killed = True
            finally:
                sa.event.remove(engine, 'before_cursor_execute', kill)
        migration.upgrade(engine, revision)
        if revision == '0002':
            _give(engine)
    return not killed


def errands(connection) -> list[tuple[str, str]]:
    """As `GIVEN`, in the order in which they would be done."""
    return [tuple(row) for row in connection.exec_driver_sql(
        'SELECT snapshot_id, kind FROM errands ORDER BY id')]


def _give(engine):
    with engine.begin() as connection:
        for at, (snapshot, kind) in reversed(tuple(enumerate(GIVEN))):
            connection.exec_driver_sql(
                'INSERT INTO errands (snapshot_id, host, kind, detail, created_at) VALUES '
                f"('{snapshot}', 'h', '{kind}', '{{}}', {at})")
