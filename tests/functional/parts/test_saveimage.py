# SPDX-License-Identifier: Apache-2.0
"""libvirt's save image as we write it."""

import xml.etree.ElementTree as ET

import pytest

from hotsnap_nova import exception
from hotsnap_nova.virt.memory import saveimage

XML = """<domain type='qemu'><devices>
  <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='/images/a'/>
    <backingStore type='file'><source file='/images/base'/></backingStore>
    <target dev='vda'/></disk>
  <disk type='file' device='cdrom'><source file='/images/cd'/><target dev='sda'/><readonly/></disk>
</devices></domain>"""


def sources(text):
    return {disk.find('target').get('dev'): disk.find('source').get('file')
            for disk in ET.fromstring(text).iter('disk')}


def test_both_forms_of_a_header_have_the_same_length():
    assert len(saveimage.header(XML, whole=True)) == len(saveimage.header(XML, whole=False))


@pytest.mark.parametrize('whole', [True, False])
def test_a_header_tells_what_was_put_into_it(tmp_path, whole):
    path = tmp_path / 'image'
    path.write_bytes(saveimage.header(XML, whole=whole) + b'QEVM')

    head = saveimage.read_header(str(path))

    assert (head.whole, head.xml) == (whole, XML)
    assert path.read_bytes()[head.stream_offset:] == b'QEVM'


@pytest.mark.parametrize('content', [b'', b'short', bytes(200), b'LibvirtQemudSave' + b'\1' * 100])
def test_what_is_no_save_image_is_refused(tmp_path, content):
    path = tmp_path / 'image'
    path.write_bytes(content)

    with pytest.raises(exception.InvalidValue):
        saveimage.read_header(str(path))


def test_an_archived_domain_has_its_writable_disks_nowhere():
    found = sources(saveimage.archived(XML, 'snap'))

    assert found == {'vda': f'{saveimage.NOWHERE}/snap/vda', 'sda': '/images/cd'}


def test_new_sources_replace_chain_and_format():
    text = saveimage.with_sources(XML, {'vda': ('/new/a.qcow2', 'qcow2')})

    assert sources(text) == {'vda': '/new/a.qcow2', 'sda': '/images/cd'}
    assert '/images/base' not in text
    assert ET.fromstring(text).find("./devices/disk/driver").get('type') == 'qcow2'
