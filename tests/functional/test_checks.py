# SPDX-License-Identifier: Apache-2.0
"""What a check finds in real QEMUs, each of which has one thing that stands in the way."""

import contextlib
import json
import os
import pathlib

import blake3
import libvirt
import libvirt_qemu
import pytest

from hotsnap_nova import exception
from hotsnap_nova.virt import domain, host, records
from hotsnap_nova.virt.checks import inside
from hotsnap_nova.virt.disks import image as qcow2
from hotsnap_nova.virt.disks import media
from tests.functional.bare import Bare, disk, drive, findings, image
from tests.functional.command import PATIENT, Hotsnap
from tests.functional.witness import trace
from tests.lab import Lab, enclosure

LIBVIRT_QEMU = """<seclabel type='static' model='dac' relabel='yes'>
    <label>libvirt-qemu:kvm</label></seclabel>"""


def told(lab, *guests, **asked):
    """(device, what it rules out, cause) of each finding."""
    return [(each.device, each.rules_out, each.cause)
            for each in findings(lab, *guests, **asked)]


def only(found, device, rules_out, cause):
    """Whether there is one finding, this one."""
    return [each[:2] for each in found] == [(device, rules_out)] and cause in found[0][2]


def test_nothing_is_found_in_a_plain_guest_and_nothing_is_changed_by_looking(lab):
    with Bare(lab) as guest:
        before = trace(guest)

        assert told(lab, guest) == []

        after = trace(guest)
        del before['descriptors'], after['descriptors']    # it boots
        assert after == before


def test_what_qemu_itself_would_not_migrate_rules_the_snapshot_out_in_its_words(lab):
    medium = image(lab.folder / 'disk.vdi', '1M', 'vdi')

    with Bare(lab, drive(medium, 'vdi')) as guest:
        assert only(told(lab, guest), 'guest', ('snapshot',), 'The vdi format used by node')


def test_memory_in_files_rules_the_snapshot_out_before_anything_is_protected(lab):
    with Bare(lab, more="<memoryBacking><source type='file'/></memoryBacking>") as guest:
        assert only(told(lab, guest), 'memory', ('snapshot',), 'memory of its kind')


def test_shared_memory_of_a_memfd_is_fine(lab):
    with Bare(lab, more="<memoryBacking><source type='memfd'/><access mode='shared'/>"
                        '</memoryBacking>') as guest:
        assert told(lab, guest) == []


def test_qemus_own_user_is_the_one_who_must_be_able_to_protect_memory(
        lab, tmp_path, monkeypatch):
    """Root, who asks, can; and so can QEMU's user by the device that libvirt gives it unasked."""
    may = pathlib.Path('/proc/sys/vm/unprivileged_userfaultfd').read_text().strip() == '1'
    monkeypatch.setattr(enclosure, 'QEMU_CONF', enclosure.QEMU_CONF
                        + 'cgroup_device_acl = ["/dev/null", "/dev/zero", "/dev/urandom"]')

    with Bare(lab, more=LIBVIRT_QEMU) as guest:
        by_device = told(lab, guest)
        device = os.stat(f'/proc/{guest.pid}/root/dev/userfaultfd')
        qemus_user = os.stat(f'/proc/{guest.pid}').st_uid
        made = Hotsnap(lab.uri, tmp_path).run(
            'snapshot', 'create', 'one', '--domain', guest.name, '--wait', *PATIENT)
    with Lab() as strict, Bare(strict, more=LIBVIRT_QEMU) as guest:
        without = told(strict, guest)

    assert by_device == []
    assert device.st_uid == qemus_user != 0
    assert made.status == 0, made.errors
    assert without == [] if may else only(without, 'memory', ('snapshot',), 'userfaultfd')


def test_what_was_plugged_into_the_running_guest_alone_rules_its_restore_out(lab):
    with Bare(lab, machine='pc') as guest:
        guest.domain.attachDevice(disk(image(lab.folder / 'more.qcow2'), target='vdb'))

        assert only(told(lab, guest), 'vdb', ('restore',), 'not in its definition')


def test_internal_snapshots_and_checkpoints_go_with_the_disk_only_if_that_is_meant(lab, tmp_path):
    user = Hotsnap(lab.uri, tmp_path)
    with Bare(lab) as guest:
        made = user.run('snapshot', 'create', 'one', '--domain', guest.name, '--wait', *PATIENT)
        guest.domain.checkpointCreateXML(
            '<domaincheckpoint><name>tuesday</name></domaincheckpoint>')
        libvirt_qemu.qemuMonitorCommand(guest.domain, json.dumps({
            'execute': 'blockdev-snapshot-internal-sync',
            'arguments': {'device': 'libvirt-1-format', 'name': 'monday'}}), 0)
        found, runs = told(lab, guest), guest.pid
        refused = user.run('snapshot', 'restore', 'one')
        runs_on = guest.pid == runs
        restored = user.run('snapshot', 'restore', 'one', '--drop-internal-snapshots')
        now = qcow2.describe(guest.disk, 'qcow2')

    assert made.status == 0, made.errors
    assert [each[:2] for each in found] == [('vda', ('restore',))] * 2
    assert ('(monday)' in found[0][2], '(tuesday)' in found[1][2]) == (True, True)
    assert (refused.status, runs_on) == (1, True)
    assert 'restore with --drop-internal-snapshots' in refused.errors
    assert restored.status == 0, restored.errors
    assert list(inside.dropped(now)) == []


