# SPDX-License-Identifier: Apache-2.0
"""A guest's definition for a second QEMU beside its own: its hardware, and nothing that is its.

No name, port, socket, file that it writes, network or place on the host is shared, but files that
both only read. What a guest sees is the same, so that its memory finds it; where that cannot be
had twice, `obstacle` says so.
"""

import uuid
import xml.etree.ElementTree as ET

from hotsnap_nova.virt import domain
from hotsnap_nova.virt.definition import merging, table
from hotsnap_nova.virt.memory import saveimage

_NAME = 'hotsnap-trial-'
_QEMU = 'http://libvirt.org/schemas/domain/qemu/1.0'
_NAMESPACE = uuid.UUID('5d0f7b54-8f0e-5b0c-9d53-7c1f7e0c6a11')
#: Who it is, and what the host has set aside or limited for it alone.
_ITS_OWN = ('title', 'description', 'metadata', 'resource', 'cputune', 'blkiotune', 'memtune',
            'perf', 'devices/lease', 'devices/graphics', "devices/input[@type='evdev']")
#: NICs whose other end is a tap, with a header in front of each packet: here it leads nowhere.
_TAPS = ('bridge', 'direct', 'ethernet', 'network')
#: What is left of a NIC: what the guest sees of it, and how QEMU is to serve that.
_OF_NICS = ('mac', 'model', 'driver', 'mtu', 'teaming', 'address', 'alias', 'boot', 'rom', 'acpi')
_PORTS = ('serial', 'parallel', 'console', 'channel')
_OF_PORTS = ('target', 'address', 'alias', 'acpi')
#: What there may be only once, by path.
_SCARCE = {'memoryBacking/hugepages': 'its memory is in huge pages',
           'memoryBacking/locked': 'its memory is locked',
           'numatune': 'its memory is bound to NUMA nodes',
           'os/varstore': 'the variables of its firmware are in a file of its own',
           "seclabel[@type='static']": 'its security label is its alone',
           f'{{{_QEMU}}}commandline': 'QEMU is given options that libvirt does not know'}
#: Files that are only read, and disks, of which `of` gives it others.
_SHARED = ('devices/emulator', 'devices/disk')


def name_of(member_id: str) -> str:
    """How it is called."""
    return _NAME + member_id


def id_of(member_id: str) -> str:
    """Its UUID: a guest has one such QEMU at the most."""
    return str(uuid.uuid5(_NAMESPACE, member_id))


def member_of(name: str) -> str:
    """Id of the guest that a domain of this name stands beside; '': it is any other."""
    return name.removeprefix(_NAME) if name.startswith(_NAME) else ''


def of(xml: str, member_id: str, disks: dict[str, str], nvram: str = '') -> str:
    """The definition.

    :param xml: of the guest, as it is to be started
    :param disks: paths of its writable disks here, qcow2, by target
    :param nvram: path of its firmware's variables here, if it has any
    """
    root = domain.parsed(saveimage.with_sources(
        xml, {target: (path, 'qcow2') for target, path in disks.items()}))
    _name(root, member_id)
    for path in _ITS_OWN:
        parent = root.find(path.rpartition('/')[0] or '.')
        for element in root.findall(path):
            parent.remove(element)
    for name in ('placement', 'cpuset'):
        root.find('vcpu').attrib.pop(name, None)
    if (variables := root.find('os/nvram')) is not None:
        _become(variables, {'format': variables.get('format', 'raw')})
        variables.text = nvram
    _lead_nowhere(root.find('devices'))
    merging.serve_spice(root)
    return ET.tostring(root, encoding='unicode')


def obstacle(xml: str, disks: dict[str, str]) -> str:
    """Why there can be no second one of a guest, in a sentence's words; '' where there can.

    :param xml: of the guest, as it is to be started
    :param disks: see `of`
    """
    root = domain.parsed(xml)
    for path, words in _SCARCE.items():
        if root.find(path) is not None:
            return words
    for disk in root.iterfind('devices/disk'):
        if (disk.find('readonly') is None and disk.get('device', 'disk') in ('disk', 'lun')
                and disk.find('target').get('dev') not in disks):
            return f'its disk {disk.find("target").get("dev")} is not one of the snapshot'
    for nic in root.iterfind('devices/interface'):
        if nic.get('type') not in (*_TAPS, 'user', 'null'):
            return f'a NIC of type {nic.get("type")} leads to one guest alone'
    left = domain.parsed(of(xml, '', disks))
    return next(filter(None, (_in_use(device) for device in left.find('devices')
                              if f'devices/{device.tag}' not in _SHARED)), '')


def _name(root, member_id):
    root.find('name').text = name_of(member_id)
    if root.find('uuid') is None:    # which libvirt would make up
        ET.SubElement(root, 'uuid')
    # Of the two libvirt wants the same.
    for path in ('uuid', "sysinfo/system/entry[@name='uuid']"):
        for element in root.iterfind(path):
            element.text = id_of(member_id)


def _lead_nowhere(devices):
    for nic in devices.findall('interface'):
        kind = 'ethernet' if nic.get('type') in _TAPS else nic.get('type')
        if nic.find("backend[@type='passt']") is not None:    # a process of its own, and a socket
            kind = 'null'
        _become(nic, {'type': kind}, _OF_NICS)
    for kind in _PORTS:
        for port in devices.findall(kind):
            _become(port, {'type': 'null'}, _OF_PORTS)
    for audio in devices.findall('audio'):
        _become(audio, {'id': audio.get('id', '1'), 'type': 'none'})
    for backend in devices.findall("rng/backend[@model='egd']"):
        _become(backend, {'model': 'random'})
        backend.text = '/dev/urandom'


def _become(element, attributes, keeps=()):
    """Have other attributes, of the children only some, no text."""
    element.attrib = attributes
    element.text = None
    for child in list(element):
        if child.tag not in keeps:
            element.remove(child)


def _in_use(device):
    """What of the host's a device would share with the guest, in a sentence's words."""
    for element in device.iter():
        if element.tag == 'rom':    # only read
            continue
        for value in (element.text, *element.attrib.values()):
            if table.is_path(value):
                return f'{value.strip()}, behind its {device.tag}, is in use'
    if device.get('type') in ('tcp', 'udp'):
        return f'its {device.tag} is connected by {device.get("type")}'
    return ''
