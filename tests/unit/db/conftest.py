# SPDX-License-Identifier: Apache-2.0
import pytest

from hotsnap_nova.db import api


class Clock:
    """Seconds since 1970 that pass when told to."""

    def __init__(self):
        self.now = 1_700_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def url(tmp_path):
    return f'sqlite:///{tmp_path}/hotsnap.db'


@pytest.fixture
def database(url, clock):
    database = api.Database(url, clock)
    database.upgrade()
    yield database
    database.close()


@pytest.fixture
def other(database, url, clock):
    """The same database, as another coordinator sees it."""
    other = api.Database(url, clock)
    yield other
    other.close()
