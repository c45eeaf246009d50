# SPDX-License-Identifier: Apache-2.0
"""A database's tables, made once for all tests of a process that want nothing else of them."""

import functools
import os
import tempfile

from hotsnap_nova.db import api


@functools.cache
def _made() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        database = api.Database(f'sqlite:///{folder}/hotsnap.db')
        database.upgrade()
        database.close()
        with open(f'{folder}/hotsnap.db', 'rb') as file:
            return file.read()


def make(path: str) -> None:
    """An SQLite database at this path, as `Database.upgrade` leaves it."""
    with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), 'wb') as file:
        file.write(_made())
