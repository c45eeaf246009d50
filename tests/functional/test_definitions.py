# SPDX-License-Identifier: Apache-2.0
"""A restored guest wakes with the hardware of the cut, whatever became of its definition."""

import contextlib
import re
import xml.etree.ElementTree as ET

import libvirt
import pytest

from hotsnap_nova.virt.memory import saveimage
from tests.functional.command import Hotsnap, until

MORE = """<domain><os><smbios mode='sysinfo'/></os>
<sysinfo type='smbios'><system><entry name='manufacturer'>OpenStack Foundation</entry>
<entry name='product'>OpenStack Nova</entry><entry name='version'>34.0.0</entry></system></sysinfo>
<devices>
<controller type='pci' model='pcie-root-port'/><controller type='pci' model='pcie-root-port'/>
<controller type='usb' model='qemu-xhci'/>
<input type='tablet' bus='usb'/>
<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
<serial type='pty'><target port='1'/></serial>
<graphics type='vnc' listen='127.0.0.1' passwd='before'/>
<video><model type='vga' vram='16384'/></video>
<disk type='file' device='cdrom'><target dev='sda' bus='sata'/><readonly/></disk>
<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
<memballoon model='virtio'><stats period='10'/></memballoon>
</devices></domain>"""
#: As after a migration from a host that has it not.
WITHOUT = "<cpu mode='host-model'><feature policy='disable' name='x2apic'/></cpu>"
#: What a guest sees of itself.
HARDWARE = ('currentMemory', 'sysinfo', 'os/type', 'os/smbios', 'features', 'cpu', 'clock',
            'devices/*/address', 'devices/*/target/model', 'devices/controller',
            'devices/disk/target', 'devices/interface/model', 'devices/interface/rom',
            'devices/video', 'devices/input', 'devices/memballoon[@model]')


@pytest.fixture(scope='module')
def guest(shared_lab):
    """A guest whose definition tests change; its snapshot puts it back.

    It runs on less of a CPU than its definition would give it today.
    """
    group = shared_lab.start(1, machine='q35', cpu_xml="<cpu mode='host-model'/>")
    (guest,) = group
    guest.domain.destroy()
    with redefined(guest) as root:
        for none in ("devices/controller[@type='usb']", 'devices/memballoon'):
            root.find('devices').remove(root.find(none))
        more = ET.fromstring(MORE)
        root.append(more.find('sysinfo'))
        for part in ('os', 'devices'):
            root.find(part).extend(more.find(part))
    root = ET.fromstring(defined(guest))
    root.remove(root.find('cpu'))
    root.append(ET.fromstring(WITHOUT))
    guest.domain.connect().createXML(ET.tostring(root, encoding='unicode'))
    group.wait_ready()
    yield guest
    with contextlib.suppress(libvirt.libvirtError):
        guest.domain.destroy()


@pytest.fixture(scope='module')
def user(shared_lab, guest, tmp_path_factory):
    """Somebody who has a snapshot of the guest."""
    hotsnap = Hotsnap(shared_lab.uri, tmp_path_factory.mktemp('definitions'))
    made = hotsnap.create('cut', [guest])
    assert made.status == 0, made.errors
    return hotsnap


@pytest.fixture(scope='module')
def ran(guest, user):
    """The guest's XML at the cut."""
    return ET.fromstring(running(guest))


@pytest.fixture(autouse=True)
def definition(guest):
    """Every test begins with the definition of the cut."""
    before = defined(guest)
    yield
    guest.domain.connect().defineXML(before)


def defined(guest):
    return guest.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE)


def running(guest):
    return guest.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE)


@contextlib.contextmanager
def redefined(guest):
    """The definition's tree, to be changed in the block."""
    root = ET.fromstring(defined(guest))
    yield root
    guest.domain.connect().defineXML(ET.tostring(root, encoding='unicode'))


def told(root, path):
    """What there is, but for what libvirt calls it."""
    return sorted(ET.canonicalize(ET.tostring(each, encoding='unicode'), strip_text=True,
                                  exclude_tags=['alias', 'stats'])
                  for each in root.findall(path))


def restored(user, guest):
    """Restore it; its XML as it runs then."""
    outcome = user.run('snapshot', 'restore', 'cut')
    assert outcome.status == 0, outcome.errors
    return ET.fromstring(running(guest))


def header(user, guest):
    (path,) = user.store.glob(f'*/{guest.uuid}/memory.save')
    return saveimage.read_header(str(path))


# --- what may have become of a definition: each changes its tree ---


def of_another_cloud(root):
    """Another release of Nova, which says again what libvirt has numbered, on an older machine."""
    root.find("sysinfo/system/entry[@name='version']").text = '34.0.1-1.el9'
    root.find('os/type').set('machine', 'pc-q35-9.2')
    for _port in range(2):
        ET.SubElement(root.find('devices'), 'controller',
                      {'type': 'pci', 'model': 'pcie-root-port'})
    ET.SubElement(root.find('features'), 'vmcoreinfo', {'state': 'on'})
    ET.SubElement(root.find('clock'), 'timer', {'name': 'hpet', 'present': 'no'})


def of_other_settings(root):
    """Another CPU, another video, no console, tablet, agent, balloon and randomness."""
    root.remove(root.find('cpu'))
    ET.SubElement(root, 'cpu', {'mode': 'maximum'})
    root.find('devices/video/model').attrib = {'type': 'virtio'}
    root.find('devices/memballoon').attrib = {'model': 'none'}
    for gone in ('rng', "input[@type='tablet']", 'channel', 'serial[2]'):
        root.find('devices').remove(root.find(f'devices/{gone}'))


