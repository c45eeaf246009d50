# SPDX-License-Identifier: Apache-2.0
"""A restored definition: today's identity, the hardware of the cut, this host."""

import pathlib
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

from hotsnap_nova.virt.definition import cut, differences, merging, table
from hotsnap_nova.virt.memory import saveimage

ROOT = pathlib.Path(__file__).parents[2]
MAC, OTHER_MAC = 'fa:16:3e:00:00:01', 'fa:16:3e:00:00:02'


def address(slot):
    return f"<address type='pci' domain='0x0000' bus='0x00' slot='{slot}' function='0x0'/>"


CUT = f"""<domain type='kvm' xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'>
<name>instance-1</name><uuid>7c1e</uuid>
<metadata><nova:instance><nova:package version='33.0.0'/></nova:instance></metadata>
<memory unit='KiB'>1048576</memory><currentMemory unit='KiB'>524288</currentMemory>
<vcpu placement='static' cpuset='0-3'>2</vcpu>
<cputune><shares>1024</shares></cputune>
<sysinfo type='smbios'><system><entry name='version'>33.0.0</entry></system></sysinfo>
<os><type arch='x86_64' machine='pc-q35-9.2'>hvm</type><boot dev='hd'/><smbios mode='sysinfo'/>
</os>
<features><acpi/><vmcoreinfo state='on'/></features>
<cpu mode='custom' match='exact'><model>EPYC</model><feature policy='disable' name='x2apic'/></cpu>
<clock offset='utc'><timer name='pit' tickpolicy='delay'/></clock>
<on_reboot>restart</on_reboot>
<devices>
<emulator>/usr/libexec/qemu-kvm</emulator>
<disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='none' queues='2'/>
  <source file='/instances/7c1e/disk'/><target dev='vda' bus='virtio'/>{address('0x04')}</disk>
<disk type='file' device='cdrom'><driver name='qemu' type='raw'/>
  <source file='/instances/7c1e/disk.config'/><target dev='sda' bus='sata'/><readonly/></disk>
<controller type='pci' index='0' model='pcie-root'/>
<controller type='pci' index='1' model='pcie-root-port'><target chassis='1' port='0x10'/>
  {address('0x02')}</controller>
<interface type='bridge'><mac address='{MAC}'/><source bridge='old'/><target dev='tap-old'/>
  <model type='virtio'/><driver name='vhost' queues='2'/><mtu size='1450'/>{address('0x05')}
  </interface>
<serial type='pty'><log file='/instances/7c1e/console.log'/><target type='isa-serial' port='0'/>
  </serial>
<serial type='tcp'><source mode='bind' host='192.0.2.1' service='10001'/><protocol type='raw'/>
  <target type='isa-serial' port='1'/></serial>
<console type='pty'><target type='serial' port='0'/></console>
<graphics type='vnc' port='-1' autoport='yes' passwd='old'/>
<video><model type='vga' vram='16384'/>{address('0x01')}</video>
<memballoon model='virtio'><stats period='10'/>{address('0x06')}</memballoon>
<rng model='virtio'><backend model='random'>/dev/random</backend>{address('0x07')}</rng>
</devices></domain>"""

#: As Nova makes it for a hard reboot.
TODAY = f"""<domain type='kvm' xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'>
<name>instance-1</name><uuid>7c1e</uuid>
<metadata><nova:instance><nova:package version='34.0.1'/></nova:instance></metadata>
<memory>1048576</memory><vcpu cpuset='4-7'>2</vcpu>
<cputune><shares>2048</shares></cputune>
<sysinfo type='smbios'><system><entry name='version'>34.0.1</entry></system></sysinfo>
<os><type arch='x86_64' machine='q35'>hvm</type><boot dev='hd'/><smbios mode='sysinfo'/></os>
<features><acpi/></features>
<cpu mode='host-model'/><clock offset='utc'/>
<devices>
<disk type='file' device='disk'><driver name='qemu' type='raw' cache='writeback' discard='unmap'/>
  <source file='/instances/7c1e/disk'/><target dev='vda' bus='virtio'/></disk>
<disk type='file' device='disk'><driver name='qemu' type='raw'/>
  <source file='/instances/7c1e/disk.config'/><target dev='vdz' bus='virtio'/></disk>
<controller type='pci' model='pcie-root'/>
<controller type='pci' model='pcie-root-port'/><controller type='pci' model='pcie-root-port'/>
<interface type='ethernet'><mac address='{MAC.upper()}'/><target dev='tap-new'/>
  <model type='virtio'/><mtu size='8950'/></interface>
<serial type='tcp'><source mode='bind' host='192.0.2.2' service='10000'/></serial>
<graphics type='vnc' port='-1' autoport='yes' passwd='new'/>
<video><model type='virtio'/></video>
<memballoon model='none'/>
<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
<watchdog model='itco' action='reset'/>
</devices></domain>"""


