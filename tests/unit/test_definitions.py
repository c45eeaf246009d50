# SPDX-License-Identifier: Apache-2.0
"""A definition made anew keeps what a restored guest has to find where it left it."""

import xml.etree.ElementTree as ET

import pytest

from hotsnap_nova.virt import definitions

PCI = "<address type='pci' domain='0x0000' bus='0x00' slot='{}' function='0x0'/>"
DEFINED = f"""<domain type='qemu'><os><type arch='x86_64' machine='pc-i440fx-10.0'>hvm</type></os>
<devices>
<disk type='file' device='disk'><source file='/old'/><target dev='vda'/>{PCI.format('0x07')}</disk>
<controller type='usb' index='0'>{PCI.format('0x01')}</controller>
<interface type='bridge'><mac address='fa:16:3e:00:00:01'/>{PCI.format('0x08')}</interface>
<memballoon model='virtio'>{PCI.format('0x05')}</memballoon>
</devices></domain>"""
WANTED = """<domain type='qemu'><os><type arch='x86_64' machine='pc'>hvm</type></os><devices>
<disk type='file' device='disk'><source file='/new'/><target dev='vda'/></disk>
<disk type='file' device='disk'><source file='/more'/><target dev='vdb'/></disk>
<interface type='bridge'><mac address='FA:16:3E:00:00:01'/></interface>
<memballoon model='virtio'/>
</devices></domain>"""


@pytest.fixture
def settled():
    return ET.fromstring(definitions.settled(WANTED, DEFINED))


def slots(device):
    return [address.get('slot') for address in device.iter('address') if address.get('type')]


def test_devices_stay_where_they_are(settled):
    assert slots(settled.find('./devices/disk[1]')) == ['0x07']
    assert slots(settled.find('./devices/interface')) == ['0x08']
    assert slots(settled.find('./devices/memballoon')) == ['0x05']


def test_all_else_is_as_wanted(settled):
    assert settled.find('./devices/disk[1]/source').get('file') == '/new'
    assert slots(settled.find('./devices/disk[2]')) == []


def test_controllers_that_libvirt_added_stay(settled):
    assert slots(settled.find('./devices/controller')) == ['0x01']


@pytest.mark.parametrize(('wanted', 'defined', 'settled'), [
    ('pc', 'pc-i440fx-10.0', 'pc-i440fx-10.0'),
    ('q35', 'pc-q35-9.2', 'pc-q35-9.2'),
    ('virt', 'virt-9.2', 'virt-9.2'),
    ('q35', 'pc-i440fx-10.0', 'q35'),
    ('pc-q35-10.0', 'pc-q35-9.2', 'pc-q35-10.0'),
])
def test_a_machine_keeps_its_version_and_not_its_family(wanted, defined, settled):
    found = ET.fromstring(definitions.settled(
        WANTED.replace("machine='pc'", f"machine='{wanted}'"),
        DEFINED.replace('pc-i440fx-10.0', defined)))

    assert found.find('./os/type').get('machine') == settled
