# SPDX-License-Identifier: Apache-2.0
"""Brings a database's tables to the form this software uses.

Alembic, slow to import, is needed only where there is something to bring.
"""

import sqlalchemy as sa

from hotsnap_nova import exception

#: The last of migrations/versions. From 0003 on those of one first digit only add: software that
#: knows an earlier one, but for 0001 and 0002, goes on with its tables. 0003 itself makes a table
#: anew, and software that knows no newer one than 0002 refuses it.
HEAD = '0003'


def serves(found: str | None) -> bool:
    """Whether tables of this version are this one's, or of a newer one that only added to it."""
    return found is not None and found[:1] == HEAD[:1] and found >= HEAD


def upgrade(engine, revision: str = 'head') -> None:
    """Apply the migrations that are missing.

    Harmless to repeat, also where it ended in the middle. With SQLite several processes may try
    at once.

    :raises DatabaseUnavailable: it was made by a newer version that did more than add
    """
    with engine.connect() as connection:
        if revision == 'head' and serves(_revision(connection)):
            return
    import alembic.command
    import alembic.util
    config = configuration()
    with engine.begin() as connection:
        if connection.dialect.name == 'sqlite':
            # Takes SQLite's one write lock before anything is read, so that
            # the second of two processes finds the work of the first.
            connection.exec_driver_sql('PRAGMA user_version = 1')
        config.attributes['connection'] = connection
        try:
            alembic.command.upgrade(config, revision)
        except alembic.util.CommandError as exc:
            raise exception.DatabaseUnavailable(
                reason=f'its tables are of another version ({exc})') from exc


def versions(engine) -> tuple[str | None, str]:
    """(what the tables have, what this software needs)."""
    with engine.connect() as connection:
        return _revision(connection), HEAD


def configuration():
    """Alembic's, without a file."""
    import alembic.config
    config = alembic.config.Config()
    config.set_main_option('script_location', 'hotsnap_nova.db:migrations')
    config.set_main_option('path_separator', 'os')
    return config


def _revision(connection):
    if not sa.inspect(connection).has_table('alembic_version'):
        return None
    return connection.scalar(sa.text('SELECT version_num FROM alembic_version'))
