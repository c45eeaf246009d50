# SPDX-License-Identifier: Apache-2.0
"""What cannot be snapshotted is named beforehand: member, device, cause, remedy.

On paper for what cannot run here, on real guests for what can.
"""

import os
import socket
import stat
import subprocess

import libvirt
import pytest

from hotsnap_nova.virt import definitions, guest, records
from hotsnap_nova.virt.checks import memory, preflight
from hotsnap_nova.virt.gates import bpf, kernel, reach
from hotsnap_nova.virt.memory import saveimage
from tests.functional import wires
from tests.functional.witness import Witness, qmp, trace
from tests.lab import GuestSpec, Lab

PAPER = '''<domain type='{kind}'>
  <name>paper</name><memory unit='MiB'>128</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  {more}
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/><source file='/tmp/x.qcow2'/><target dev='vda'/>
      <alias name='virtio-disk0'/>
    </disk>
    {devices}
  </devices>
</domain>'''


def disk(kind='file', source="file='/tmp/y'", form='raw', more='', device='disk'):
    return f"""<disk type='{kind}' device='{device}'><driver name='qemu' type='{form}'/>
        <source {source}/><target dev='vdb'/>{more}</disk>"""


def nic(kind='bridge', driver="name='qemu'", mac='52:54:00:00:00:07'):
    return f"""<interface type='{kind}'><mac address='{mac}'/><source bridge='br0'/>
        <model type='virtio'/><driver {driver}/><target dev='tap7'/><alias name='net0'/>
        </interface>"""


class PaperMonitor:
    """QEMU's answers of a guest that carries nothing and does nothing."""

    def __init__(self, jobs=(), migration='none', refusal='', forbidden=(), image=None,
                 bitmaps=()):
        self._jobs = jobs
        self._migration = migration
        self._refusal = refusal
        self._forbidden = forbidden
        self._image = image or {}
        self._bitmaps = bitmaps

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
                 'inserted': {'image': {'virtual-size': 0} | self._image,
                              'dirty-bitmaps': self._bitmaps}}]


class PaperGuest:
    """A running guest that is nothing but its XML."""

    uuid = '00000000-0000-0000-0000-000000000001'
    spec = records.MemberSpec(uuid, 'paper')

    def __init__(self, devices='', more='', kind='qemu', state='running', persistent=True,
                 defined=None, **monitor):
        self._xml = PAPER.format(devices=devices, more=more, kind=kind)
        self._defined = defined or self._xml
        self._persistent = persistent
        self._state = state
        self.monitor = PaperMonitor(**monitor)

    def state(self):
        return guest.State(self._state)

    def active(self):
        return True

    def full_xml(self):
        return self._xml

    def xml(self, *, live=True):
        return self._xml if live else self._defined

    def persistent(self):
        return self._persistent

    def libvirt_job(self):
        return False

    def frozen(self):
        return True


class AnyMachine:
    """A libvirt that runs every machine type.

    :param fails: how it fails on files in some folders, by folder
    """

    def __init__(self, uri='qemu:///system', fails=None):
        self._uri = uri
        self._fails = fails or {}

    def getURI(self):
        return self._uri

    def getDomainCapabilities(self, *_arguments):
        return ''

    def saveImageGetXMLDesc(self, path, _flags):
        if code := self._fails.get(os.path.dirname(path)):
            failure = libvirt.libvirtError('Failed to open file')
            failure.err = (code, 0, 'Failed to open file', 2, '', '', '', -1, -1)
            raise failure
        return saveimage.read_header(path).xml


def judge(*guests, free_bytes=None, uri='qemu:///system', reserve_bytes=0, owner=None, store=None,
          fails=None):
    return preflight.check(list(guests), 'auto', free_bytes, AnyMachine(uri, fails),
                           reserve_bytes, owner, store)


def test_a_plain_guest_is_accepted_with_both_gates():
    verdict = judge(PaperGuest(nic()))

    assert verdict.findings == ()
    assert verdict.gates == ('hold', 'barrier')


