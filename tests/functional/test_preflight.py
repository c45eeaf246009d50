# SPDX-License-Identifier: Apache-2.0
"""What cannot be snapshotted is named beforehand: member, device, cause, remedy.

On paper for what cannot run here, on real guests for what can.
"""

import subprocess

import libvirt
import pytest

from hotsnap_nova.virt import guest, records
from hotsnap_nova.virt.checks import preflight
from tests.functional.witness import Witness, qmp, trace
from tests.lab import GuestSpec, Lab

PAPER = '''<domain type='{kind}'>
  <name>paper</name><memory unit='MiB'>128</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  {more}
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/><source file='/x.qcow2'/><target dev='vda'/>
      <alias name='virtio-disk0'/>
    </disk>
    {devices}
  </devices>
</domain>'''


def disk(kind='file', source="file='/y'", form='raw', more='', device='disk'):
    return f"""<disk type='{kind}' device='{device}'><driver name='qemu' type='{form}'/>
        <source {source}/><target dev='vdb'/>{more}</disk>"""


def nic(kind='bridge', driver="name='qemu'"):
    return f"""<interface type='{kind}'><source bridge='br0'/><model type='virtio'/>
        <driver {driver}/><target dev='tap7'/><alias name='net0'/></interface>"""


class PaperMonitor:
    """QEMU's answers of a guest that carries nothing and does nothing."""

    def __init__(self, jobs=(), migration='none', refusal='', forbidden=()):
        self._jobs = jobs
        self._migration = migration
        self._refusal = refusal
        self._forbidden = forbidden

    def node_names(self):
        return {'libvirt-1-format'}

    def background_snapshot_refusal(self):
        return self._refusal

    def forbids_driver(self, driver, _node):
        return driver in self._forbidden

    def jobs(self):
        return {job: {} for job in self._jobs}

    def objects(self):
        return []

    def background_snapshot(self):
        return False

    def bandwidth_claim(self):
        return None

    def migration(self):
        return {'status': self._migration}

    def block_devices(self):
        return [{'qdev': '/machine/peripheral/virtio-disk0/virtio-backend',
                 'inserted': {'image': {'virtual-size': 0}}}]


class PaperGuest:
    """A running guest that is nothing but its XML."""

    uuid = '00000000-0000-0000-0000-000000000001'
    spec = records.MemberSpec(uuid, 'paper')

    def __init__(self, devices='', more='', kind='qemu', state='running', **monitor):
        self._xml = PAPER.format(devices=devices, more=more, kind=kind)
        self._state = state
        self.monitor = PaperMonitor(**monitor)

    def state(self):
        return guest.State(self._state)

    def active(self):
        return True

    def full_xml(self):
        return self._xml

    def xml(self, *, live=True):
        return self._xml

    def libvirt_job(self):
        return False


class AnyMachine:
    """A libvirt that runs every machine type."""

    def getDomainCapabilities(self, *_arguments):
        return ''


def judge(*guests, free_bytes=None):
    return preflight.check(list(guests), 'auto', free_bytes, AnyMachine())


def test_a_plain_guest_is_accepted_with_both_gates():
    verdict = judge(PaperGuest(nic()))

    assert verdict.findings == ()
    assert verdict.gates == ('hold', 'barrier')


@pytest.mark.parametrize(('devices', 'device', 'cause'), [
    (disk('network', "protocol='rbd' name='p/i'"), 'vdb', 'network disk'),
    (disk('block', "dev='/dev/vg/lv'"), 'vdb', 'lvm'),
    (disk(device='lun', kind='block', source="dev='/dev/sdb'"), 'vdb', 'SCSI'),
    (disk(more='<shareable/>'), 'vdb', 'shared'),
    (disk(more="<encryption format='luks'/>"), 'vdb', 'encrypted'),
    (disk(form='vmdk'), 'vdb', 'vmdk'),
    (disk(more='<transient/>'), 'vdb', 'transient'),
    (disk(device='floppy'), 'vdb', 'writable floppy'),
    (nic('hostdev'), 'tap7', 'SR-IOV'),
    (nic('vhostuser'), 'tap7', 'vhost-user'),
    (nic('vdpa'), 'tap7', 'vdpa'),
    ("<hostdev mode='subsystem' type='pci'><alias name='hostdev0'/></hostdev>", 'hostdev0',
     'VFIO'),
    ("<vsock model='virtio'><cid auto='yes'/></vsock>", 'vsock', 'outside their NICs'),
    ("<shmem name='pool'><model type='ivshmem-plain'/></shmem>", 'pool', 'shared memory'),
    ("<serial type='tcp'><source host='h' service='1'/></serial>", 'serial', 'tcp'),
    ("<serial type='tcp'><source mode='connect' host='h' service='1'/><alias name='serial0'/>"
     "</serial><console type='tcp'><source mode='connect' host='h' service='1'/>"
     "<alias name='serial0'/></console>", 'serial0', 'tcp'),
    ("<channel type='udp'><source mode='bind' host='h' service='1'/></channel>", 'channel', 'udp'),
    ("<filesystem><driver type='virtiofs'/><source dir='/x'/></filesystem>", 'filesystem',
     'virtiofs'),
    ("<filesystem><source dir='/x'/></filesystem>", 'filesystem', '9p'),
    ("<tpm model='tpm-crb'><backend type='emulator'/></tpm>", 'tpm', 'vTPM'),
    ("<memory model='nvdimm'/>", 'nvdimm0', 'outside RAM'),
])
def test_a_device_that_rules_the_snapshot_out_is_named(devices, device, cause):
    findings = judge(PaperGuest(devices)).findings

    assert [(found.member, found.device) for found in findings] == [(PaperGuest.spec, device)]
    assert cause in findings[0].cause
    assert findings[0].remedy
    assert findings[0].refuses