def backed_otherwise(root):
    """Memory, disks and NICs served in another way, which a guest does not see."""
    backing = ET.SubElement(root, 'memoryBacking')
    ET.SubElement(backing, 'source', {'type': 'memfd'})
    ET.SubElement(backing, 'access', {'mode': 'shared'})
    ET.SubElement(root, 'iothreads').text = '1'
    root.find('devices/disk/driver').attrib |= {'iothread': '1', 'cache': 'writeback',
                                                'discard': 'unmap'}
    root.find('devices/interface/driver').set('rx_queue_size', '512')


@pytest.mark.parametrize('change', [of_another_cloud, of_other_settings, backed_otherwise],
                         ids=lambda change: change.__name__)
def test_a_guest_wakes_on_what_it_ran_on(user, guest, ran, change):
    with redefined(guest) as root:
        change(root)
    before = defined(guest)

    wakes = restored(user, guest)

    assert {path: told(wakes, path) for path in HARDWARE} == {
        path: told(ran, path) for path in HARDWARE}
    acked = guest.counters().disks[0].acked
    assert guest.domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING
    assert guest.troubles() == []
    assert until(lambda: guest.counters().disks[0].acked > acked)
    assert defined(guest) == before    # it counts again when the guest is started anew


def test_a_cpu_without_x2apic_wakes_without(user, guest, ran):
    wakes = restored(user, guest)

    assert wakes.find("cpu/feature[@name='x2apic']").get('policy') == 'disable'


def test_its_consoles_and_names_are_those_of_today(user, guest, ran):
    with redefined(guest) as root:
        ET.SubElement(root, 'title').text = 'of today'
        root.find('devices/graphics').set('passwd', 'after')
        second = root.find("devices/serial[2]")
        second.set('type', 'tcp')
        ET.SubElement(second, 'source', {'mode': 'bind', 'host': '127.0.0.1', 'service': '10999'})

    wakes = restored(user, guest)

    assert wakes.findtext('title') == 'of today'
    assert wakes.find('devices/graphics').get('passwd') == 'after'
    assert wakes.find('devices/serial[2]/source').get('service') == '10999'


def test_no_password_of_a_console_is_in_the_archive(user, guest, ran):
    (archived,) = user.store.glob('*/*/domain.xml')

    for text in (header(user, guest).xml, archived.read_text()):
        assert ET.fromstring(text).find('devices/graphics').get('passwd') not in (None, 'before')


def test_a_save_image_has_the_cookie_that_libvirts_own_has(user, guest, ran, tmp_path):
    path = f'{tmp_path}/libvirts.save'

    guest.domain.save(path)

    libvirts = saveimage.read_header(path).cookie
    guest.domain.connect().restore(path)
    assert "policy='disable'" in libvirts
    assert (ET.canonicalize(header(user, guest).cookie, strip_text=True)
            == ET.canonicalize(libvirts, strip_text=True))


# --- what was changed on purpose ---


def with_two_processors(root):
    root.find('vcpu').text = '2'


def with_more_memory(root):
    root.find('memory').text = str(160 << 10)


def without_its_nic(root):
    root.find('devices').remove(root.find('devices/interface'))


def of_another_board(root):
    root.find('os/type').set('machine', 'pc')
    for kind in ('controller', 'disk', 'interface', 'video', 'rng', 'memballoon', 'input',
                 'watchdog'):
        for device in root.findall(f'devices/{kind}'):
            if kind in ('controller', 'input', 'watchdog') or device.get('device') == 'cdrom':
                root.find('devices').remove(device)
            elif (place := device.find('address')) is not None:
                device.remove(place)
    for channel in root.findall('devices/channel/address/..'):
        channel.remove(channel.find('address'))


@pytest.mark.parametrize(('change', 'device', 'cause'), [
    (with_two_processors, 'vcpus', 'it had 1 and has now 2'),
    (with_more_memory, 'memory', 'it had 128 MiB and has now 160 MiB'),
    (without_its_nic, '52:54:', 'this NIC is gone'),
    (of_another_board, 'machine', 'it was pc-q35-10.0 and is now pc-i440fx-10.0')],
    ids=lambda value: getattr(value, '__name__', ''))
def test_what_was_changed_on_purpose_is_refused_and_the_guest_runs_on(
        user, guest, ran, change, device, cause):
    with redefined(guest) as root:
        change(root)
    born = guest.pid

    outcome = user.run('snapshot', 'restore', 'cut')

    assert outcome.status == 1
    assert re.search(f'{device}.*{cause}', outcome.errors, re.S), outcome.errors
    assert guest.pid == born
    assert guest.domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING


def test_a_disk_that_is_another_today_is_refused_by_name(user, guest, ran, tmp_path):
    other = tmp_path / 'other.qcow2'
    other.write_bytes((image := guest.disk_images[0][0]).read_bytes())
    before = other.read_bytes()
    with redefined(guest) as root:
        root.find("devices/disk/source[@file]").set('file', str(other))

    outcome = user.run('snapshot', 'restore', 'cut')

    assert outcome.status == 1
    assert f'its image was {image} and is now {other}' in outcome.errors
    assert other.read_bytes() == before
