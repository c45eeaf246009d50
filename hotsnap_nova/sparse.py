# SPDX-License-Identifier: Apache-2.0
"""Where a file has data, by the word of its file system."""

import errno
import os
from collections.abc import Iterator


def data_extents(fd: int) -> Iterator[tuple[int, int]]:
    """(start, end) of each stretch the file system holds data for, in order.

    :raises OSError: it cannot be read
    """
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
