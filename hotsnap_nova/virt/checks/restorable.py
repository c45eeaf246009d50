# SPDX-License-Identifier: Apache-2.0
"""What would stand in the way of a guest's restore, told while there is a choice.

The restore asks itself again, of the snapshot: see `obstacles`.
"""

import os
import stat
import xml.etree.ElementTree as ET

from hotsnap_nova.virt import domain, records
from hotsnap_nova.virt.checks import inside, subject
from hotsnap_nova.virt.definition import differences
from hotsnap_nova.virt.disks import media

_RESTORE = (records.RESTORE,)
#: Of what was plugged into the running guest alone, or out of it.
_REMEDY = 'plug it in or out of both, or start the guest anew'


def definition(asked: subject.Subject):
    """Whether it is defined, and as it runs: a restored guest starts from its definition."""
    if not asked.guest.persistent():
        yield ('guest', 'its domain is transient: when it has ended nothing is defined to restore '
               'to', 'define the domain', _RESTORE)
        return
    defined_xml = asked.guest.xml(live=False)
    defined = domain.DomainXml(defined_xml)
    told = set()
    for one, other, what in ((asked.parsed, defined, 'is not in its definition'),
                             (defined, asked.parsed, 'is in its definition, and it runs without')):
        for device in sorted(_devices(one) - _devices(other)):
            told.add(device)
            yield (device, f'it {what}: a restore would be refused',
                   _REMEDY, _RESTORE)
    for name, runs, is_defined in (
            ('vcpus', asked.parsed.running_vcpus, defined.running_vcpus),
            ('memory', asked.parsed.memory_bytes >> 20, defined.memory_bytes >> 20)):
        if runs != is_defined:
            told.add(name)
            yield (name, f'it runs with {runs}{" MiB" * (name == "memory")} and is defined with '
                   f'{is_defined}: a restore would be refused',
                   'change its definition, too, or start it anew', _RESTORE)
    # Other devices are compared as a restore will compare those of the guest as it runs.
    for device, cause, _remedy in differences.differences(
            _devices_alone(asked.xml), _devices_alone(defined_xml)):
        if device not in told:
            yield (device, f'as it is defined, {cause}: a restore would be refused', _REMEDY,
                   _RESTORE)
    yield from _media(asked.parsed, defined)


def _devices_alone(xml):
    root = domain.parsed(xml)
    for child in list(root):
        if child.tag != 'devices':
            root.remove(child)
    return ET.tostring(root, encoding='unicode')


def _media(runs, defined):
    """Media that were changed in the running guest alone."""
    later = {disk.target: disk for disk in defined.disks if disk.medium}
    for disk in runs.disks:
        if not disk.medium or media.fault(disk):
            continue    # of which others tell
        other = later.get(disk.target)
        if other is None or media.fault(other) or not media.same(disk, other):
            yield (disk.target, f'its medium {disk.path} is not in its definition: a restore '
                   'would be refused', 'change it in both, or eject it', _RESTORE)


def _devices(parsed):
    """What of a definition can be plugged in and out, by what people call it."""
    return ({disk.target for disk in parsed.disks if disk.writable}
            | {nic.mac.lower() for nic in parsed.nics if nic.mac})


def block_devices(asked: subject.Subject):
    """Disks that are called files, and are none: a restore replaces files."""
    for disk in asked.parsed.disks:
        if disk.writable and disk.kind == 'file':
            try:
                is_block = stat.S_ISBLK(os.stat(disk.path).st_mode)
            except OSError:    # of another mount namespace
                continue
            if is_block:
                yield (disk.target, f'{disk.path} is a block device, defined as a file',
                       'define it as what it is, or use a qcow2 or raw file', _RESTORE)


def images(asked: subject.Subject):
    """What is in its disks' images that a snapshot has not, and a restore would drop."""
    for target, image in asked.images.items():
        data = image.get('format-specific', {}).get('data', {})
        if data.get('data-file'):
            yield (target, f'its data are in another file, {data["data-file"]}',
                   'convert it to an image of its own', _RESTORE)
        for cause in inside.dropped(image, asked.bitmaps.get(target, ())):
            yield target, cause, inside.REMEDY, _RESTORE


def encrypted_layers(asked: subject.Subject):
    """What is below a disk goes into the snapshot in the clear, too."""
    for target, image in asked.images.items():
        for layer in list(subject.layers(image))[1:]:
            if layer.get('encrypted'):
                yield (target, f'{layer["filename"]} below it is encrypted, and would be stored '
                       'in the clear', 'use an unencrypted base')


RULES = (definition, block_devices, images, encrypted_layers)
