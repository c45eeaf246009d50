# SPDX-License-Identifier: Apache-2.0
"""Whether there is room for a whole group, memory included, and for what is to stay free."""

import dataclasses
import os
from collections.abc import Iterable, Iterator

from hotsnap_nova.virt import records
from hotsnap_nova.virt.checks import subject
from hotsnap_nova.virt.definition import cut

#: What memory that is unpacked for a restore is called in the store.
_PACKED = 'memory.save.zst'


def in_store(members: Iterable[subject.Subject], free_bytes: int,
             reserve_bytes: int) -> Iterator[records.Finding]:
    """Findings on a store that has not the room for a snapshot.

    :param free_bytes: where its files go
    :param reserve_bytes: what is to stay free
    """
    needed_bytes = sum(map(_at_the_most, members))
    if free_bytes < needed_bytes + reserve_bytes:
        yield records.Finding(
            records.GROUP, 'store', f'{free_bytes >> 20} MiB are free, '
            f'{needed_bytes >> 20} MiB may be needed and {reserve_bytes >> 20} MiB are to stay '
            'free', 'make room')


def _at_the_most(asked):
    """All of memory, all that is allocated."""
    return asked.parsed.memory_bytes + sum(
        min(image['virtual-size'], sum(layer.get('actual-size', layer['virtual-size'])
                                       for layer in subject.layers(image)))
        for image in asked.images.values())


@dataclasses.dataclass
class _FileSystem:
    """What restored members put on one."""

    folder: str
    needed_bytes: int = 0
    members: list[records.MemberSpec] = dataclasses.field(default_factory=list)


def beside_disks(members: Iterable[tuple[records.RestoreMember, str]],
                 reserve_bytes: int) -> Iterator[records.Finding]:
    """Findings on file systems that have not the room for the disks and memory of a cut.

    The disks of today stay there, too.

    :param members: each with its definition of today
    """
    for place in _placed(members):
        status = os.statvfs(place.folder)
        free_bytes = status.f_bavail * status.f_frsize
        if free_bytes < place.needed_bytes + reserve_bytes:
            yield records.Finding(
                place.members[0] if len(place.members) == 1 else records.GROUP, 'disks',
                f'{place.needed_bytes >> 20} MiB are needed in {place.folder} beside its disks, '
                f'{reserve_bytes >> 20} MiB are to stay free, and {free_bytes >> 20} MiB are',
                'make room', (records.RESTORE,))


def _placed(members):
    places: dict[int, _FileSystem] = {}
    for member, today in members:
        sizes = {file['name']: file['size_bytes'] for file in member.facts.get('files', ())}
        wanted = [(os.path.dirname(os.path.realpath(disk.path)),
                   sizes.get(f'{target}.qcow2', 0))
                  for target, disk in cut.disks(member.facts, today).items()]
        if wanted and _PACKED in sizes:    # beside its first disk
            wanted.append((wanted[0][0], member.facts.get('memory_bytes', 0)))
        for folder, size_bytes in wanted:
            if not os.path.isdir(folder):
                continue    # of which others tell
            place = places.setdefault(os.stat(folder).st_dev, _FileSystem(folder))
            place.needed_bytes += size_bytes
            if member.spec not in place.members:
                place.members.append(member.spec)
    return places.values()
