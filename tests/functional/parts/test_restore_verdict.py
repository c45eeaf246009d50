# SPDX-License-Identifier: Apache-2.0
"""What changed since a snapshot is named before a restore stops anything: on paper."""

import os
import re
import subprocess
import types

import libvirt
import pytest

from hotsnap_nova.virt import definitions, records
from hotsnap_nova.virt.checks import obstacles, room
from hotsnap_nova.virt.memory import saveimage

NIC = "<interface type='bridge'><mac address='{}'/><source bridge='br0'/></interface>"
DISK = """<disk type='file' device='disk'><driver type='qcow2'/><source file='{}'/>
    <target dev='{}'/></disk>"""
DOMAIN = """<domain type='kvm'>
  <name>web</name><memory unit='KiB'>{memory_kib}</memory><vcpu>{vcpus}</vcpu>
  <os><type arch='x86_64' machine='{machine}'>hvm</type></os>
  <cpu mode='{mode}'><model>{cpu}</model></cpu>
  <devices>{devices}</devices>
</domain>"""
PROCESSOR = """<capabilities><host><cpu><arch>x86_64</arch><vendor>AMD</vendor>
    <microcode version='{microcode}'/><signature family='25' model='1' stepping='1'/></cpu></host>
    </capabilities>"""
TPM = "<tpm model='tpm-crb'><backend type='emulator'/></tpm>"
COOKIE = "<cookie><cpu mode='custom'><model>Haswell</model></cpu></cookie>"
FIRST, SECOND = 'fa:16:3e:00:00:01', 'fa:16:3e:00:00:02'


class Paper:
    """libvirt's answers where QEMU has this version.

    :ivar refusal: of a definition for a save image; None: it fits
    :ivar machines: that QEMU has
    :ivar unfit: why the host lacks a CPU; None: it has any
    :ivar cpu: of the host, as libvirt tells
    :ivar blind: the beginning of the names of files that it does not find; '': it finds all
    """

    def __init__(self, version='10.0.2'):
        self.version = [int(part) for part in version.split('.')]
        self.refusal = self.unfit = None
        self.machines = ('pc-i440fx-10.0', 'pc-i440fx-9.2', 'pc-q35-10.0')
        self.cpu = PROCESSOR.format(microcode=1)
        self.compared = 0
        self.blind = ''

    def getDomainCapabilities(self, _emulator, _arch, machine, _kind):
        if machine not in self.machines:
            raise libvirt.libvirtError(f'the machine {machine} is not supported by emulator')
        return '<domainCapabilities/>'

    def getCapabilities(self):
        return self.cpu

    def getVersion(self):
        major, minor, micro = self.version
        return major * 1_000_000 + minor * 1000 + micro

    def getLibVersion(self):
        return 11_003_000

    def compareHypervisorCPU(self, _emulator, _arch, _machine, _kind, _cpu, _flags):
        if self.unfit:
            raise libvirt.libvirtError(self.unfit)
        return libvirt.VIR_CPU_COMPARE_SUPERSET

    def saveImageGetXMLDesc(self, path, _flags):
        if self.blind and os.path.basename(path).startswith(self.blind):
            failure = libvirt.libvirtError('No such file or directory')
            failure.err = (libvirt.VIR_ERR_SYSTEM_ERROR, 0, '', 2, '', '', '', -1, -1)
            raise failure
        return re.sub('machine=.pc[\'"]', "machine='pc-i440fx-10.0'",
                      saveimage.read_header(path).xml)

    def saveImageDefineXML(self, _path, _xml, _flags):
        self.compared += 1
        if self.refusal:
            raise libvirt.libvirtError(self.refusal)


@pytest.fixture
def paper():
    return Paper()


@pytest.fixture
def member(tmp_path):
    """One disk, one NIC, 1 vCPU, 128 MiB, as a snapshot has kept it."""
    return kept(tmp_path)


