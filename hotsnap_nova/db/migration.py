# SPDX-License-Identifier: Apache-2.0
"""Brings a database's tables to the form this software uses."""

import alembic.command
import alembic.config
import alembic.runtime.migration
import alembic.script
import alembic.util

from hotsnap_nova import exception


def upgrade(engine, revision: str = 'head') -> None:
    """Apply the migrations that are missing; several processes may try at once.

    :raises DatabaseUnavailable: it was made by a newer version of this software
    """
    config = configuration()
    head = alembic.script.ScriptDirectory.from_config(config).get_current_head()
    with engine.connect() as connection:
        if revision == 'head' and _revision(connection) == head:
            return
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
    head = alembic.script.ScriptDirectory.from_config(configuration()).get_current_head()
    with engine.connect() as connection:
        return _revision(connection), head


def configuration() -> alembic.config.Config:
    """Alembic's, without a file."""
    config = alembic.config.Config()
    config.set_main_option('script_location', 'hotsnap_nova.db:migrations')
    config.set_main_option('path_separator', 'os')
    return config


def _revision(connection):
    return alembic.runtime.migration.MigrationContext.configure(connection).get_current_revision()
