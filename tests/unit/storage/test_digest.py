# SPDX-License-Identifier: Apache-2.0
import os

import blake3
import pytest

from hotsnap_nova.storage import digest

MIB = 1 << 20


def of(path, **kwargs):
    fd = os.open(path, os.O_RDONLY)
    try:
        return digest.file_digest(fd, **kwargs)
    finally:
        os.close(fd)


@pytest.mark.parametrize('size', [0, 1, 4095, 4096, MIB - 1, MIB, MIB + 1, 3 * MIB + 17])
def test_digest_is_that_of_the_content(tmp_path, size):
    content = os.urandom(size)
    (tmp_path / 'f').write_bytes(content)

    assert of(tmp_path / 'f') == blake3.blake3(content).hexdigest()


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