@pytest.mark.parametrize('content', [b'SEED' * 1024, b'OTHER' * 1024])
def test_a_medium_that_only_the_running_guest_has_rules_the_restore_out(lab, content):
    """If it is another: a restore looks at what is on it, not at what it is called."""
    defined, runs = lab.folder / 'defined.iso', lab.folder / 'runs.iso'
    defined.write_bytes(b'SEED' * 1024)
    runs.write_bytes(content)

    with Bare(lab, drive(defined)) as guest:
        guest.domain.updateDeviceFlags(drive(runs), libvirt.VIR_DOMAIN_AFFECT_LIVE)
        found = told(lab, guest)

    assert found == [] if content == defined.read_bytes() else only(
        found, 'sda', ('restore',), f'{runs} is not in its definition')


def test_a_folder_where_libvirt_has_something_else_rules_the_restore_out(lab):
    """As with services in containers of their own; its QEMU has the disk open already."""
    folder = lab.folder / 'apart'
    folder.mkdir()

    with Bare(lab, disk(image(folder / 'image.qcow2'), target='vdb')) as guest:
        lab.run_inside('mount', '-t', 'tmpfs', 'tmpfs', str(folder))
        try:
            found = told(lab, guest)
        finally:
            lab.run_inside('umount', str(folder))

        assert only(found, 'vdb', ('restore',), f'libvirt does not see what is in {folder}')
        assert told(lab, guest) == []


def serial(kind, source, element='serial'):
    return f"<{element} type='{kind}'><source {source}/><target port='0'/></{element}>"


def test_a_serial_console_that_listens_as_novas_does_is_fine(lab):
    with Bare(lab, serial('tcp', "mode='bind' host='127.0.0.1' service='0'")) as guest:
        assert told(lab, guest) == []


def test_a_serial_port_that_connects_elsewhere_rules_the_snapshot_out(lab):
    with Bare(lab, serial('udp', "mode='connect' host='127.0.0.1' service='9'")) as guest:
        assert only(told(lab, guest), 'serial0', ('snapshot',), 'udp serial that connects')


def test_a_unix_socket_leads_to_another_member_or_to_none(lab):
    path = lab.folder / 'wire'
    with (Bare(lab, serial('unix', f"mode='bind' path='{path}'")) as one,
          Bare(lab, serial('unix', f"mode='connect' path='{path}'")) as other):
        alone = told(lab, other)
        together = findings(lab, one, other, called='Shop {}')

    assert alone == []
    assert {(str(each.member), each.device, each.cause, each.rules_out) for each in together} == {
        (f'Shop {here.name}', 'serial0', f'this serial leads to Shop {there.name} by {path}',
         ('snapshot',)) for here, there in ((one, other), (other, one))}


def test_a_members_terminal_that_is_anothers_serial_port_is_followed(lab):
    with Bare(lab, "<serial type='pty'><target port='0'/></serial>") as one:
        pty = one.domain.XMLDesc().split("<source path='")[1].split("'")[0]
        with Bare(lab, serial('dev', f"path='{pty}'")) as other:
            assert {each.member.name for each in findings(lab, one, other)} == {
                one.name, other.name}


def test_a_medium_that_was_deleted_while_in_the_drive_is_named_and_not_a_fault_of_ours(
        lab, tmp_path):
    user, medium = Hotsnap(lab.uri, tmp_path), lab.folder / 'seed.iso'
    medium.write_bytes(b'SEED' * 1024)

    with Bare(lab, drive(medium)) as guest:
        medium.unlink()
        found = told(lab, guest)
        refused = user.run('snapshot', 'create', 'one', '--domain', guest.name)

    assert only(found, 'sda', ('snapshot',), f'its medium {medium} is gone')
    assert refused.status == 1
    assert f'{guest.name}, sda: its medium {medium} is gone' in refused.errors


def test_a_medium_that_goes_between_check_and_preparation_refuses_too(lab, tmp_path):
    medium = lab.folder / 'seed.iso'
    medium.write_bytes(b'SEED' * 1024)

    with Bare(lab, drive(medium)) as guest, contextlib.closing(host.Engine(lab.uri)) as engine:
        work = records.Work('one', 1, engine.find((guest.name,)), 'barrier', str(tmp_path))
        medium.unlink()
        with pytest.raises(exception.Refused, match='is gone'):
            engine.prepare(work)
        engine.discard(work.snapshot_id, work.members)


def test_a_medium_is_read_once_and_again_when_it_has_changed(tmp_path, monkeypatch):
    xml = f"<domain><devices>{drive(tmp_path / 'm')}</devices></domain>"
    disk = domain.DomainXml(xml).disks[0]
    (tmp_path / 'm').write_bytes(b'A' * 5000)
    reads = []
    monkeypatch.setattr(os, 'read', lambda *asked, read=os.read: reads.append(1) or read(*asked))

    first, again = media.describe(disk), media.describe(disk)
    once = len(reads)
    (tmp_path / 'm').write_bytes(b'B' * 5000)
    other = media.describe(disk)

    assert first == again == {'target': 'sda', 'path': str(tmp_path / 'm'), 'size_bytes': 5000,
                              'blake3': blake3.blake3(b'A' * 5000).hexdigest()}
    assert other['blake3'] != first['blake3']
    assert len(reads) == 2 * once == 4
