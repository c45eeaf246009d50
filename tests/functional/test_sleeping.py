# SPDX-License-Identifier: Apache-2.0
"""A guest that falls asleep (ACPI S3) between its preparation and its cut can still be woken."""

import contextlib
import json
import uuid

import libvirt
import libvirt_qemu
import pytest

from hotsnap_nova import exception
from hotsnap_nova.virt import monitor, records
from tests.functional.command import until

#: Waits for a key, then has PIIX4 put the machine to sleep, and again whenever it is woken:
#: wait: in al, 0x64; test al, 1; jz wait; in al, 0x60; mov dx, 0x604; mov ax, 0x2400; out dx, ax;
#: jmp wait
SLEEPER = bytes.fromhex('e464a80174fae460ba0406b80024efebef')
DOMAIN = """
<domain type='qemu'><name>{name}</name><uuid>{uuid}</uuid><memory unit='MiB'>16</memory>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <features><acpi/></features>
  <pm><suspend-to-mem enabled='yes'/></pm>
  <devices>
    <disk type='file' device='disk'><driver name='qemu' type='raw'/>
      <source file='{disk}'/><target dev='vda' bus='virtio'/></disk>
    <controller type='usb' model='none'/><memballoon model='none'/>
  </devices>
</domain>"""
KEY_A = 30


@pytest.fixture
def sleeper(shared_lab, tmp_path):
    """(domain, work) of a prepared guest that sleeps at the press of a key."""
    disk = tmp_path / 'sleeper.img'
    disk.write_bytes(SLEEPER.ljust(510, b'\0') + b'\x55\xaa' + bytes(1 << 20))
    connection = libvirt.open(shared_lab.uri)
    identity = str(uuid.uuid4())
    domain = connection.defineXML(DOMAIN.format(
        name=f'sleeper-{identity[:8]}', uuid=identity, disk=disk))
    domain.create()
    yield domain, records.Work(
        snapshot_id=str(uuid.uuid4()), epoch=1,
        members=(records.MemberSpec(identity, domain.name()),), gate='barrier',
        folder=str(tmp_path), max_pause_ms=60_000, max_hold_ms=60_000)
    with contextlib.suppress(libvirt.libvirtError):
        domain.destroy()
    domain.undefine()
    connection.close()


def is_asleep(domain):
    """Whether it is, once a key was pressed: the firmware may still have been at work."""
    if domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING:
        domain.sendKey(libvirt.VIR_KEYCODE_SET_LINUX, 0, [KEY_A], 1, 0)
    return domain.state()[0] == libvirt.VIR_DOMAIN_PMSUSPENDED


def status_of(domain):
    """QEMU's own word: libvirt takes a guest that it hears is let go on for a running one."""
    told = libvirt_qemu.qemuMonitorCommand(domain, '{"execute": "query-status"}', 0)
    return json.loads(told)['return']['status']


@pytest.mark.parametrize('when', ['before we look', 'after we looked'])
def test_a_guest_that_fell_asleep_since_it_was_prepared_can_be_woken(
        when, sleeper, engine, monkeypatch):
    domain, work = sleeper
    engine.prepare(work)
    assert until(lambda: is_asleep(domain), 60)
    if when == 'after we looked':
        monkeypatch.setattr(monitor.Monitor, 'running', lambda _self: True)

    with pytest.raises(exception.HotsnapError) as failed:
        engine.record(work)
    engine.discard(work.snapshot_id, work.members)

    assert failed.type in (exception.GuestNotRunning, exception.CutNotClean)
    assert status_of(domain) == 'suspended'
    domain.pMWakeup()
    assert until(lambda: status_of(domain) == 'running', 20)
