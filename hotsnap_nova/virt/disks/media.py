# SPDX-License-Identifier: Apache-2.0
"""Read-only media: not copied, but digested, and asked for again on restore.

A medium may be gone though the guest has it in its drive (a file that was deleted since):
such a guest could be restored by nobody.
"""

import os
import stat
import threading

import blake3

from hotsnap_nova.virt import domain

_CHUNK_BYTES = 1 << 20
#: A group's members often share one, and a restore asks again for what the snapshot asked for:
#: digests by device, inode, size and time of change, the oldest given up first.
_KNOWN = 256
_digests: dict[tuple, str] = {}
_lock = threading.Lock()


def fault(disk: domain.DiskXml) -> str:
    """Why a medium cannot be read, in a sentence's words; '' where it can."""
    try:
        os.close(_open(disk.path))
    except FileNotFoundError:
        return f'its medium {disk.path} is gone'
    except OSError as exc:
        return f'its medium {disk.path} cannot be read: {exc.strerror or exc}'
    return ''


def describe(disk: domain.DiskXml) -> dict:
    """What the manifest keeps of a medium: target, path, size, BLAKE3.

    :raises OSError: it cannot be read
    """
    fd = _open(disk.path)
    try:
        identity = _identity(fd)
        digest = _digests.get(identity) or _digest(fd)
        if _identity(fd) == identity:    # nobody wrote to it meanwhile
            with _lock:
                _digests[identity] = digest
                if len(_digests) > _KNOWN:
                    del _digests[next(iter(_digests))]
        size_bytes = os.fstat(fd).st_size
    finally:
        os.close(fd)
    return {'target': disk.target, 'path': disk.path, 'size_bytes': size_bytes, 'blake3': digest}


def same(one: domain.DiskXml, other: domain.DiskXml) -> bool:
    """Whether two media are one file, or are equal.

    :raises OSError: one cannot be read
    """
    return (os.path.realpath(one.path) == os.path.realpath(other.path)
            or describe(one)['blake3'] == describe(other)['blake3'])


def changes(kept, defined: domain.DomainXml):
    """Yield device, cause, remedy for each medium that is not what it was."""
    now = {disk.target: disk for disk in defined.disks if disk.medium}
    for medium in kept:
        disk = now.get(medium['target'])
        if disk is None:
            yield medium['target'], f'its medium {medium["path"]} is gone', 'insert it again'
        elif reason := fault(disk):
            yield medium['target'], reason, 'insert it again, readable to us'
        elif describe(disk)['blake3'] != medium['blake3']:
            yield medium['target'], f'{disk.path} is not the medium it was', 'insert that again'


def _open(path: str) -> int:
    """:raises OSError: also where it is something else than a file"""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError('it is no file')
    return fd


def _identity(fd: int) -> tuple:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _digest(fd: int) -> str:
    """By reading: a file that is truncated meanwhile ends, where a mapped one would kill us."""
    hasher = blake3.blake3()
    while chunk := os.read(fd, _CHUNK_BYTES):
        hasher.update(chunk)
    return hasher.hexdigest()