@pytest.mark.parametrize(('more', 'device', 'cause'), [
    ('<launchSecurity type="sev"/>', 'memory', 'encrypted memory'),
    ("<qemu:commandline xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'/>", 'guest',
     'commandline'),
])
def test_what_is_beside_the_devices_is_named_too(more, device, cause):
    findings = judge(PaperGuest(more=more)).findings

    assert [found.device for found in findings] == [device]
    assert cause in findings[0].cause
    assert findings[0].refuses


def test_vhost_and_multiqueue_rule_hold_out_alone_and_both_are_named():
    verdict = judge(PaperGuest(nic(driver="name='vhost' queues='4'")))

    assert len(verdict.findings) == 2
    assert {found.rules_out for found in verdict.findings} == {('hold',)}
    assert any('vhost' in found.cause for found in verdict.findings)
    assert any('multiqueue' in found.cause for found in verdict.findings)
    assert verdict.gates == ('barrier',)
    assert verdict.possible


@pytest.mark.parametrize(('changes', 'cause'), [
    ({'state': 'paused'}, 'not running'),
    ({'jobs': ('commit-vda',)}, 'commit-vda'),
    ({'migration': 'active'}, 'migration'),
    ({'forbidden': ('snapshot-access',)}, 'block driver snapshot-access'),
])
def test_a_guest_that_cannot_be_worked_on_now_is_named(changes, cause):
    findings = judge(PaperGuest(**changes)).findings

    assert [cause in found.cause for found in findings] == [True]
    assert findings[0].refuses


def test_too_little_space_for_the_group_together_is_told_in_numbers():
    enough_for_one = 200 << 20

    alone = judge(PaperGuest(), free_bytes=enough_for_one)
    both = judge(PaperGuest(), PaperGuest(), free_bytes=enough_for_one)

    assert alone.possible
    assert [found.device for found in both.findings] == ['store']
    assert '200 MiB' in both.findings[0].cause


def test_every_obstacle_is_told_at_once():
    verdict = judge(PaperGuest(disk(more='<shareable/>')
                               + "<tpm model='tpm-crb'><backend type='emulator'/></tpm>"))

    assert {found.device for found in verdict.findings} == {'vdb', 'tpm'}


# -- real guests ----------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def odd(request):
    """Two real guests: one with much that stands in the way, one with a config drive."""
    failed_before = request.session.testsfailed
    with Lab() as lab:
        medium = lab.folder / 'config.iso'
        medium.write_bytes(b'CONFIG' * 4096)
        channel = ('<serial type="udp"><source mode="connect" host="127.0.0.1" service="9"/>'
                   '</serial>')
        lab.odd, lab.plain = (lab.start([spec], wait=True)[0] for spec in (
            GuestSpec(nic_driver="name='qemu' queues='2'", vcpus=2, devices_xml=f'''
                <filesystem type='mount'><source dir='{lab.folder}'/><target dir='x'/>
                </filesystem>{channel}'''),
            GuestSpec(devices_xml=f'''<disk type='file' device='cdrom'>
                <driver name='qemu' type='raw'/><source file='{medium}'/>
                <target dev='sda' bus='scsi'/><readonly/></disk>''')))
        lab.medium = medium
        yield lab
        lab.keep_files = request.session.testsfailed > failed_before


@pytest.fixture
def user(odd, tmp_path):
    from tests.functional.command import Hotsnap
    return Hotsnap(odd.uri, tmp_path)


def test_the_verdict_on_a_real_guest_comes_before_anything_is_touched(odd, user):
    before = trace(odd.odd)

    checked = user.run('check', '--domain', odd.odd.domain_name, '-f', 'json')
    refused = user.create('odd', [odd.odd])

    assert checked.status == 1
    findings = ' '.join(row['Finding'] for row in checked.json)
    for word in ('9p', 'multiqueue', 'udp'):
        assert word in findings
    assert all(row['Remedy'] for row in checked.json)
    assert refused.status == 1
    assert refused.errors.count('\n') == 1
    assert trace(odd.odd) == before
    assert odd.odd.troubles() == []


def test_a_block_job_in_flight_refuses_a_real_guest(odd, user, tmp_path):
    target = tmp_path / 'copy.qcow2'
    odd.plain.domain.blockCopy('vda', f'''<disk type='file'><source file='{target}'/>
        <driver type='qcow2'/></disk>''', flags=libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB)
    try:
        outcome = user.create('busy', [odd.plain])

        assert outcome.status == 1
        assert 'in flight' in outcome.errors
    finally:
        odd.plain.domain.blockJobAbort('vda')


def test_a_config_drive_is_accepted_and_a_changed_one_refuses_the_restore(odd, user):
    witness = Witness([odd.plain])
    pid = odd.plain.pid

    made = user.create('with-medium', [odd.plain], '-f', 'json')
    odd.medium.write_bytes(b'OTHER!' * 4096)
    refused = user.run('snapshot', 'restore', 'with-medium')

    assert made.status == 0, made.errors
    assert refused.status == 1
    assert refused.errors.count('\n') == 1
    assert 'not the medium it was' in refused.errors
    assert odd.plain.pid == pid
    assert qmp(odd.plain, 'query-status')['running']
    assert witness.left() == []
    digest = subprocess.run(['grep', '-c', 'blake3', user.store / made.json['id']
                             / 'manifest.json'], capture_output=True, text=True, check=False)
    assert digest.returncode == 0
