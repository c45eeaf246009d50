# SPDX-License-Identifier: Apache-2.0
import pytest
import sqlalchemy as sa

from hotsnap_nova.db import api


class Clock:
    """Of SQLite itself; seconds since 1970 that pass when told to."""

    def __init__(self):
        self.now = 1_700_000_000.0

    def julianday(self, when):
        assert when == 'now'
        return self.now / 86400 + 2440587.5

    def set(self, connection, _record):
        connection.create_function('julianday', 1, self.julianday)


@pytest.fixture
def clock():
    made = Clock()
    sa.event.listen(sa.Pool, 'connect', made.set)
    yield made
    sa.event.remove(sa.Pool, 'connect', made.set)


@pytest.fixture
def url(tmp_path):
    return f'sqlite:///{tmp_path}/hotsnap.db'


@pytest.fixture
def database(url, clock):
    database = api.Database(url)
    database.upgrade()
    yield database
    database.close()


@pytest.fixture
def other(database, url):
    """The same database, as another coordinator sees it."""
    other = api.Database(url)
    yield other
    other.close()
