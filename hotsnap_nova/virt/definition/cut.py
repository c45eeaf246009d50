# SPDX-License-Identifier: Apache-2.0
"""What a snapshot says of a guest's definition, and which disk of today is which of its."""

from hotsnap_nova.virt import domain, records
from hotsnap_nova.virt.memory import saveimage


def xml(member: records.RestoreMember) -> str:
    """The guest's definition when it ran, with the images its disks had where that is known."""
    with open(f'{member.folder}/domain.xml') as archive:
        return saveimage.with_sources(archive.read(), {
            disk['target']: (disk['path'], disk['format'])
            for disk in member.facts['disks'] if disk.get('path')})


def disks(facts: dict, today_xml: str) -> dict[str, domain.DiskXml]:
    """The writable disks of today that the cut has, too, by its names for them."""
    left = [disk for disk in domain.DomainXml(today_xml).disks if disk.writable]
    found = {}
    for name in ('path', 'target'):
        for kept in facts['disks']:
            match = next((disk for disk in left if getattr(disk, name) == kept.get(name)), None)
            if match and kept['target'] not in found:
                found[kept['target']] = match
                left.remove(match)
    return found
