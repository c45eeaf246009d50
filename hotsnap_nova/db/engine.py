# SPDX-License-Identifier: Apache-2.0
"""A connection to SQLite or to a server, set up so that a commit is durable and quick.

A decision is committed while gates are closed, so a commit's time is time
guests wait. With SQLite it is one append and one fsync: write-ahead logging,
no checkpoint where anyone waits, and one connection held open, because the
last to close would checkpoint. A commit outlives ``kill -9`` and loss of
power; the file must be on a local disk.
"""

import os
import sqlite3

import sqlalchemy as sa
from oslo_db import exception as db_exception
from oslo_db.sqlalchemy import enginefacade

from hotsnap_nova import exception

#: How long SQLite waits for another process's write before it gives up.
_BUSY_S = 30


@enginefacade.transaction_context_provider
class _Context:
    """Each transaction stands alone."""


class Engine:
    """Transactions on one database.

    :param url: SQLAlchemy's, for example ``sqlite:////var/lib/hotsnap/hotsnap.db``
    :raises DatabaseUnavailable: it cannot be opened
    """

    def __init__(self, url: str):
        try:
            parsed = sa.make_url(url)
            self._is_sqlite = parsed.get_backend_name() == 'sqlite'
            if self._is_sqlite:
                _make_private(parsed.database)
                parsed = parsed.update_query_dict({'timeout': str(_BUSY_S)})
            self._facade = enginefacade.transaction_context()
            self._facade.configure(
                connection=parsed.render_as_string(hide_password=False),
                sqlite_fk=True, max_retries=3, retry_interval=1)
            self.engine = self._facade.writer.get_engine()
            self._held = self.engine.raw_connection()
            if self._is_sqlite:
                # The mode is the file's, for every connection from now on.
                self._held.cursor().execute('PRAGMA journal_mode = WAL').fetchall()
                # Only who has read from it counts as having it open.
                self._held.cursor().execute('SELECT count(*) FROM sqlite_master').fetchall()
        except (OSError, sqlite3.Error, sa.exc.SQLAlchemyError, db_exception.DBError) as exc:
            raise unavailable(exc) from exc

    def writing(self):
        """A transaction for ``with``: commits at its end, rolls back what raises."""
        return self._facade.writer.using(_Context())

    def reading(self):
        """The same for reading."""
        return self._facade.reader.using(_Context())

    def checkpoint(self) -> None:
        """Make the next commits cheap, where nobody waits; never blocks for others."""
        if self._is_sqlite:
            with self.engine.connect() as connection:
                raw = connection.connection.dbapi_connection
                raw.execute('PRAGMA wal_checkpoint(PASSIVE)')

    def close(self) -> None:
        self._held.close()
        self.engine.dispose()


def unavailable(exc: Exception) -> exception.DatabaseUnavailable:
    """The operator's one line for an error of the database."""
    lines = str(getattr(exc, 'orig', None) or exc).splitlines() or [type(exc).__name__]
    return exception.DatabaseUnavailable(reason=lines[0].rstrip('.'))


def _make_private(path: str | None) -> None:
    """SQLite would create it for all to read; its log files take its mode."""
    if path and path != ':memory:' and not path.startswith('file:'):
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