@pytest.mark.parametrize(('devices', 'device', 'cause'), [
    (disk('network', "protocol='rbd' name='p/i'"), 'vdb', 'network disk'),
    (disk('block', "dev='/dev/vg/lv'"), 'vdb', 'lvm'),
    (disk('volume', "pool='stopped' volume='v'"), 'vdb', 'does not tell a file of its storage'),
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


def test_vhost_and_multiqueue_rule_nothing_out_where_the_host_kernel_keeps_packets_back():
    with wires.own_network():
        descriptor = wires.tap('tap7')
        verdict = judge(PaperGuest(nic(driver="name='vhost' queues='4'")))
        os.close(descriptor)

    assert verdict.findings == ()
    assert verdict.gates == ('hold', 'barrier')


def test_what_the_host_kernel_lacks_for_it_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setattr(reach, 'missing',
                        lambda device, _process: (f'no module for {device}', 'load it'))

    (found,) = judge(PaperGuest(nic(driver="name='vhost'"))).findings

    assert 'no module for tap7' in found.cause
    assert found.remedy.startswith('load it; or ')
    assert found.rules_out == ('hold',)


@pytest.mark.parametrize('second', ['user', 'mcast', 'udp'])
def test_beside_such_a_nic_one_without_a_device_rules_hold_out(second):
    """The host kernel would have to hold for both."""
    beside = f"""<interface type='{second}'><mac address='52:54:00:00:00:08'/>
        <alias name='net1'/></interface>"""
    with wires.own_network():
        descriptor = wires.tap('tap7')
        verdict = judge(PaperGuest(nic(driver="name='vhost'") + beside))
        os.close(descriptor)

    (found,) = verdict.findings
    assert (found.device, found.rules_out) == ('net1', ('hold',))
    assert 'another NIC' in found.cause
    assert 'no device on this host' in found.cause
    assert verdict.gates == ('barrier',)


def test_a_nic_without_a_device_is_no_matter_where_qemu_holds():
    beside = "<interface type='user'><mac address='52:54:00:00:00:08'/></interface>"

    assert judge(PaperGuest(nic() + beside)).findings == ()


FIRST = ('prio', '1', 'protocol', 'all', 'u32', 'match', 'u32', '0', '0', 'classid', '1:1')


@pytest.mark.parametrize(('wire', 'kind', 'theirs', 'cause'), [
    ('tap', 'bridge', (('qdisc', 'add', 'dev', wires.GUEST, 'clsact'),
                       ('filter', 'add', 'dev', wires.GUEST, 'ingress', *FIRST)),
     'u32 filter of priority 1'),
    ('macvtap', 'direct', (('qdisc', 'add', 'dev', wires.GUEST, 'ingress'),), 'ingress qdisc'),
])
def test_what_others_have_at_the_device_rules_hold_out_as_it_would_when_the_gate_is_made(
        wire, kind, theirs, cause):
    with wires.own_network():
        made = wires.KINDS[wire]()
        for words in theirs:
            wires.run('tc', *words)
        verdict = judge(PaperGuest(nic(kind, "name='vhost'").replace('tap7', wires.GUEST)))
        with pytest.raises(bpf.GateUnavailable, match=cause):
            kernel.KernelGate('test', (made.nic.name,))
        made.close()

    (found,) = verdict.findings
    assert cause in found.cause
    assert found.rules_out == ('hold',)
    assert verdict.gates == ('barrier',)


def test_a_program_of_others_that_runs_before_all_filters_rules_hold_out():
    with wires.own_network():
        descriptor = wires.tap('tap7')
        theirs = bpf.Loaded(kernel.object_path())
        # A tap's ingress, by tcx (46).
        assert bpf.library().bpf_prog_attach(
            theirs.program('put_back'), socket.if_nametoindex('tap7'), 46, 0) == 0
        verdict = judge(PaperGuest(nic(driver="name='vhost'")))
        theirs.close()
        os.close(descriptor)

    (found,) = verdict.findings
    assert 'tcx' in found.cause
    assert verdict.gates == ('barrier',)


def test_vhost_and_multiqueue_rule_hold_out_alone_and_both_are_named():
    """Where the host has no such device, as here."""
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


@pytest.mark.parametrize(('reserve_mib', 'possible'), [(0, True), (72, True), (73, False)])
def test_what_is_to_stay_free_in_the_store_is_counted_too(reserve_mib, possible):
    """Beside a guest of 128 MiB."""
    verdict = judge(PaperGuest(), free_bytes=200 << 20, reserve_bytes=reserve_mib << 20)

    assert verdict.possible is possible
    assert all(f'{reserve_mib} MiB are to stay free' in each.cause for each in verdict.findings)


NIC = """<interface type='bridge'><mac address='52:54:00:00:00:0{}'/><source bridge='b'/>
    <driver name='qemu'/></interface>"""


RNG = "<rng model='virtio'><backend model='random'>/dev/hwrng0</backend></rng>"


def paper(more='', devices=''):
    return PAPER.format(kind='qemu', more=more, devices=devices)


@pytest.mark.parametrize(('changes', 'device', 'cause'), [
    ({'persistent': False}, 'guest', 'transient'),
    ({'devices': disk(form='qcow2'), 'defined': paper()}, 'vdb', 'not in its definition'),
    ({'defined': paper(devices=disk(form='qcow2'))}, 'vdb', 'runs without'),
    ({'devices': NIC.format(1), 'defined': paper()}, '52:54:00:00:00:01', 'not in its definition'),
    ({'defined': paper().replace('<vcpu>1', "<vcpu current='2'>4")}, 'vcpus',
     'runs with 1 and is defined with 2'),
    ({'defined': paper().replace('128<', '256<')}, 'memory',
     'runs with 128 MiB and is defined with 256'),
    ({'image': {'format-specific': {'data': {'data-file': '/d.raw'}}}}, 'vda', 'another file, /d'),
    ({'devices': RNG, 'defined': paper()}, 'rng',
     'as it is defined, it is gone, and /dev/hwrng0 was'),
    ({'devices': disk(more='<serial>then</serial>'),
      'defined': paper(devices=disk(more='<serial>now</serial>'))}, 'vdb',
     'it had then and has now now'),
    ({'devices': NIC.format(1), 'defined': paper(devices=NIC.format(1).replace('bridge', 'user'))},
     '52:54:00:00:00:01', 'now of type user'),
])
def test_what_would_stand_in_the_way_of_a_restore_is_told_before_there_is_a_snapshot(
        changes, device, cause):
    (found,) = judge(PaperGuest(**changes)).findings

    assert (found.device, found.rules_out) == (device, ('restore',))
    assert cause in found.cause
    assert found.remedy


@pytest.mark.parametrize(('image', 'bitmaps', 'cause'), [
    ({'snapshots': [{'name': 'monday'}]}, (), 'internal snapshots (monday)'),
    ({'format-specific': {'data': {'bitmaps': [{'name': 'backup-1'}]}}}, (), 'bitmaps (backup-1)'),
    ({}, [{'name': 'backup-2', 'persistent': True}], 'bitmaps (backup-2)'),
    ({'snapshots': [{'name': str(number)} for number in range(300)]}, (),
     '(0, 1, 2, 3, 4 and 295 more)'),
])
def test_what_a_restore_would_drop_rules_out_one_that_is_not_told_to(image, bitmaps, cause):
    (found,) = judge(PaperGuest(image=image, bitmaps=bitmaps)).findings

    assert (found.device, found.rules_out) == ('vda', ('restore',))
    assert cause in found.cause
    assert '--drop-internal-snapshots' in found.remedy


def test_a_bitmap_that_qemu_would_forget_anyway_is_nobodys():
    assert judge(PaperGuest(bitmaps=[{'name': 'passing', 'persistent': False}])).findings == ()


def test_an_encrypted_base_is_not_stored_in_the_clear():
    (found,) = judge(PaperGuest(image={'backing-image': {
        'virtual-size': 0, 'filename': '/base', 'encrypted': True}})).findings

    assert (found.device, found.rules_out) == ('vda', ('snapshot',))
    assert '/base below it is encrypted' in found.cause


def test_a_block_device_that_is_called_a_file_is_told(tmp_path, monkeypatch):
    path = tmp_path / 'volume'
    os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(7, 250))

    (found,) = judge(PaperGuest(disk(source=f"file='{path}'"))).findings

    assert (found.device, found.rules_out) == ('vdb', ('restore',))
    assert 'is a block device' in found.cause


@pytest.mark.parametrize(('uri', 'far'), [
    ('qemu:///system', False), ('qemu+unix:///system?socket=/x', False),
    ('qemu+tcp://127.0.0.1/system', True), ('qemu+ssh://host/system', True)])
def test_a_libvirt_that_is_not_reached_over_its_own_socket_is_told(uri, far):
    found = judge(PaperGuest(), uri=uri).findings

    assert [(each.device, each.rules_out) for each in found] == [('host', ('snapshot',))] * far
    assert all('local_uri' in each.remedy for each in found)


@pytest.mark.parametrize(('state', 'is_asked'), [('connected', True), ('disconnected', False)])
def test_frozen_file_systems_rule_the_snapshot_out_where_an_agent_can_be_asked(state, is_asked):
    channel = f"""<channel type='unix'><source mode='bind' path='/c'/>
        <target type='virtio' name='org.qemu.guest_agent.0' state='{state}'/></channel>"""

    found = judge(PaperGuest(channel)).findings

    assert [(each.device, each.rules_out) for each in found] == [
        ('guest', ('snapshot',))] * is_asked
    assert all('frozen' in each.cause and 'domfsthaw' in each.remedy for each in found)


@pytest.mark.parametrize(('code', 'is_found'), [
    (libvirt.VIR_ERR_SYSTEM_ERROR, True), (libvirt.VIR_ERR_OPERATION_FAILED, True),
    (libvirt.VIR_ERR_XML_ERROR, False)])
def test_a_folder_that_libvirt_does_not_see_is_told_once(tmp_path, code, is_found):
    """Whatever it makes of what it has read."""
    folder = tmp_path / 'disks'
    folder.mkdir()
    disks = ''.join(disk(source=f"file='{folder}/{name}'").replace('vdb', name)
                    for name in ('vdb', 'vdc'))

    found = judge(PaperGuest(disks), fails={str(folder): code}).findings

    assert [(each.device, each.rules_out) for each in found] == [('vdb', ('restore',))] * is_found
    assert all('Failed to open' in each.cause for each in found)
    assert os.listdir(folder) == []


def test_a_folder_that_libvirt_alone_sees_is_told(tmp_path):
    (found,) = judge(PaperGuest(disk(source=f"file='{tmp_path}/away/image'"))).findings

    assert (found.device, found.rules_out) == ('vdb', ('restore',))
    assert f'no folder {tmp_path}/away here' in found.cause


def test_a_store_that_libvirt_does_not_see_is_told_of_the_group(tmp_path):
    fails = {str(tmp_path): libvirt.VIR_ERR_SYSTEM_ERROR}

    assert judge(PaperGuest(), store=str(tmp_path)).findings == ()
    (found,) = judge(PaperGuest(), store=str(tmp_path), fails=fails).findings

    assert (str(found.member), found.device, found.rules_out) == (
        'the group', 'store', ('restore',))
    assert os.listdir(tmp_path) == []


class Owner(definitions.Definitions):
    """Who attached one volume, told of the guest that is asked about."""

    def __init__(self, serial='', target='vdz'):
        self._volume = definitions.Volume('v-1', 'nfs', serial, target)

    def volumes(self, member_id):
        return (self._volume,) if member_id == PaperGuest.uuid else ()


@pytest.mark.parametrize(('serial', 'owner'), [
    ('v-1', Owner('v-1')),             # its name has moved since
    ('', Owner('v-1', 'vdb'))])
def test_a_volume_of_cinders_that_looks_like_a_file_rules_the_snapshot_out(serial, owner):
    volume = disk(more=f'<serial>{serial}</serial>' if serial else '')

    (found,) = judge(PaperGuest(volume), owner=owner).findings

    assert (found.device, found.rules_out) == ('vdb', ('snapshot',))
    assert 'nfs volume v-1 of Cinder' in found.cause
    assert 'detach' in found.remedy


@pytest.mark.parametrize('owner', [Owner('v-1'), Owner('v-2', 'vdb'), None])
def test_a_disk_that_nobody_attached_as_a_volume_is_the_guests_own(owner):
    assert judge(PaperGuest(disk(more='<serial>own</serial>')), owner=owner).findings == ()


MEMFD = "<memoryBacking><source type='memfd'/></memoryBacking>"


@pytest.fixture
def host_memory(monkeypatch):
    """A host of such a memory, in MiB, and a QEMU that has so much of its guest's."""
    def give(available, shared=0, swapped=0, own=0):
        monkeypatch.setattr(memory.hugepages, 'process_of', lambda _uuid: 7)
        monkeypatch.setattr(memory, '_table', lambda path: {
            '/proc/meminfo': {'MemAvailable': available << 20},
            '/proc/7/status': {'RssShmem': shared << 20, 'VmSwap': swapped << 20,
                               'RssAnon': own << 20}}[path])
    return give


@pytest.mark.parametrize(('more', 'shared', 'available', 'short'), [
    (MEMFD, 28, 99, True), (MEMFD, 28, 100, False), ('', 0, 1, False),
    ("<memoryBacking><access mode='shared'/></memoryBacking>", 0, 127, True),
    ("<memoryBacking><hugepages/><access mode='shared'/></memoryBacking>", 0, 1, False)])
def test_shared_memory_that_the_host_has_no_room_for_is_told(
        host_memory, more, shared, available, short):
    host_memory(available, shared)

    found = judge(PaperGuest(more=more)).findings

    assert [(each.device, each.rules_out) for each in found] == [('memory', ('snapshot',))] * short


@pytest.mark.parametrize(('mode', 'available', 'short'), [
    ('private', 40, False), ('private', 39, True), ('shared', 99, True)])
def test_what_a_guest_has_written_to_private_memory_does_not_grow(
        host_memory, mode, available, short):
    host_memory(available, shared=28, own=60)

    found = judge(PaperGuest(more="<memoryBacking><source type='memfd'/>"
                                  f"<access mode='{mode}'/></memoryBacking>")).findings

    assert [each.device for each in found] == ['memory'] * short


def test_the_memory_of_a_group_is_counted_together(host_memory):
    host_memory(available=200, shared=28)

    assert judge(PaperGuest(more=MEMFD), PaperGuest(more=MEMFD)).findings == ()

    host_memory(available=199, shared=28)
    assert len(judge(PaperGuest(more=MEMFD), PaperGuest(more=MEMFD)).findings) == 2


@pytest.mark.parametrize(('more', 'swapped', 'cause'), [
    ('', 64, '64 MiB of it are in swap'),
    ("<memoryBacking><hugepages><page size='1' unit='G'/></hugepages></memoryBacking>", 0,
     'pages of 1 GiB'),
    ("<memoryBacking><hugepages><page size='1048576'/></hugepages></memoryBacking>", 0,
     'pages of 1 GiB')])
def test_what_makes_a_pause_long_is_a_warning(host_memory, more, swapped, cause):
    host_memory(available=1000, swapped=swapped)

    (found,) = judge(PaperGuest(more=more)).findings

    assert (found.device, found.rules_out) == ('memory', ())
    assert cause in found.cause


@pytest.mark.parametrize('size', ["size='2' unit='M'", "size='2048' unit='KiB'"])
def test_pages_of_2_mib_are_fine(host_memory, size):
    host_memory(available=1000, swapped=63)

    assert judge(PaperGuest(more=f'<memoryBacking><hugepages><page {size}/></hugepages>'
                                 '</memoryBacking>')).findings == ()


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