def kept(folder, **changes):
    (folder / 'domain.xml').write_text(saveimage.archived(define(folder, **changes), 'snap'))
    (folder / 'memory.save').write_bytes(saveimage.header('<domain/>', COOKIE, whole=True))
    (folder / 'vda.qcow2').write_bytes(b'QFI\xfb' + bytes(100))
    return records.RestoreMember(
        spec=records.MemberSpec('00000000-0000-0000-0000-000000000001', 'web'),
        folder=str(folder), facts={
            'machine': 'pc-i440fx-10.0', 'cpu': 'Haswell', 'qemu_version': '10.0.2', 'vcpus': 1,
            'libvirt_version': '11.2.0', 'memory_bytes': 128 << 20,
            'host_cpu': {'vendor': 'AMD', 'model': '25.1.1', 'microcode': '1'},
            'disks': [{'target': 'vda', 'file': 'vda.qcow2', 'format': 'qcow2',
                       'path': f'{folder}/vda.qcow2', 'size_bytes': 1 << 20}],
            'files': [{'name': 'vda.qcow2', 'size_bytes': 4096}]})


def define(folder, *, machine='pc', mode='custom', cpu='Haswell', vcpus=1, memory_mib=128,
           nics=(FIRST,), disks=('vda',), images='', more=''):
    devices = ''.join([*(DISK.format(folder / f'{images or disk}.qcow2', disk) for disk in disks),
                       *(NIC.format(mac) for mac in nics), more])
    return DOMAIN.format(machine=machine, mode=mode, cpu=cpu, vcpus=vcpus,
                         memory_kib=memory_mib << 10, devices=devices)


def judge(member, connection, tmp_path, found=None, drops=False, owned=(), **changes):
    """Each finding about a member; ``found`` None: it is not defined yet."""
    return list(obstacles.of_member(found, member, define(tmp_path, **changes), connection, drops,
                                    owned))


def test_what_has_not_changed_stands_in_no_way(member, paper, tmp_path):
    assert judge(member, paper, tmp_path) == []
    assert paper.compared == 1    # libvirt has the last word


@pytest.mark.parametrize(('changes', 'device', 'cause'), [
    ({'machine': 'pc-q35-10.0'}, 'machine', 'is now pc-q35-10.0'),
    ({'vcpus': 2}, 'vcpus', 'had 1 and has now 2'),
    ({'memory_mib': 256}, 'memory', 'had 128 MiB and has now 256 MiB'),
    ({'nics': ()}, FIRST, 'gone'),
    ({'nics': (FIRST, SECOND)}, SECOND, 'new since the snapshot'),
    ({'disks': ()}, 'vda', 'gone'),
    ({'disks': ('vda', 'vdb')}, 'vdb', 'new since the snapshot'),
    ({'images': 'other'}, 'vda', 'other.qcow2'),
    ({'more': TPM}, 'tpm', 'new since the snapshot'),
    ({'more': "<teleporter model='x'/>"}, 'teleporter', 'new since the snapshot'),
])
def test_each_change_on_purpose_is_named_with_what_it_was(
        member, paper, tmp_path, changes, device, cause):
    (found,) = judge(member, paper, tmp_path, **changes)

    assert found.device == device
    assert cause in found.cause
    assert found.remedy
    assert found.refuses


@pytest.mark.parametrize('changes', [
    {'machine': 'pc-i440fx-9.2'}, {'cpu': 'Skylake-Client'}, {'mode': 'host-passthrough'},
    {'more': "<video><model type='virtio'/></video>"}, {'nics': (FIRST.upper(),)},
], ids=str)
def test_hardware_that_settings_changed_is_the_cuts_again(member, paper, tmp_path, changes):
    assert judge(member, paper, tmp_path, **changes) == []


def test_all_changes_are_named_at_once(member, paper, tmp_path):
    found = judge(member, paper, tmp_path, disks=(), vcpus=2, nics=(SECOND,))

    assert [each.device for each in found] == ['vda', 'vcpus', FIRST, SECOND]
    assert paper.compared == 0    # libvirt would tell the same, and less clearly


@pytest.mark.parametrize(('version', 'refused'), [
    ('10.0.1', True), ('9.2.0', True), ('10.0.2', False), ('10.1.0', False)])
def test_an_older_qemu_than_took_it_is_named(member, tmp_path, version, refused):
    found = judge(member, Paper(version), tmp_path)

    assert [each.device for each in found] == ['host'] * refused
    assert all(f'QEMU 10.0.2 took it, and here is {version}' in each.cause for each in found)


