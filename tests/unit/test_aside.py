# SPDX-License-Identifier: Apache-2.0
"""A definition for a second QEMU beside a guest's own: the same hardware, and nothing shared."""

import xml.etree.ElementTree as ET

import pytest

from hotsnap_nova.virt.definition import aside

MEMBER = '7c1e0000-0000-0000-0000-000000000001'
DOMAIN = f"""<domain type='kvm' xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'>
<name>instance-1</name><uuid>{MEMBER}</uuid><title>web</title>
<metadata><nova:instance/></metadata>
<memory unit='KiB'>1048576</memory><vcpu placement='static' cpuset='0-3'>2</vcpu>
<cputune><emulatorpin cpuset='1'/></cputune>
<resource><partition>/machine</partition></resource>
<sysinfo type='smbios'><system><entry name='uuid'>{MEMBER}</entry></system></sysinfo>
<os><type arch='x86_64' machine='pc-q35-9.2'>hvm</type><loader>/usr/share/code.fd</loader>
  <nvram template='/usr/share/vars.fd'>/nvram/instance-1</nvram><smbios mode='sysinfo'/></os>
<cpu mode='custom'><model>EPYC</model></cpu>
<devices>
<emulator>/usr/bin/qemu</emulator>
<disk type='file' device='disk'><driver name='qemu' type='raw' cache='none'/>
  <source file='/instances/7c1e/disk'/><target dev='vda' bus='virtio'/></disk>
<disk type='file' device='cdrom'><driver name='qemu' type='raw'/>
  <source file='/instances/7c1e/disk.config'/><target dev='sda' bus='sata'/><readonly/></disk>
<controller type='pci' index='0' model='pcie-root'/>
<interface type='bridge'><mac address='fa:16:3e:00:00:01'/><source bridge='br-int'/>
  <virtualport type='openvswitch'/><target dev='tap1'/><model type='virtio'/>
  <driver name='vhost' queues='2'/><mtu size='1450'/><filterref filter='no-spoofing'/>
  <bandwidth><inbound average='1'/></bandwidth><rom file='/roms/virtio.rom'/></interface>
<interface type='user'><mac address='fa:16:3e:00:00:02'/><backend type='passt'/>
  <portForward proto='tcp'><range start='2022'/></portForward></interface>
<serial type='file'><source path='/instances/7c1e/console.log'/><log file='/log' append='off'/>
  <target type='isa-serial' port='0'/></serial>
<serial type='tcp'><source mode='bind' host='192.0.2.1' service='10001'/><protocol type='raw'/>
  <target type='isa-serial' port='1'/></serial>
<channel type='unix'><source mode='bind' path='/run/agent'/>
  <target type='virtio' name='org.qemu.guest_agent.0'/></channel>
<input type='evdev'><source dev='/dev/input/event1'/></input><input type='tablet' bus='usb'/>
<graphics type='vnc' port='5901' passwd='secret'/>
<audio id='1' type='oss'><input dev='/dev/dsp'/></audio><sound model='ich9'/>
<video><model type='vga' vram='16384'/></video>
<lease><lockspace>a</lockspace><key>b</key><target path='/lease'/></lease>
<rng model='virtio'><backend model='egd' type='tcp'><source mode='connect' host='192.0.2.2'
  service='1'/></backend></rng>
</devices></domain>"""
#: What a guest sees.
HARDWARE = ('memory', 'cpu', 'os/type', 'os/loader', 'os/smbios', 'devices/*/address',
            'devices/controller', 'devices/disk/target', 'devices/interface/mac',
            'devices/interface/model', 'devices/interface/driver', 'devices/interface/mtu',
            'devices/interface/rom', 'devices/serial/target', 'devices/channel/target',
            'devices/video', 'devices/sound', "devices/input[@type='tablet']")
DISKS = {'vda': '/trial/vda'}


def within(xml, path):
    return [ET.canonicalize(ET.tostring(each, encoding='unicode'), strip_text=True)
            for each in ET.fromstring(xml).findall(path)]


@pytest.fixture
def made():
    return aside.of(DOMAIN, MEMBER, DISKS, '/trial/nvram')


@pytest.mark.parametrize('path', HARDWARE)
def test_what_the_guest_sees_is_the_same(made, path):
    assert within(made, path) == within(DOMAIN, path)


