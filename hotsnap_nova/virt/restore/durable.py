# SPDX-License-Identifier: Apache-2.0
"""Files and names that are still there after a loss of power."""

import contextlib
import os
from collections.abc import Callable
from typing import BinaryIO


def sync_folder_of(path: str) -> None:
    """Have all names beside ``path`` on the disk, as they are now."""
    fd = os.open(os.path.dirname(path), os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write(path: str, source: BinaryIO, tell: Callable[[int], None] = lambda _bytes: None,
          cached_bytes: int = 0) -> None:
    """Have what ``source`` gives in a file, wholly or not at all; repeatable.

    :param tell: called with how many bytes there are, now and then; what it raises ends it
    :param cached_bytes: what the page cache has of it at most, about, and nothing at the end;
        0: as much as it likes
    """
    forgotten = 0
    new = f'{path}.new'
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 'wb') as file:
        while data := source.read(1 << 20):
            file.write(data)
            tell(file.tell())
            if cached_bytes and file.tell() - forgotten >= cached_bytes:
                _forget(file)
                forgotten = file.tell()
        _forget(file) if cached_bytes else file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
    sync_folder_of(path)


def _forget(file):
    """The page cache drops what is on the disk, and nothing else."""
    file.flush()
    os.fdatasync(file.fileno())
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def drop(path: str) -> None:
    """Have a file gone, whether it was there or not; for good once its folder is synced."""
    for each in (f'{path}.new', path):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(each)