def test_a_machine_that_this_host_no_longer_has_is_named(member, paper, tmp_path):
    paper.machines = ('pc-i440fx-11.0',)

    (found,) = judge(member, paper, tmp_path)

    assert found.device == 'machine'
    assert 'pc-i440fx-10.0 is not supported' in found.cause


def test_a_host_without_the_cpu_is_named_with_what_it_lacks(member, paper, tmp_path):
    paper.unfit = 'Host CPU does not provide required features: x2apic'

    (found,) = judge(member, paper, tmp_path)

    assert found.device == 'cpu'
    assert 'x2apic' in found.cause


def test_the_host_it_ran_on_has_its_cpu_whatever_libvirt_thinks(member, paper, tmp_path):
    paper.unfit = 'Host CPU does not provide required features: hypervisor'
    member.facts['libvirt_version'] = '11.3.0'

    assert judge(member, paper, tmp_path) == []


@pytest.mark.parametrize(('microcode', 'refused'), [(1, False), (2, True)])
def test_a_cpu_that_is_the_hosts_wakes_on_that_processor_alone(
        paper, tmp_path, microcode, refused):
    passed_through = kept(tmp_path, mode='host-passthrough')
    paper.cpu = PROCESSOR.format(microcode=microcode)

    found = judge(passed_through, paper, tmp_path, mode='host-passthrough')

    assert [each.device for each in found] == ['cpu'] * refused
    assert all('microcode of the processor was 1 and is 2 here' in each.cause for each in found)


def test_a_snapshot_of_old_without_cookie_host_or_paths_is_judged_by_what_it_has(
        member, paper, tmp_path):
    (tmp_path / 'memory.save').write_bytes(saveimage.header('<domain/>', whole=True))
    del member.facts['host_cpu'], member.facts['disks'][0]['path']

    assert judge(member, paper, tmp_path) == []


@pytest.mark.parametrize('vcpus', [1, 2])
def test_nothing_is_left_beside_the_disks(member, paper, tmp_path, vcpus):
    before = sorted(tmp_path.iterdir())

    judge(member, paper, tmp_path, vcpus=vcpus)

    assert sorted(tmp_path.iterdir()) == before


def test_what_a_check_left_that_was_killed_is_swept(member, paper, tmp_path):
    left, live = (tmp_path / f'.hotsnap-probe-{name}' for name in ('left', 'live'))
    left.touch()
    os.utime(left, (0, 0))
    live.touch()

    judge(member, paper, tmp_path)

    assert (left.exists(), live.exists()) == (False, True)


def test_what_libvirt_alone_sees_is_told_in_its_words(member, paper, tmp_path):
    paper.refusal = 'Target device virtio options don\'t match the source'

    (found,) = judge(member, paper, tmp_path)

    assert found.device == 'definition'
    assert 'virtio options' in found.cause


def test_an_image_in_the_store_that_reads_another_file_is_named(member, paper, tmp_path):
    path = tmp_path / 'vda.qcow2'
    path.write_bytes(b'QFI\xfb' + bytes(7) + b'\1' + bytes(92))

    (found,) = judge(member, paper, tmp_path)

    assert (found.device, found.refuses) == ('vda', True)
    assert 'what the store keeps of it has a backing file' in found.cause


# --- what is in the disks of today and goes with them ---


class Defined:
    """A domain that is off, with these checkpoints of libvirt's."""

    def __init__(self, *checkpoints):
        self._checkpoints = checkpoints

    def persistent(self):
        return True

    def has_saved_state(self):
        return False

    def checkpoints(self):
        return self._checkpoints


def own(folder, *words):
    """Today's disk, with what a command of qemu-img's puts into it."""
    path = folder / 'own' / 'vda.qcow2'
    path.parent.mkdir()
    for command in (('create', '-q', '-f', 'qcow2', path, '1M'), (*words, path)):
        subprocess.run(['qemu-img', *command, *(('monday',) if command[0] == 'bitmap' else ())],
                       check=True)
    return path.parent


@pytest.mark.parametrize(('words', 'cause'), [
    (('snapshot', '-c', 'monday'), 'internal snapshots (monday)'),
    (('bitmap', '--add'), 'dirty bitmaps (monday)')])