@pytest.fixture(scope='module')
def merged():
    return ET.fromstring(merging.merged(CUT, TODAY))


def found(root, path):
    """Attributes of what is there, or its text where it has none."""
    return [element.attrib or element.text for element in root.findall(path)]


HARDWARE = ['sysinfo/system/entry', 'os/type', 'features/*', 'cpu', 'cpu/*', 'clock/timer',
            'currentMemory', 'devices/controller', 'devices/controller/*', 'devices/*/address',
            'devices/disk/target', 'devices/interface/model', 'devices/interface/mtu',
            'devices/serial/target', 'devices/video/model', 'devices/memballoon',
            'devices/watchdog']


@pytest.mark.parametrize('path', HARDWARE)
def test_hardware_is_that_of_the_cut(merged, path):
    assert found(merged, path) == found(ET.fromstring(CUT), path)


@pytest.mark.parametrize('path', [
    'metadata//*', 'cputune/shares', 'on_reboot', 'devices/emulator', 'devices/graphics',
    'devices/rng/backend', 'devices/interface/source', 'devices/interface/target'])
def test_identity_and_host_are_those_of_today(merged, path):
    assert found(merged, path) == found(ET.fromstring(TODAY), path)


def test_a_disk_is_where_it_is_today_and_what_it_was(merged):
    disk = merged.find('devices/disk')

    assert disk.find('source').attrib == {'file': '/instances/7c1e/disk'}
    assert disk.find('driver').attrib == {'name': 'qemu', 'type': 'raw', 'cache': 'writeback',
                                          'discard': 'unmap', 'queues': '2'}


def test_a_disk_that_today_has_another_name_and_kind_keeps_those_of_the_cut(merged):
    (config,) = merged.findall("devices/disk[@device='cdrom']")

    assert config.find('source').get('file') == '/instances/7c1e/disk.config'
    assert config.find('target').get('dev') == 'sda'
    assert len(merged.findall('devices/disk')) == 2


def test_a_nic_is_plugged_in_where_its_port_is_today(merged):
    (nic,) = merged.findall('devices/interface')

    assert nic.get('type') == 'ethernet'
    assert nic.find('target').get('dev') == 'tap-new'
    assert nic.find('driver').attrib == {'queues': '2'}


def test_a_serial_port_leads_where_it_does_today(merged):
    first, _second = merged.findall('devices/serial')

    assert first.get('type') == 'tcp'
    assert first.find('source').get('service') == '10000'
    assert first.find('log') is None


def test_a_serial_port_that_is_not_defined_today_leads_nowhere(merged):
    _first, second = merged.findall('devices/serial')

    assert second.get('type') == 'null'
    assert second.find('source') is None


def test_the_console_that_mirrors_a_serial_port_is_left_to_libvirt(merged):
    assert merged.find('devices/console') is None


def test_namespaces_keep_their_names_and_those_without_one_do_no_harm():
    kept = saveimage.archived(CUT, 'snap').replace('nova:', 'ns0:').replace(':nova=', ':ns0=')

    assert '<nova:instance>' in merging.merged(kept, TODAY)


