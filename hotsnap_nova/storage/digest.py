# SPDX-License-Identifier: Apache-2.0
"""The digest of a file's content: plain BLAKE3, as ``b3sum`` prints it.

Holes are not read: the file system is asked where data is, and the zeros
between come from one buffer. A hole and written zeros have the same digest,
so a copy that fills holes still verifies.
"""

import errno
import os
from collections.abc import Callable

import blake3

CHUNK_BYTES = 1 << 20
_ZEROS = bytes(CHUNK_BYTES)


def file_digest(fd: int, on_bytes: Callable[[int], None] | None = None) -> str:
    """BLAKE3, in hex, of the whole content of an open regular file.

    Uses two buffers of CHUNK_BYTES whatever the file's size and moves the
    descriptor's offset.

    :param on_bytes: called with the number of bytes hashed since the last
        call; what it raises ends the work
    """
    hasher = blake3.blake3()
    buffer = bytearray(CHUNK_BYTES)
    view = memoryview(buffer)
    position = 0
    for start, end in _data_extents(fd):
        _feed_zeros(hasher, start - position, on_bytes)
        os.lseek(fd, start, os.SEEK_SET)
        position = start
        while position < end:
            count = os.readv(fd, [view[:min(CHUNK_BYTES, end - position)]])
            if not count:
                break    # cut short under our hands: the digest will tell
            hasher.update(view[:count])
            position += count
            if on_bytes:
                on_bytes(count)
    _feed_zeros(hasher, os.fstat(fd).st_size - position, on_bytes)
    return hasher.hexdigest()


def _feed_zeros(hasher, count: int, on_bytes) -> None:
    while count > 0:
        step = min(count, CHUNK_BYTES)
        hasher.update(memoryview(_ZEROS)[:step])
        count -= step
        if on_bytes:
            on_bytes(step)


def _data_extents(fd: int):
    """(start, end) of each stretch the file system holds data for, in order."""
    position, size = 0, os.fstat(fd).st_size
    while position < size:
        try:
            start = os.lseek(fd, position, os.SEEK_DATA)
        except OSError as exc:
            if exc.errno == errno.ENXIO:    # a hole up to the end
                return
            raise
        position = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        yield start, position
