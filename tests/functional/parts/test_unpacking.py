# SPDX-License-Identifier: Apache-2.0
"""Compressed memory is unpacked whole, and no faster than disks are copied."""

import ctypes
import mmap
import os
import subprocess
import time

import pytest
import zstandard

from hotsnap_nova.virt import records
from hotsnap_nova.virt.restore import unpacking

_LIBC = ctypes.CDLL(None)
_MIB = 1 << 20
_CONTENT = os.urandom(40 * _MIB)


@pytest.fixture
def packed(tmp_path):
    path = tmp_path / 'memory.save.zst'
    path.write_bytes(zstandard.ZstdCompressor(level=1).compress(_CONTENT))
    subprocess.run(['sync', path], check=True)
    return path


def cached_bytes(path):
    """What the page cache has of a file."""
    size = os.path.getsize(path)
    if not size:
        return 0
    with open(path, 'rb') as file, \
            mmap.mmap(file.fileno(), size, mmap.MAP_PRIVATE,
                      mmap.PROT_READ | mmap.PROT_WRITE) as at:
        pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
        start = ctypes.c_char.from_buffer(at)
        assert not _LIBC.mincore(ctypes.byref(start), ctypes.c_size_t(size), pages)
        del start
    return sum(page & 1 for page in pages) * mmap.PAGESIZE


def test_a_limit_is_one_of_what_is_written(packed, tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, 'monotonic', lambda: now[0])
    monkeypatch.setattr(time, 'sleep', lambda seconds: now.append(now.pop() + seconds))

    unpacking.unpack(str(packed), str(tmp_path / 'memory'), effort=records.Effort(4 * _MIB))

    assert now[0] - 100.0 == pytest.approx(10.0)
    assert (tmp_path / 'memory').read_bytes() == _CONTENT


def test_with_direct_io_neither_file_stays_in_the_page_cache(packed, tmp_path):
    with open(packed, 'rb') as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    assert not cached_bytes(packed), 'TMPDIR is nothing but page cache: name a folder on a disk'
    most = []

    unpacking.unpack(str(packed), str(tmp_path / 'memory'), lambda _bytes: most.append(
        cached_bytes(tmp_path / 'memory.new')), records.Effort(direct=True))

    assert cached_bytes(tmp_path / 'memory') == cached_bytes(packed) == 0
    assert max(most) <= 20 * _MIB
    assert (tmp_path / 'memory').read_bytes() == _CONTENT


def test_what_is_given_up_leaves_no_memory_that_looks_whole(packed, tmp_path):
    def stop(done_bytes):
        if done_bytes > 8 * _MIB:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        unpacking.unpack(str(packed), str(tmp_path / 'memory'), stop)

    assert not (tmp_path / 'memory').exists()