@pytest.mark.parametrize(('cuts', 'served'), [
    ("<video><model type='qxl'/></video>", False),
    ("<channel type='spicevmc'><target type='virtio' name='spice'/></channel>", False),
    ("<redirdev bus='usb' type='spicevmc'/>", True),
    ("<video><model type='virtio'/></video>", False)])
def test_hardware_of_spice_is_served_where_todays_consoles_are_others(cuts, served):
    merged = merging.merged(CUT.replace('</devices>', f'{cuts}</devices>'), TODAY)

    spice = ET.fromstring(merged).findall("./devices/graphics[@type='spice']/listen")
    assert [listen.get('type') for listen in spice] == ['none'] * served


def test_a_definition_merged_with_itself_is_itself_but_for_what_libvirt_adds():
    twice = merging.merged(merging.merged(CUT, TODAY), TODAY)

    assert twice == merging.merged(CUT, TODAY)
    assert list(differences.differences(CUT, CUT)) == []


@pytest.mark.parametrize(('before', 'now', 'device', 'cause'), [
    ("<vcpu cpuset='4-7'>2<", "<vcpu cpuset='4-7'>4<", 'vcpus', 'it had 2 and has now 4'),
    ('<memory>1048576<', '<memory>2097152<', 'memory', 'it had 1024 MiB and has now 2048 MiB'),
    ("machine='q35'", "machine='pc'", 'machine', 'it was pc-q35-9.2 and is now pc'),
    ("<domain type='kvm'", "<domain type='qemu'", 'type', 'its type was kvm and is now qemu'),
    (MAC.upper(), OTHER_MAC, MAC, 'this NIC is gone'),
    ("<interface type='ethernet'", "<interface type='vhostuser'", MAC, 'of type vhostuser'),
    ('</devices>', '<tpm/></devices>', 'tpm', 'this tpm is new since the snapshot'),
    ('</devices>', '<hostdev/><hostdev/></devices>', 'hostdev', 'new since the snapshot'),
    ('</devices>', '<warp/></devices>', 'warp', 'this warp is new since the snapshot'),
    ("discard='unmap'", "warp='on'", 'vda', 'its driver@warp was not set and is now on'),
    ('</domain>', '<launchSecurity/></domain>', 'launchSecurity', 'new since'),
    ("<cpu mode='host-model'/>", "<cpu><numa><cell id='0'/></numa></cpu>", 'NUMA layout', 'new'),
])
def test_what_was_changed_on_purpose_is_named(before, now, device, cause):
    told = list(differences.differences(CUT, TODAY.replace(before, now)))

    assert told[0][0] == device
    assert cause in told[0][1]
    assert told[0][2]


LOADER = "<loader readonly='yes' type='pflash'>{}</loader>"
ROM = "<rom bar='on' file='{}'/>"


@pytest.mark.parametrize(('place', 'planted', 'device'), [
    ("<smbios mode='sysinfo'/>", LOADER, 'loader'),
    ("<mtu size='1450'/>", ROM, MAC),
    ('</devices>', "<rng model='virtio'><backend model='random'>{}</backend></rng>", 'rng 1'),
    ('</devices>', "<input type='evdev'><source dev='{}'/></input>", 'input'),
    ('</devices>', "<disk device='cdrom'><source file='{}'/><target dev='sdb'/></disk>", None),
    ("<metadata>", "<title>{}</title>", None)])
def test_no_path_comes_from_the_cut_and_hardware_with_another_is_refused(place, planted, device):
    before = CUT.replace(place, planted.format('/etc/shadow') + place)

    told = list(differences.differences(before, TODAY))

    assert '/etc/shadow' not in merging.merged(before, TODAY)
    assert [each[0] for each in told] == ([device] if device else [])
    assert all('/etc/shadow' in cause for _device, cause, _remedy in told)


def test_a_path_that_both_have_stays():
    both = [xml.replace("<smbios mode='sysinfo'/>", LOADER.format('/usr/share/OVMF'))
            for xml in (CUT, TODAY)]

    assert list(differences.differences(*both)) == []
    assert ET.fromstring(merging.merged(*both)).findtext('os/loader') == '/usr/share/OVMF'


