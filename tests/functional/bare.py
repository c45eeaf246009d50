# SPDX-License-Identifier: Apache-2.0
"""Real QEMUs without an operating system: there in a second, of any make."""

import contextlib
import itertools
import subprocess

import libvirt

from hotsnap_nova.virt import host, records
from tests.lab import Lab

_numbers = itertools.count()


def image(path, size='16M', form='qcow2', *options):
    """A disk image that is made anew; its path as text."""
    subprocess.run(['qemu-img', 'create', '-q', '-f', form, *options, path, size], check=True)
    return str(path)


def disk(path, form='qcow2', target='vda', kind='file', more=''):
    """The XML of a disk."""
    source = {'file': 'file', 'block': 'dev'}[kind]
    return f"""<disk type='{kind}' device='disk'><driver name='qemu' type='{form}'/>
        <source {source}='{path}'/>{more}<target dev='{target}' bus='virtio'/></disk>"""


def drive(path, form='raw', device='cdrom', target='sda', bus='sata'):
    """The XML of a drive with a medium in it."""
    return f"""<disk type='file' device='{device}'><driver name='qemu' type='{form}'/>
        <source file='{path}'/><target dev='{target}' bus='{bus}'/><readonly/></disk>"""


FLASH_BYTES = 1 << 16


def halted(path):
    """A firmware (flash) with which a guest runs, and does nothing; its path as text."""
    rom = bytearray(FLASH_BYTES)
    rom[-16:-12] = b'\xfa\xf4\xeb\xfd'    # cli, hlt, again; there the processor begins
    path.write_bytes(rom)
    return str(path)


class Bare:
    """A running domain; a context manager that leaves nothing of it.

    :param devices: XML within ``<devices>``; ``more`` beside it
    :param own_disk: whether it has a small qcow2 disk, vda, of its own
    :param firmware: XML within ``<os>``
    """

    def __init__(self, lab: Lab, devices: str = '', more: str = '', *, own_disk: bool = True,
                 memory_mb: int = 32, vcpus: str = '<vcpu>1</vcpu>', machine: str = 'q35',
                 firmware: str = ''):
        self._lab = lab
        self.name = f'bare{next(_numbers)}'
        if own_disk:
            self.disk = image(lab.folder / f'{self.name}.qcow2')
            devices = disk(self.disk) + devices
        self.xml = f"""<domain type='qemu'><name>{self.name}</name>
            <memory unit='MiB'>{memory_mb}</memory>{vcpus}
            <os><type arch='x86_64' machine='{machine}'>hvm</type>{firmware}</os>
            <features><acpi/></features>{more}
            <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
            <controller type='usb' model='none'/><memballoon model='none'/>{devices}</devices>
            </domain>"""

    @property
    def domain(self):
        return self._lab.connection.lookupByName(self.name)

    @property
    def pid(self) -> int:
        return self._lab.pid_of(self.name)

    def __enter__(self):
        self._lab.connection.defineXML(self.xml).create()
        return self

    def __exit__(self, *_error):
        domain = self.domain
        if domain.isActive():
            domain.destroy()
        if domain.isPersistent():
            domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM)


def findings(lab: Lab, *guests: Bare, called: str = '{}', **asked):
    """What a check has to say of running guests.

    :param called: what their users call them, of libvirt's name
    """
    with contextlib.closing(host.Engine(lab.uri)) as engine:
        members = tuple(records.MemberSpec(spec.id, called.format(spec.name))
                        for spec in engine.find(tuple(guest.name for guest in guests)))
        return engine.check(members, **asked).findings
