# SPDX-License-Identifier: Apache-2.0
"""Disks that look like files of this host and belong to a volume service.

Cinder's volumes on NFS, GPFS, SMB and Virtuozzo storage are files in a guest's XML as the
guest's own disks are. A restore would put another file under the volume's name, past the
service that snapshots, migrates and accounts for it. Paths do not tell; who attached them does.
"""

from collections.abc import Collection, Iterator

from hotsnap_nova.virt import definitions, domain
from hotsnap_nova.virt.checks import subject

_REMEDY = 'detach the volume, and boot from an image onto a local disk where it is the first disk'


def attached(asked: subject.Subject):
    yield from of_files(asked.parsed, asked.volumes)


def of_files(parsed: domain.DomainXml,
             volumes: Collection[definitions.Volume]) -> Iterator[tuple[str, str, str]]:
    """Yield device, cause, remedy of each writable disk that is called a file and is a volume."""
    for disk in parsed.disks:
        if disk.writable and disk.kind == 'file' and (found := _which(disk, volumes)):
            yield (disk.target, f'it is the {found.kind} volume {found.id} of Cinder, whose files '
                   'are not ours to replace', _REMEDY)


def _which(disk, volumes):
    """By serial number, as Nova gives it to each volume; names may have moved."""
    by = 'serial' if disk.serial else 'target'
    return next((volume for volume in volumes if getattr(volume, by) == getattr(disk, by)), None)


RULES = (attached,)
