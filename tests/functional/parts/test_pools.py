# SPDX-License-Identifier: Apache-2.0
"""Disks from storage pools are known by their files: asked of libvirt's own test driver."""

import libvirt
import pytest

from hotsnap_nova.virt import domain, guest

POOL = """<pool type='{kind}'><name>{kind}s</name>{source}
    <target><path>/pools/{kind}s</path></target></pool>"""
DOMAIN = """<domain type='test'><name>pooled</name><memory>8192</memory><os><type>hvm</type></os>
    <devices>{}</devices></domain>"""
DISK = """<disk type='volume' device='{device}'><driver name='qemu' type='qcow2'/>
    <source pool='{pool}' volume='image'/><target dev='{target}'/></disk>"""


@pytest.fixture(scope='module')
def connection():
    made = libvirt.open('test:///default')
    yield made
    made.close()


@pytest.fixture(scope='module')
def pools(connection):
    """A folder and a volume group, each with a volume."""
    made = []
    for kind, source in (('dir', ''), ('logical', '<source><name>vg</name></source>')):
        pool = connection.storagePoolCreateXML(POOL.format(kind=kind, source=source))
        pool.createXML('<volume><name>image</name><capacity>1048576</capacity></volume>')
        made.append(pool)
    yield made
    for pool in made:
        pool.destroy()


@pytest.fixture
def pooled(connection, pools):
    """A guest with a disk of each pool, and one whose pool is gone."""
    found = connection.createXML(DOMAIN.format(''.join((
        DISK.format(device='disk', pool='dirs', target='vda'),
        DISK.format(device='disk', pool='logicals', target='vdb'),
        DISK.format(device='disk', pool='gone', target='vdc'),
        DISK.format(device='cdrom', pool='dirs', target='sda')))))
    yield guest.Guest(connection, found.name())
    found.destroy()


@pytest.mark.parametrize('look', [
    lambda found: found.full_xml(), lambda found: found.xml(),
    lambda found: found.xml(live=False)], ids=['as it runs', 'to be kept', 'as defined'])
def test_a_disk_from_a_pool_is_the_file_that_libvirt_says_it_is(pooled, look):
    disks = {disk.target: disk for disk in domain.DomainXml(look(pooled)).disks}

    assert {target: (disk.kind, disk.path) for target, disk in disks.items()} == {
        'vda': ('file', '/pools/dirs/image'), 'vdb': ('block', '/dev/vg/image'),
        'vdc': ('volume', ''), 'sda': ('file', '/pools/dirs/image')}
    assert disks['vda'].form == 'qcow2'
    assert disks['sda'].medium
    assert ('/pools/dirs/image', 'qcow2') in domain.DomainXml(look(pooled)).images


def test_of_other_definitions_not_a_letter_changes():
    text = '<domain xmlns:nova="n"><devices><disk type=\'file\'/></devices></domain>'

    assert domain.with_paths(text, None) is text