@pytest.mark.parametrize('its', [
    '<name>instance-1', f'>{MEMBER}<', 'web', 'nova', 'cpuset', '/machine', '/nvram/instance-1',
    'vars.fd', '/instances/7c1e/disk"', 'br-int', 'tap1', 'openvswitch', 'no-spoofing',
    'bandwidth', 'passt', '2022', 'console.log', '/log', '10001', '/run/agent', '/dev/input',
    '5901', 'secret', '/dev/dsp', '/lease', '192.0.2.2'])
def test_nothing_of_its_own_is_shared(made, its):
    def plain(text):
        return text.replace("'", '"')
    assert plain(its) in plain(DOMAIN)
    assert plain(its) not in plain(made)


def test_it_has_a_name_and_an_id_that_its_members_tell(made):
    assert within(made, 'name') == [f'<name>{aside.name_of(MEMBER)}</name>']
    assert within(made, 'uuid') == [f'<uuid>{aside.id_of(MEMBER)}</uuid>']
    assert ET.fromstring(made).findtext('sysinfo/system/entry') == aside.id_of(MEMBER)
    assert aside.member_of(aside.name_of(MEMBER)) == MEMBER
    assert aside.member_of('instance-1') == ''
    assert aside.id_of(MEMBER) != aside.id_of('another')


def test_its_disks_are_those_it_is_given_and_media_are_read_together(made):
    sources = [each.get('file') for each in ET.fromstring(made).iterfind('devices/disk/source')]

    assert sources == ['/trial/vda', '/instances/7c1e/disk.config']
    assert ET.fromstring(made).find('devices/disk/driver').get('type') == 'qcow2'
    assert ET.fromstring(made).findtext('os/nvram') == '/trial/nvram'


@pytest.mark.parametrize('kind', ['bridge', 'direct', 'ethernet', 'network'])
def test_a_tap_stays_one_and_leads_nowhere(kind):
    made = ET.fromstring(aside.of(
        DOMAIN.replace("interface type='bridge'", f"interface type='{kind}'"), MEMBER, DISKS))

    nic = made.find('devices/interface')
    assert nic.attrib == {'type': 'ethernet'}
    assert nic.find('source') is None


def test_a_nic_that_a_process_of_its_own_serves_leads_nowhere(made):
    assert [nic.get('type') for nic in ET.fromstring(made).iterfind('devices/interface')] == [
        'ethernet', 'null']


def test_what_is_served_by_spice_alone_has_one_without_a_port():
    made = ET.fromstring(aside.of(
        DOMAIN.replace('<lease>', "<redirdev bus='usb' type='spicevmc'/><lease>"), MEMBER, DISKS))

    (graphics,) = made.findall('devices/graphics')
    assert graphics.attrib == {'type': 'spice'}
    assert graphics.find('listen').get('type') == 'none'


def test_such_a_guest_can_stand_beside_itself():
    assert aside.obstacle(DOMAIN, DISKS) == ''


@pytest.mark.parametrize(('before', 'after', 'words'), [
    ('<cputune>', '<memoryBacking><hugepages/></memoryBacking><cputune>', 'huge pages'),
    ('<cputune>', '<memoryBacking><locked/></memoryBacking><cputune>', 'locked'),
    ('<cputune>', "<numatune><memory nodeset='0'/></numatune><cputune>", 'NUMA'),
    ('<cputune>', "<seclabel type='static'><label>a</label></seclabel><cputune>", 'label'),
    ('<nvram ', "<varstore path='/var/1'/><nvram ", 'variables'),
    ('<cputune>', "<q:commandline xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'/><cputune>",
     'options'),
    ("dev='vda'", "dev='vdb'", 'its disk vdb is not one of the snapshot'),
    ("interface type='user'", "interface type='mcast'", 'a NIC of type mcast'),
    ('<lease>', "<pstore backend='acpi-erst'><path>/erst</path></pstore><lease>",
     '/erst, behind its pstore'),
    ('<lease>', "<redirdev bus='usb' type='tcp'/><lease>", 'redirdev is connected by tcp'),
    ('<lease>', "<tpm model='tpm-crb'><backend type='external'><source path='/run/tpm'/>"
     '</backend></tpm><lease>', '/run/tpm, behind its tpm')])
def test_what_cannot_be_had_twice_is_named(before, after, words):
    assert words in aside.obstacle(DOMAIN.replace(before, after, 1), DISKS)
