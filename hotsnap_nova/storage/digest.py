# SPDX-License-Identifier: Apache-2.0
"""The digest of a file's content: plain BLAKE3, as ``b3sum`` prints it.

Holes are not read: the file system is asked where data is, and the zeros
between come from one buffer. A hole and written zeros have the same digest,
so a copy that fills holes still verifies.
"""

import contextlib
import dataclasses
import errno
import fcntl
import mmap
import os
from collections.abc import Callable

import blake3

from hotsnap_nova import pace, sparse

CHUNK_BYTES = 1 << 20
#: What direct reads are multiples of.
_BLOCK_BYTES = 4096
_ZEROS = bytes(CHUNK_BYTES)


@dataclasses.dataclass(frozen=True)
class Reading:
    """How a file is read.

    :ivar limit_bytes_s: at most so much of it; holes do not count. 0: no limit
    :ivar direct: past the page cache, where the file system can do that
    """

    limit_bytes_s: int = 0
    direct: bool = False


def file_digest(fd: int, on_bytes: Callable[[int], None] | None = None,
                reading: Reading = Reading()) -> str:
    """BLAKE3, in hex, of the whole content of an open regular file.

    Uses two buffers of CHUNK_BYTES whatever the file's size and moves the
    descriptor's offset.

    :param on_bytes: called with the number of bytes hashed since the last
        call; what it raises ends the work
    """
    hasher = blake3.blake3()
    buffer = mmap.mmap(-1, CHUNK_BYTES)    # aligned, as direct reading wants
    view = memoryview(buffer)
    position, paced = 0, pace.Pace(reading.limit_bytes_s)
    with _direct(fd) if reading.direct else contextlib.nullcontext():
        for start, end in sparse.data_extents(fd):
            _feed_zeros(hasher, start - position, on_bytes)
            os.lseek(fd, start, os.SEEK_SET)
            position = start
            while position < end:
                count = min(_read(fd, view[:_whole(min(CHUNK_BYTES, end - position))]),
                            end - position)
                if not count:
                    break    # cut short under our hands: the digest will tell
                hasher.update(view[:count])
                position += count
                paced.spend(count)
                if on_bytes:
                    on_bytes(count)
    _feed_zeros(hasher, os.fstat(fd).st_size - position, on_bytes)
    return hasher.hexdigest()


@contextlib.contextmanager
def _direct(fd):
    """For the block it is read past the page cache, or as ever where that cannot be."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_DIRECT)
    try:
        yield
    finally:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags)


def _read(fd, view):
    try:
        return os.readv(fd, [view])
    except OSError as exc:
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        if exc.errno != errno.EINVAL or not flags & os.O_DIRECT:
            raise
        fcntl.fcntl(fd, fcntl.F_SETFL, flags & ~os.O_DIRECT)
        return os.readv(fd, [view])


def _whole(count):
    """So many bytes, up to the end of a block."""
    return -(-count // _BLOCK_BYTES) * _BLOCK_BYTES


def _feed_zeros(hasher, count: int, on_bytes) -> None:
    while count > 0:
        step = min(count, CHUNK_BYTES)
        hasher.update(memoryview(_ZEROS)[:step])
        count -= step
        if on_bytes:
            on_bytes(step)
