# SPDX-License-Identifier: Apache-2.0
"""Whether the disks of today are those of the cut: by path, serial and size."""

import dataclasses
import os

from hotsnap_nova.virt import domain, records
from hotsnap_nova.virt.checks import inside
from hotsnap_nova.virt.definition import cut
from hotsnap_nova.virt.disks import image

_REFUSAL = ('device', 'cause', 'remedy')
_REMEDY = 'define the disks of the snapshot'


@dataclasses.dataclass(frozen=True)
class Matched:
    """What was found.

    :ivar now: the writable disks of today, by the cut's names for them
    :ivar findings: device, cause, remedy, and what it rules out if not the restore
    """

    now: dict[str, domain.DiskXml]
    findings: tuple[tuple, ...]

    @property
    def differ(self) -> bool:
        """Whether one is not what it was, as far as it matters."""
        return any(len(finding) == len(_REFUSAL) for finding in self.findings)

    @property
    def folder(self) -> str | None:
        """Where one of them is; None: there is none."""
        return next((folder for disk in self.now.values()
                     if os.path.isdir(folder := os.path.dirname(os.path.realpath(disk.path)))),
                    None)


def of_disks(member: records.RestoreMember, cut_xml: str, today_xml: str,
             drops: bool = False) -> Matched:
    """Every writable disk of today beside that of the cut which it is.

    :param cut_xml: see `definition.cut`
    :param drops: whether what is `inside` an image of today may go with it
    """
    kept = {disk['target']: disk for disk in member.facts['disks']}
    now = cut.disks(member.facts, today_xml)
    findings = [(target, 'this disk is gone', _REMEDY) for target in sorted(kept.keys() - now)]
    known = {disk.target for disk in now.values()}
    findings += [(disk.target, 'this disk is new since the snapshot', _REMEDY)
                 for disk in domain.DomainXml(today_xml).disks
                 if disk.writable and disk.target not in known]
    serials = {disk.target: disk.serial for disk in domain.DomainXml(cut_xml).disks}
    for target in sorted(now):
        findings += _of_disk(kept[target], serials.get(target), now[target], drops)
    return Matched(now, tuple(findings))


def _of_disk(kept: dict, serial: str, disk: domain.DiskXml, drops: bool):
    target = kept['target']
    if disk.kind != 'file' or not os.path.isdir(os.path.dirname(disk.path)):
        yield target, f'{disk.path or "its source"} is not a file that can be put back', \
            'define a file-backed disk'
        return
    if disk.chained:
        yield target, 'its definition names a backing file, and the restored disk has none', \
            'define it without <backingStore>'
    if kept.get('path') and not _same(kept['path'], disk.path) and (
            not serial or serial != disk.serial):
        yield target, f'its image was {kept["path"]} and is now {disk.path}', _REMEDY
        return
    described = image.describe(disk.path, disk.form) or {}
    if data := image.data_file(described):
        yield target, f'its data are in another file, {data}', 'convert it to an image of its own'
    if not drops:
        for cause in inside.dropped(described):
            yield target, cause, inside.REMEDY, (records.RESTORE,)
    size = described.get('virtual-size')
    if size and kept.get('size_bytes') and size != kept['size_bytes']:
        yield (target, f'it had {kept["size_bytes"] >> 20} MiB and has now {size >> 20} MiB; the '
               'restored disk has what it had', 'let it grow again afterwards', ())


def _same(before: str, now: str) -> bool:
    """Whether this is the image of then: in its place, or moved with its name to another."""
    return (os.path.realpath(before) == os.path.realpath(now)
            or (os.path.basename(before) == os.path.basename(now)
                and not os.path.exists(before)))
