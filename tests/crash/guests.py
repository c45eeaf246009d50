# SPDX-License-Identifier: Apache-2.0
"""Guests that boot within a second and hardly need the processor; see ``boot.S``."""

import dataclasses
import pathlib
import struct
import subprocess
import time

import libvirt

from tests.lab import disks, enclosure

MEMORY_MB = 16
_PAGE = 0x9000
_FIELDS = struct.Struct('<8sI3B')
_MAGIC = b'HSCRASH1'
_SECTOR_BYTES = 512
_DISK_BYTES = 1 << 20
_TICK_S = 1 / 18.2
#: A key as Linux calls it.
_KEYS = {str(digit): 1 + digit for digit in range(1, 10)}


class GuestError(Exception):
    """A guest does not do what it was made for."""


@dataclasses.dataclass(frozen=True)
class Seen:
    """What memory or a disk holds."""

    ticks: int
    mark: str
    failed: int
    boots: int

    @classmethod
    def of(cls, data: bytes) -> 'Seen':
        magic, ticks, mark, failed, boots = _FIELDS.unpack_from(data)
        if magic != _MAGIC:
            raise GuestError(f'no guest of ours: {data[:16]!r}')
        return cls(ticks, chr(mark) if mark else '', failed, boots)


class Guest:
    """One defined domain.

    :param form: of its disk
    """

    def __init__(self, home: enclosure.Enclosure, name: str, folder: pathlib.Path, form: str):
        self.name = name
        self.home = home
        self.form = form
        self.folder = folder
        self.disk = make_disk(folder, name, form)
        self.uuid = home.connection.defineXML(self._xml()).UUIDString()

    @property
    def domain(self) -> libvirt.virDomain:
        return self.home.connection.lookupByName(self.name)

    @property
    def pid(self) -> int | None:
        """QEMU's process, by its number outside; None: it is off."""
        path = self.home.folder / f'run/libvirt/qemu/{self.name}.pid'
        try:
            return self.home.outside_pid(int(path.read_text()))
        except (FileNotFoundError, ValueError):    # not yet, or no more
            return None

    @property
    def state(self) -> str:
        """libvirt's word for it."""
        names = {libvirt.VIR_DOMAIN_RUNNING: 'running', libvirt.VIR_DOMAIN_PAUSED: 'paused',
                 libvirt.VIR_DOMAIN_SHUTOFF: 'off', libvirt.VIR_DOMAIN_CRASHED: 'off'}
        number = self.domain.state()[0]
        return names.get(number, f'state {number}')

    def boot(self) -> None:
        """Return when it counts."""
        self.domain.create()
        self.counts_on()

    def counts_on(self, timeout_s: float = 120.0) -> None:
        """Return when it has counted since it was asked.

        :raises GuestError: not in time
        """
        ends, before = time.monotonic() + timeout_s, None
        while time.monotonic() < ends:
            try:
                now = self.memory().ticks
            except (GuestError, libvirt.libvirtError):    # it is booting
                now = None
            if None not in (now, before) and now != before:
                return
            before = now
            time.sleep(_TICK_S)
        raise GuestError(f'{self.name} does not count: {self.state}')

    def memory(self) -> Seen:
        """What its memory holds; exact while it stands still."""
        return Seen.of(self.domain.memoryPeek(_PAGE, _FIELDS.size, libvirt.VIR_MEMORY_PHYSICAL))

    def on_disk(self, path: pathlib.Path | None = None) -> Seen:
        """What its disk holds, or another image of it."""
        data = disks.read(path or self.disk, self.form, 1)
        return Seen.of(data[_SECTOR_BYTES:])

    def mark(self, mark: str, timeout_s: float = 120.0) -> None:
        """Return when memory and disk bear this digit.

        :raises GuestError: not in time
        """
        ends, pressed = time.monotonic() + timeout_s, 0.0
        while self.memory().mark != mark:
            if time.monotonic() > ends:
                raise GuestError(f'{self.name} hears no key')
            if time.monotonic() - pressed > 1:
                pressed = time.monotonic()
                self.domain.sendKey(libvirt.VIR_KEYCODE_SET_LINUX, 0, [_KEYS[mark]], 1, 0)
            time.sleep(_TICK_S / 2)
        while self.on_disk().mark != mark:
            if time.monotonic() > ends:
                raise GuestError(f'{self.name} does not write its disk')

    def _xml(self):
        return f'''<domain type='qemu'>
  <name>{self.name}</name>
  <memory unit='MiB'>{MEMORY_MB}</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <features><acpi/></features>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='{self.form}' cache='none'/>
      <source file='{self.disk}'/>
      <target dev='vda' bus='virtio'/>
      <boot order='1'/>
    </disk>
    <interface type='user'>
      <model type='virtio'/>
      <rom enabled='no'/>
    </interface>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    <video><model type='none'/></video>
  </devices>
</domain>
'''


def make_disk(folder: pathlib.Path, name: str, form: str) -> pathlib.Path:
    """A new disk that the guest boots from."""
    program = folder / 'boot.bin'
    if not program.exists():
        objects = folder / 'boot.o'
        source = pathlib.Path(__file__).with_name('boot.S')
        subprocess.run(['gcc', '-m32', '-c', source, '-o', objects], check=True)
        subprocess.run(['ld', '-m', 'elf_i386', '-Ttext', '0x7c00', '--oformat', 'binary',
                        objects, '-o', program], check=True)
    raw, disk = folder / f'{name}.boot', folder / f'{name}.{form}'
    raw.write_bytes((program.read_bytes() + _MAGIC).ljust(_DISK_BYTES, b'\0'))
    subprocess.run(['qemu-img', 'convert', '-q', '-f', 'raw', '-O', form, raw, disk], check=True)
    return disk
