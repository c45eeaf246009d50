# SPDX-License-Identifier: Apache-2.0
"""Read-only media: not copied, but digested, and asked for again on restore."""

import os

import blake3

from hotsnap_nova.virt import domain


def describe(disk: domain.DiskXml) -> dict:
    """What the manifest keeps of a medium: target, path, size, BLAKE3."""
    hasher = blake3.blake3()
    hasher.update_mmap(disk.path) if os.path.getsize(disk.path) else None
    return {'target': disk.target, 'path': disk.path,
            'size_bytes': os.path.getsize(disk.path), 'blake3': hasher.hexdigest()}


def changes(kept, defined: domain.DomainXml):
    """Yield device, cause, remedy for each medium that is not what it was."""
    now = {disk.target: disk for disk in defined.disks if disk.medium}
    for medium in kept:
        disk = now.get(medium['target'])
        if disk is None or not os.path.exists(disk.path):
            yield medium['target'], f'its medium {medium["path"]} is gone', 'insert it again'
        elif describe(disk)['blake3'] != medium['blake3']:
            yield medium['target'], f'{disk.path} is not the medium it was', 'insert that again'