def test_a_memory_module_is_compared_by_what_it_has():
    one, other = (f"""<domain><devices><memory model='dimm'>
        <target><size unit='KiB'>{size_kib}</size><node>0</node></target></memory></devices>
        </domain>""" for size_kib in (131072, 262144))

    assert list(differences.differences(one, one)) == []
    assert [device for device, *_ in differences.differences(one, other)] == ['memory']


def test_what_settings_of_nova_changed_is_no_difference():
    assert list(differences.differences(CUT, TODAY)) == []


@pytest.mark.parametrize('machine', ['q35', 'pc-q35-10.0', 'pc-q35-rhel9.6.0'])
def test_another_version_of_the_same_board_is_no_difference(machine):
    today = CUT.replace('pc-q35-9.2', machine)

    assert list(differences.differences(CUT, today)) == []
    assert ET.fromstring(merging.merged(CUT, today)).find('os/type').get('machine') == 'pc-q35-9.2'


def kept(target, path=None):
    return {'target': target, **({'path': path} if path else {})}


def define(**images):
    return '<domain><devices>' + ''.join(
        f"<disk type='file' device='disk'><source file='{path}'/><target dev='{target}'/></disk>"
        for target, path in images.items()) + '</devices></domain>'


@pytest.mark.parametrize(('before', 'today', 'found'), [
    ([kept('vda', '/a')], define(vda='/a'), {'vda': '/a'}),
    ([kept('vda', '/a'), kept('vdb', '/b')], define(vda='/b', vdb='/a'),
     {'vda': '/a', 'vdb': '/b'}),
    ([kept('vda', '/a'), kept('vdb', '/b')], define(vda='/c', vdb='/a'), {'vda': '/a'}),
    ([kept('vda', '/a'), kept('vdb', '/b')], define(vda='/a', vdb='/c'),
     {'vda': '/a', 'vdb': '/c'}),
    ([kept('vda'), kept('vdb')], define(vdb='/b', vda='/a'), {'vda': '/a', 'vdb': '/b'}),
    ([kept('vda', '/a')], define(), {}),
])
def test_a_disk_is_known_by_its_image_and_then_by_its_name(before, today, found):
    disks = cut.disks({'disks': before}, today)

    assert {target: disk.path for target, disk in disks.items()} == found


@pytest.mark.parametrize(('path', 'whose'), [
    ('name', table.Whose.IDENTITY),
    ('devices/graphics/listen@address', table.Whose.IDENTITY),
    ('devices/serial/source@service', table.Whose.IDENTITY),
    ('cputune/vcpupin@cpuset', table.Whose.HOST),
    ('devices/disk/driver@cache', table.Whose.HOST),
    ('devices/rng/backend', table.Whose.HOST),
    ('devices/rng@model', table.Whose.HARDWARE),
    ('devices/disk/address@slot', table.Whose.HARDWARE),
    ('devices/interface/rom@file', table.Whose.HARDWARE),
    ('nonesuch', table.Whose.HARDWARE)])
def test_the_nearest_path_counts(path, whose):
    assert table.rule_of(path).whose is whose


@pytest.mark.parametrize('path', ['nonesuch', 'devices/nonesuch', 'devices/disk/driver@nonesuch',
                                  'devices/interface/nonesuch', '{qemu}commandline'])
def test_what_is_not_in_the_table_is_hardware_and_compared(path):
    rule = table.rule_of(path)

    assert rule.whose is table.Whose.HARDWARE
    assert rule.refused


def test_no_path_is_in_the_table_twice():
    paths = [f'{element} {path}' for section in table.SECTIONS for element in section.elements
             for rule in section.rules for path in rule.paths.split()]

    assert len(paths) == len(set(paths))


def test_the_document_shows_the_table_as_it_is():
    printed = subprocess.run([sys.executable, '-m', 'tools.definition_doc'], cwd=ROOT,
                             capture_output=True, text=True, check=True).stdout

    assert printed == (ROOT / 'doc/definition.md').read_text()
