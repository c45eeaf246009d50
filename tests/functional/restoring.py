# SPDX-License-Identifier: Apache-2.0
"""Real guests for the restore suite: without an operating system, each with a snapshot.

Their disks are raw: the first byte says whose they are, and a guest that its owner boots writes
into the next sector. So does that of their firmware's variables.
"""

import contextlib
import json
import os
import pathlib
import signal
import subprocess

import libvirt
import libvirt_qemu
import pytest

from hotsnap_nova.virt import host, records
from hotsnap_nova.virt.restore import restorer
from tests.functional import bare
from tests.functional.command import until

OWN, CUT, OTHER = b'\xaa', b'\xcc', b'\xee'
_BYTES = 1 << 20
_DEVICE = '/machine/peripheral/virtio-disk0/virtio-backend'
_ACTIVE = {libvirt.VIR_DOMAIN_RUNNING: 'running', libvirt.VIR_DOMAIN_PAUSED: 'paused'}


class Rig:
    """Guests ``a`` and ``b``, each there as soon as a test asks for it; a context manager.

    :ivar engine: anew whenever it is asked for, as after a restart of the service
    """

    def __init__(self, lab, folder: pathlib.Path):
        self._lab = lab
        self._folder = folder
        self._firmware = bare.halted(folder / 'firmware')
        self._guests: dict[str, bare.Bare] = {}
        self._defined: dict[str, str] = {}
        self._specs: dict[str, records.MemberSpec] = {}
        self._fresh: set[str] = set()
        self._engines: list[host.Engine] = []
        self._elsewhere: dict[str, libvirt.virDomain] = {}
        self._patience = pytest.MonkeyPatch()

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.begin()
        for name, guest in self._guests.items():
            self._define(name)
            guest.__exit__()

    def begin(self) -> None:
        """Have all as it was at first."""
        self._patience.undo()
        for engine in self._engines:
            engine.close()
        self._engines.clear()
        for domain in self._elsewhere.values():
            domain.destroy()
        self._elsewhere.clear()
        self._fresh.clear()

    @property
    def engine(self) -> host.Engine:
        self._engines.append(host.Engine(self._lab.uri))
        return self._engines[-1]

    def domain(self, name: str) -> libvirt.virDomain:
        self._ready(name)
        return self._guests[name].domain

    def _ready(self, name):
        """Have a guest that runs, and had been snapshotted when its disk was another."""
        if name in self._fresh:
            return
        if name not in self._guests:
            self._add(name)
        self._fresh.add(name)
        domain = self._define(name)
        if (self.state(name), self.opened(name), self.beside(name)) == ('running', 'own', {}):
            return    # as another test left it
        if domain.isActive():
            domain.destroy()
        for path in self._folder.joinpath(name).iterdir():
            if path.name != 'snapshot':
                path.unlink()
        with contextlib.suppress(FileNotFoundError):
            os.rename(self._memory(name, 'lost'), self._memory(name))
        self.path(name).write_bytes(OWN * _BYTES)
        self._nvram(name).write_bytes(OWN * bare.FLASH_BYTES)
        domain.create()

    def _add(self, name):
        folder = self._folder / name
        (folder / 'snapshot').mkdir(parents=True)
        guest = self._guests[name] = bare.Bare(
            self._lab, bare.disk(self.path(name), 'raw'), own_disk=False, memory_mb=8,
            firmware=f"<loader readonly='yes' type='pflash'>{self._firmware}</loader>"
                     f'<nvram>{self._nvram(name)}</nvram>')
        self.path(name).write_bytes(CUT * _BYTES)
        self._nvram(name).write_bytes(CUT * bare.FLASH_BYTES)
        domain = guest.__enter__().domain
        self._defined[name] = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        self._specs[name] = records.MemberSpec(domain.UUIDString(), guest.name)
        (folder / 'snapshot' / 'domain.xml').write_text(domain.XMLDesc(
            libvirt.VIR_DOMAIN_XML_SECURE | libvirt.VIR_DOMAIN_XML_MIGRATABLE))
        domain.save(str(self._memory(name)))
        subprocess.run(['qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', self.path(name),
                        folder / 'snapshot' / 'vda.qcow2'], check=True)

    def _define(self, name):
        return self._lab.connection.defineXML(self._defined[name])

    def _other(self, name):
        return self._folder / name / 'other.raw'

    def _nvram(self, name):
        return self._folder / name / 'nvram'

    def _memory(self, name, *more):
        return self._folder / name / 'snapshot' / '.'.join(('memory.save', *more))

    def work(self, *names: str, restore_id: str = 'r1', **more) -> records.RestoreWork:
        """Of these guests, by their names."""
        for name in names:
            self._ready(name)
        return records.RestoreWork('s1', restore_id, tuple(
            records.RestoreMember(self._specs[name], str(self._folder / name / 'snapshot'),
                                  {'disks': [{'target': 'vda', 'file': 'vda.qcow2'}]})
            for name in names), **more)

    def id(self, name: str) -> str:
        return self._specs[name].id

    # -- what there is -------------------------------------------------------------------------

    def state(self, name: str) -> str:
        return _ACTIVE.get(self.domain(name).state()[0], 'shut off')

    def disk(self, name: str) -> str:
        """Whose disk is in its place: ``own``, ``cut`` or an ``other``."""
        return _whose(self.path(name))

    def nvram(self, name: str) -> str:
        """Whose the variables of its firmware are: ``own`` or ``cut``."""
        return _whose(self._nvram(name))

    def file(self, name: str, what: str = '') -> str:
        """How a member's disk is called, or what restore ``r1`` has put beside it."""
        return f'{self.path(name)}.hotsnap-{what}-r1' if what else str(self.path(name))

    def beside(self, name: str) -> dict[str, str]:
        """What a restore has put beside it, without its id, and whose disk it is or ''."""
        found = {}
        for path in (self._folder / name).iterdir():
            what, mark, rest = path.name.partition('.hotsnap-')
            if mark:
                found[rest.split('-')[0]] = _whose(path) if what == 'disk.raw' else ''
        return found

    def opened(self, name: str) -> str:
        """Whose disk its QEMU has open: ``own``, ``cut`` or an ``other``; '' without one."""
        domain = self._elsewhere.get(name) or self.domain(name)
        pid = self._lab.pid_of(domain.name()) if domain.isActive() else None
        for fd in pathlib.Path(f'/proc/{pid}/fd').glob('*') if pid else ():
            if os.readlink(fd).startswith((str(self.path(name)), str(self._other(name)))):
                return _whose(fd)
        return ''

    def path(self, name: str) -> pathlib.Path:
        return self._folder / name / 'disk.raw'

    def starts(self, name: str) -> int:
        """How often its QEMU was started."""
        return (self._lab.folder / 'log' / 'qemu' / f'{self._guests[name].name}.log'
                ).read_text().count('starting up libvirt version')

    # -- what its owner and fate do ------------------------------------------------------------

    def boot(self, name: str) -> None:
        """Its owner starts it from its disk, and it writes."""
        self.domain(name).create()
        said = libvirt_qemu.qemuMonitorCommand(
            self.domain(name), json.dumps({
                'execute': 'human-monitor-command', 'arguments': {
                    'command-line': f'qemu-io -d {_DEVICE} "write -P 0xdd 512 512"'}}), 0)
        assert json.loads(said)['return'] == '', said

    def pause(self, name: str) -> None:
        self.domain(name).suspend()

    def go_on(self, name: str) -> None:
        self.domain(name).resume()

    def stop(self, name: str) -> None:
        self.domain(name).destroy()

    def kill(self, name: str) -> None:
        """Its QEMU dies, as when memory is short."""
        os.kill(self._guests[name].pid, signal.SIGKILL)
        assert until(lambda: self.state(name) == 'shut off')

    def undefine(self, name: str) -> None:
        """It is ended and libvirt forgets it; its files stay."""
        domain = self.domain(name)
        if domain.isActive():
            domain.destroy()
        domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM)

    def delete(self, name: str) -> None:
        """Its owner deletes it, and its files."""
        self.undefine(name)
        for path in self._folder.joinpath(name).iterdir():
            if path.name != 'snapshot':
                path.unlink()

    def evacuate(self, name: str) -> None:
        """It is gone here, and another host runs it from its disk, which both hosts see."""
        self.undefine(name)
        self._patience.setattr(restorer, '_STOPPED_TIMEOUT_S', 2.0)
        self._elsewhere[name] = self._lab.connection.createXML(
            self._guests[name].xml.replace('</name>', '-elsewhere</name>', 1))

    def replace(self, name: str) -> None:
        """There is another file in the place of its disk; it is off."""
        self._other(name).write_bytes(OTHER * _BYTES)
        os.replace(self._other(name), self.path(name))

    def redefine(self, name: str) -> None:
        """Its definition names another disk; it is off."""
        self._other(name).write_bytes(OTHER * _BYTES)
        self._lab.connection.defineXML(self._defined[name].replace(
            str(self.path(name)), str(self._other(name))))

    def lose_memory(self, name: str) -> None:
        """The snapshot's memory of it is gone."""
        os.rename(self._memory(name), self._memory(name, 'lost'))


def _whose(path) -> str:
    with open(path, 'rb') as file:
        return {OWN: 'own', CUT: 'cut', OTHER: 'other'}[file.read(1)]
