# SPDX-License-Identifier: Apache-2.0
"""Disk images of lab guests: made, and read without disturbing anyone."""

import dataclasses
import hashlib
import pathlib
import struct
import subprocess
import tempfile
import zlib

from tests.lab import specification

BLOCK_BYTES = 4096

_SECTOR_BYTES = 512
_SECTOR_MAGIC = 0x314b434f4c42534c
_SECTOR_HEAD = struct.Struct('<4Q2I')         # magic life seq nonce disk index
_SECTOR_TAIL = struct.Struct('<QII')          # seq zero crc
_BASE_MB = 16


@dataclasses.dataclass(frozen=True)
class Block:
    """What one slot of a disk holds; ``torn`` says why it is no whole block."""

    seq: int
    first_crc: int
    torn: str | None = None


def make(folder: pathlib.Path, index: int, disk: specification.Disk) -> pathlib.Path:
    """A new image for this disk; a base below it is full of a known pattern."""
    path = folder / f'disk{index}.{disk.format}'
    command = ['qemu-img', 'create', '-q', '-f', disk.format]
    if disk.backing:
        base = folder / f'base{index}.{disk.backing}'
        make_base(base, disk)
        command += ['-b', base, '-F', disk.backing]
    subprocess.run([*command, path, f'{disk.size_mb}M'], check=True)
    return path


def make_base(base: pathlib.Path, disk: specification.Disk) -> None:
    """The image below this disk, in the format of its backing."""
    with tempfile.NamedTemporaryFile(dir=base.parent) as raw:
        raw.write(base_pattern(0, _base_blocks(disk)))
        raw.truncate(disk.size_mb << 20)
        raw.flush()
        subprocess.run(['qemu-img', 'convert', '-f', 'raw', '-O', disk.backing, raw.name, base],
                       check=True)


def base_pattern(first_block: int, last_block: int) -> bytes:
    """What a base image holds in these blocks; no two blocks are alike."""
    return b''.join(hashlib.sha256(b'base %d' % number).digest() * (BLOCK_BYTES // 32)
                    for number in range(first_block, last_block))


def base_survives(path: pathlib.Path, image_format: str, disk: specification.Disk,
                  slots: int) -> bool:
    """Whether the part of the base that the workload never writes is still seen."""
    if not disk.backing:
        return True
    blocks = _base_blocks(disk)
    return read(path, image_format, blocks)[slots * BLOCK_BYTES:] == base_pattern(slots, blocks)


def read(path: pathlib.Path, image_format: str, blocks: int) -> bytes:
    """The image's first blocks as a guest would see them.

    Exact while nothing writes: the guest that has it open must be paused.
    """
    with tempfile.TemporaryDirectory() as scratch:
        copy = pathlib.Path(scratch) / 'raw'
        subprocess.run(['qemu-img', 'dd', '-U', '-f', image_format, '-O', 'raw',
                        f'bs={BLOCK_BYTES}', f'count={blocks}', f'if={path}', f'of={copy}'],
                       check=True, capture_output=True)
        return copy.read_bytes()


def blocks_in(data: bytes, life: int, disk: int) -> dict[int, Block]:
    """Slot to block, for slots in which this boot of the guest has written."""
    blocks = {}
    for slot in range(len(data) // BLOCK_BYTES):
        raw = data[slot * BLOCK_BYTES:(slot + 1) * BLOCK_BYTES]
        sectors = [raw[at:at + _SECTOR_BYTES] for at in range(0, BLOCK_BYTES, _SECTOR_BYTES)]
        heads = [_SECTOR_HEAD.unpack_from(sector) for sector in sectors]
        ours = [head for head in heads if head[:2] == (_SECTOR_MAGIC, life)]
        if ours:
            tails = [_SECTOR_TAIL.unpack_from(sector, _SECTOR_BYTES - _SECTOR_TAIL.size)
                     for sector in sectors]
            blocks[slot] = Block(max(head[2] for head in ours), tails[0][2],
                                 _torn(sectors, heads, tails, disk))
    return blocks


def _torn(sectors, heads, tails, disk: int) -> str | None:
    if len({head[:4] for head in heads}) > 1:
        return 'sectors of different writes'
    for index, (sector, head, tail) in enumerate(zip(sectors, heads, tails, strict=True)):
        if tail[0] != head[2] or tail[2] != zlib.crc32(sector[:-4]):
            return f'sector {index} is damaged'
        if head[4:] != (disk, index):
            return f'sector {index} belongs elsewhere'
    return None


def _base_blocks(disk: specification.Disk) -> int:
    return min(_BASE_MB, disk.size_mb) << 20 >> 12