def test_what_is_in_the_disk_of_today_is_dropped_only_if_that_is_meant(
        member, paper, tmp_path, words, cause):
    today = own(tmp_path, *words)
    member.facts['disks'][0]['path'] = str(today / 'vda.qcow2')

    (refused,) = judge(member, paper, today)

    assert (refused.device, refused.rules_out) == ('vda', ('restore',))
    assert cause in refused.cause
    assert '--drop-internal-snapshots' in refused.remedy
    assert judge(member, paper, today, drops=True) == []


def test_checkpoints_whose_bitmaps_only_qemu_has_are_dropped_only_if_that_is_meant(
        member, paper, tmp_path):
    (refused,) = judge(member, paper, tmp_path, Defined('tuesday'))

    assert (refused.device, refused.rules_out) == ('guest', ('restore',))
    assert 'checkpoints of it (tuesday)' in refused.cause
    assert '--drop-internal-snapshots' in refused.remedy
    assert judge(member, paper, tmp_path, Defined('tuesday'), drops=True) == []
    assert judge(member, paper, tmp_path, Defined()) == []


def test_a_file_that_is_a_volume_of_cinders_by_now_is_not_replaced(member, paper, tmp_path):
    owned = (definitions.Volume('v-1', 'nfs', serial='v-1', target='vda'),)

    (refused,) = judge(member, paper, tmp_path, owned=owned)

    assert (refused.device, refused.rules_out) == ('vda', ('restore',))
    assert 'nfs volume v-1 of Cinder' in refused.cause


@pytest.mark.parametrize(('blind', 'device', 'cause'), [
    ('memory.save', 'memory', 'libvirt cannot read {}/memory.save: No such file'),
    ('.hotsnap-probe', 'vda', 'libvirt does not see what is in {}: No such file')])
def test_what_libvirt_cannot_read_is_named_before_anything_is_stopped(
        member, paper, tmp_path, blind, device, cause):
    paper.blind = blind

    (refused,) = judge(member, paper, tmp_path)

    assert (refused.device, refused.rules_out) == (device, ('restore',))
    assert cause.format(tmp_path) in refused.cause
    assert 'same folder' in refused.remedy


# --- room for all of them ---

GIB = 1 << 30


@pytest.fixture
def free(monkeypatch):
    """File systems with so many bytes free."""
    def free(count):
        monkeypatch.setattr(room.os, 'statvfs', lambda _folder: types.SimpleNamespace(
            f_bavail=count // 4096, f_frsize=4096))
    return free


def placed(folder, name, disk_bytes, memory_bytes=0):
    """A member whose one disk goes to ``folder``, with its definition of today."""
    files = [{'name': 'vda.qcow2', 'size_bytes': disk_bytes}]
    if memory_bytes:
        files.append({'name': 'memory.save.zst', 'size_bytes': 1})
    return records.RestoreMember(records.MemberSpec(name, name), '', {
        'disks': [{'target': 'vda', 'file': 'vda.qcow2'}], 'files': files,
        'memory_bytes': memory_bytes}), define(folder)


@pytest.mark.parametrize(('free_bytes', 'reserve_bytes', 'short'), [
    (3 * GIB, 0, False), (3 * GIB - 4096, 0, True), (4 * GIB, GIB, False),
    (4 * GIB - 4096, GIB, True)])
def test_room_for_all_members_together_is_asked_for_with_what_is_to_stay_free(
        tmp_path, free, free_bytes, reserve_bytes, short):
    free(free_bytes)

    found = list(room.beside_disks(
        [placed(tmp_path, 'a', GIB), placed(tmp_path, 'b', 2 * GIB)], reserve_bytes))

    assert [(str(each.member), each.rules_out) for each in found] == [
        ('the group', ('restore',))] * short


def test_memory_that_has_to_be_unpacked_takes_room_and_its_one_member_is_named(tmp_path, free):
    free(2 * GIB)

    (found,) = room.beside_disks([placed(tmp_path, 'a', GIB, memory_bytes=2 * GIB)], 0)

    assert str(found.member) == 'a'
    assert '3072 MiB are needed' in found.cause
    assert list(room.beside_disks([placed(tmp_path, 'a', GIB)], 0)) == []
