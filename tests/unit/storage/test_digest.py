# SPDX-License-Identifier: Apache-2.0
import errno
import fcntl
import os
import time

import blake3
import pytest

from hotsnap_nova import pace
from hotsnap_nova.storage import digest

MIB = 1 << 20


def of(path, **kwargs):
    fd = os.open(path, os.O_RDONLY)
    try:
        return digest.file_digest(fd, **kwargs)
    finally:
        os.close(fd)


@pytest.mark.parametrize('direct', [False, True])
@pytest.mark.parametrize('size', [0, 1, 4095, 4096, MIB - 1, MIB, MIB + 1, 3 * MIB + 17])
def test_digest_is_that_of_the_content(tmp_path, size, direct):
    content = os.urandom(size)
    (tmp_path / 'f').write_bytes(content)

    found = of(tmp_path / 'f', reading=digest.Reading(direct=direct))

    assert found == blake3.blake3(content).hexdigest()


def test_a_direct_reading_passes_the_page_cache_by_and_leaves_the_descriptor_as_it_was(
        tmp_path, monkeypatch):
    (tmp_path / 'f').write_bytes(os.urandom(3 * MIB))
    flags, real = [], os.readv

    def read(fd, views):
        flags.append(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT)
        return real(fd, views)
    monkeypatch.setattr(os, 'readv', read)

    fd = os.open(tmp_path / 'f', os.O_RDONLY)
    digest.file_digest(fd, reading=digest.Reading(direct=True))

    assert flags == [os.O_DIRECT] * 3
    assert not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT
    os.close(fd)


def test_a_file_system_that_cannot_be_read_directly_is_read_as_ever(tmp_path, monkeypatch):
    content = os.urandom(2 * MIB + 1)
    (tmp_path / 'f').write_bytes(content)
    real = os.readv

    def read(fd, views):
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, 'no')
        return real(fd, views)
    monkeypatch.setattr(os, 'readv', read)

    assert of(tmp_path / 'f', reading=digest.Reading(direct=True)) == (
        blake3.blake3(content).hexdigest())


def test_a_limit_is_kept_to_and_holes_count_for_nothing(tmp_path, monkeypatch):
    with open(tmp_path / 'f', 'wb') as file:
        file.write(os.urandom(4 * MIB))
        file.truncate(64 * MIB)
    now = [100.0]
    monkeypatch.setattr(time, 'monotonic', lambda: now[0])
    monkeypatch.setattr(time, 'sleep', lambda seconds: now.append(now.pop() + seconds))

    of(tmp_path / 'f', reading=digest.Reading(limit_bytes_s=2 * MIB))
    of(tmp_path / 'f')

    assert now[0] - 100.0 == pytest.approx(2.0)


@pytest.mark.parametrize(('takes_s', 'in_all_s'), [
    ([0.25] * 8, 4.0),                            # it reads while it would rest
    ([10] + [0] * 7, 10 + 4 - pace.CREDIT_S),  # what stood is caught up with, a little
    ([0.75] * 8, 6.0)])                           # what is slow by itself is no slower
def test_a_limit_is_a_rate_in_which_reading_counts(tmp_path, monkeypatch, takes_s, in_all_s):
    (tmp_path / 'f').write_bytes(os.urandom(8 * MIB))
    now, takes, real = [100.0], iter(takes_s), os.readv

    def read(fd, views):
        now[0] += next(takes)
        return real(fd, views)
    monkeypatch.setattr(os, 'readv', read)
    monkeypatch.setattr(time, 'monotonic', lambda: now[0])
    monkeypatch.setattr(time, 'sleep', lambda seconds: now.append(now.pop() + seconds))

    of(tmp_path / 'f', reading=digest.Reading(limit_bytes_s=2 * MIB))

    assert now[0] - 100.0 == pytest.approx(in_all_s)


@pytest.mark.parametrize('data_at', [
    [], [0], [5 * MIB], [10 * MIB - 4096], [0, 3 * MIB, 9 * MIB + 8192], [MIB - 4096, MIB]])
def test_holes_hash_as_zeros(tmp_path, data_at):
    content = bytearray(10 * MIB)
    with open(tmp_path / 'f', 'wb') as file:
        file.truncate(len(content))
        for position in data_at:
            piece = os.urandom(4096)
            file.seek(position)
            file.write(piece)
            content[position:position + 4096] = piece

    assert os.stat(tmp_path / 'f').st_blocks * 512 < len(content)
    assert of(tmp_path / 'f') == blake3.blake3(bytes(content)).hexdigest()


def test_holes_are_not_read(tmp_path, monkeypatch):
    with open(tmp_path / 'f', 'wb') as file:
        file.truncate(64 * MIB)
        file.seek(32 * MIB)
        file.write(b'\x5a' * 8192)
    taken = os.stat(tmp_path / 'f').st_blocks * 512
    read = []
    real = os.readv
    monkeypatch.setattr(os, 'readv', lambda fd, views: read.append(real(fd, views)) or read[-1])

    of(tmp_path / 'f')

    assert 8192 <= sum(read) <= taken


def test_progress_adds_up_to_the_size(tmp_path):
    with open(tmp_path / 'f', 'wb') as file:
        file.write(os.urandom(2 * MIB + 5))
        file.truncate(7 * MIB + 3)
    steps = []

    of(tmp_path / 'f', on_bytes=steps.append)

    assert sum(steps) == 7 * MIB + 3
    assert max(steps) <= digest.CHUNK_BYTES
