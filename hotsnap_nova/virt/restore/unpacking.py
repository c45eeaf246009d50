# SPDX-License-Identifier: Apache-2.0
"""Memory that a snapshot keeps compressed, as libvirt wants it."""

import os
from collections.abc import Callable
from typing import BinaryIO

import zstandard

from hotsnap_nova import pace
from hotsnap_nova.virt import records
from hotsnap_nova.virt.restore import durable

#: What the page cache has of it at most, where it is to have none.
_CACHED_BYTES = 16 << 20


def unpack(packed: str, path: str, tell: Callable[[int], None] = lambda _bytes: None,
           effort: records.Effort = records.ALL_EFFORT) -> None:
    """Have it in a file of ours, durably, wholly or not at all; repeatable.

    :param packed: path of what is compressed, only read
    :param tell: called with how many bytes there are, now and then; what it raises ends it
    """
    with open(packed, 'rb') as file, \
            zstandard.ZstdDecompressor().stream_reader(file) as source:
        durable.write(path, _Gently(source, file, effort), tell,
                      _CACHED_BYTES if effort.direct else 0)


class _Gently:
    """A source that gives no more than it should; what counts is what is written of it."""

    def __init__(self, source: BinaryIO, packed: BinaryIO, effort: records.Effort):
        self._source, self._packed, self._effort = source, packed, effort
        self._pace = pace.Pace(effort.limit_bytes_s)

    def read(self, count: int) -> bytes:
        data = self._source.read(count)
        self._pace.spend(len(data))
        if self._effort.direct:
            os.posix_fadvise(self._packed.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return data
