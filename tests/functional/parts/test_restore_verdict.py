# SPDX-License-Identifier: Apache-2.0
"""What changed since a snapshot is named before a restore stops anything: on paper."""

import libvirt
import pytest

from hotsnap_nova.virt import records
from hotsnap_nova.virt.checks import obstacles

NIC = "<interface type='bridge'><mac address='{}'/><source bridge='br0'/></interface>"
DISK = """<disk type='file' device='disk'><driver type='qcow2'/><source file='{}'/>
    <target dev='{}'/></disk>"""
DOMAIN = """<domain type='kvm'>
  <name>web</name><memory unit='MiB'>{memory_mib}</memory><vcpu>{vcpus}</vcpu>
  <os><type arch='x86_64' machine='{machine}'>hvm</type></os>
  <cpu mode='custom'><model>{cpu}</model></cpu>
  <devices>{devices}</devices>
</domain>"""
FIRST, SECOND = 'fa:16:3e:00:00:01', 'fa:16:3e:00:00:02'


class Paper:
    """libvirt's answers where QEMU has this version.

    :ivar refusal: of a definition for a save image; None: it fits
    """

    def __init__(self, version='10.0.2'):
        self.version = [int(part) for part in version.split('.')]
        self.refusal = None
        self.compared = 0

    def getDomainCapabilities(self, _emulator, _arch, machine, _kind):
        versioned = {'pc': 'pc-i440fx-10.0'}.get(machine, machine)
        return f'<domainCapabilities><machine>{versioned}</machine></domainCapabilities>'

    def getVersion(self):
        major, minor, micro = self.version
        return major * 1_000_000 + minor * 1000 + micro

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
    (tmp_path / 'domain.xml').write_text(define(tmp_path))
    return records.RestoreMember(
        spec=records.MemberSpec('00000000-0000-0000-0000-000000000001', 'web'),
        folder=str(tmp_path), facts={
            'machine': 'pc-i440fx-10.0', 'cpu': 'Haswell', 'qemu_version': '10.0.2', 'vcpus': 1,
            'memory_bytes': 128 << 20, 'disks': [{'target': 'vda', 'file': 'vda.qcow2'}],
            'files': [{'name': 'vda.qcow2', 'size_bytes': 4096}]})


def define(folder, *, machine='pc', cpu='Haswell', vcpus=1, memory_mib=128, nics=(FIRST,),
           disks=('vda',), more=''):
    devices = ''.join([*(DISK.format(folder / f'{disk}.qcow2', disk) for disk in disks),
                       *(NIC.format(mac) for mac in nics), more])
    return DOMAIN.format(machine=machine, cpu=cpu, vcpus=vcpus, memory_mib=memory_mib,
                         devices=devices)


def judge(member, connection, tmp_path, **changes):
    """(device, cause, remedy) of each finding about a member that is not defined yet."""
    return list(obstacles.of_member(None, member, define(tmp_path, **changes), connection))


def test_what_has_not_changed_stands_in_no_way(member, paper, tmp_path):
    assert judge(member, paper, tmp_path) == []
    assert paper.compared == 1    # libvirt has the last word


@pytest.mark.parametrize(('changes', 'device', 'cause'), [
    ({'machine': 'pc-i440fx-9.2'}, 'machine', 'was pc-i440fx-10.0 and is now pc-i440fx-9.2'),
    ({'machine': 'pc-q35-10.0'}, 'machine', 'is now pc-q35-10.0'),
    ({'cpu': 'Skylake-Client'}, 'cpu', 'was Haswell and is now Skylake-Client'),
    ({'vcpus': 2}, 'vcpus', 'had 1 and has now 2'),
    ({'memory_mib': 256}, 'memory', 'had 128 MiB and has now 256 MiB'),
    ({'nics': ()}, FIRST, 'gone'),
    ({'nics': (FIRST, SECOND)}, SECOND, 'new since the snapshot'),
    ({'disks': ()}, 'vda', 'gone'),
    ({'disks': ('vda', 'vdb')}, 'vdb', 'new since the snapshot'),
])
def test_each_change_is_named_with_what_it_was(member, paper, tmp_path, changes, device, cause):
    (found,) = judge(member, paper, tmp_path, **changes)

    assert found[0] == device
    assert cause in found[1]
    assert found[2]


def test_all_changes_are_named_at_once(member, paper, tmp_path):
    found = judge(member, paper, tmp_path, cpu='Skylake-Client', vcpus=2, nics=(SECOND,))

    assert [each[0] for each in found] == ['vcpus', 'cpu', FIRST, SECOND]
    assert paper.compared == 0    # libvirt would tell the same, and less clearly


@pytest.mark.parametrize(('version', 'refused'), [
    ('10.0.1', True), ('9.2.0', True), ('10.0.2', False), ('10.1.0', False)])
def test_an_older_qemu_than_took_it_is_named(member, tmp_path, version, refused):
    found = judge(member, Paper(version), tmp_path)

    assert [each[0] for each in found] == ['host'] * refused
    assert all(f'QEMU 10.0.2 took it, and here is {version}' in each[1] for each in found)


def test_what_libvirt_alone_sees_is_told_in_its_words(member, paper, tmp_path):
    paper.refusal = 'Target device virtio options don\'t match the source'

    ((device, cause, _remedy),) = judge(member, paper, tmp_path)

    assert device == 'definition'
    assert 'virtio options' in cause


def test_a_nics_address_in_capitals_is_the_same_nic(member, paper, tmp_path):
    assert judge(member, paper, tmp_path, nics=(FIRST.upper(),)) == []
