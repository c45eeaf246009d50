# SPDX-License-Identifier: Apache-2.0
"""libvirt's save image as we write it."""

import errno
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


LIVE = """<domain type='qemu' id='1'><cpu mode='custom' match='exact' check='full'>
  <model fallback='forbid'>qemu64</model><feature policy='disable' name='x2apic'/></cpu>
  <devices><interface type='{}'/></devices></domain>"""


@pytest.mark.parametrize('cookie', ['', '<cookie/>'])
def test_both_forms_of_a_header_have_the_same_length(cookie):
    assert (len(saveimage.header(XML, cookie, whole=True))
            == len(saveimage.header(XML, cookie, whole=False)))


@pytest.mark.parametrize('cookie', ['', '<cookie/>'])
@pytest.mark.parametrize('whole', [True, False])
def test_a_header_tells_what_was_put_into_it(tmp_path, whole, cookie):
    path = tmp_path / 'image'
    path.write_bytes(saveimage.header(XML, cookie, whole=whole) + b'QEVM')

    head = saveimage.read_header(str(path))

    assert (head.whole, head.xml, head.cookie) == (whole, XML, cookie)
    assert path.read_bytes()[head.stream_offset:] == b'QEVM'


@pytest.fixture
def image(tmp_path):
    """A save image, with a stream that ends within a block."""
    path = tmp_path / 'image'
    path.write_bytes(saveimage.header(XML, '<cookie/>', whole=True) + bytes(range(256)) * 500)
    return path


def stream(path):
    return path.read_bytes()[saveimage.read_header(str(path)).stream_offset:]


@pytest.mark.parametrize('more', ['', '<!-- longer than all padding -->' * 4096])
def test_a_copy_has_the_same_memory_and_cpu_for_another_definition(image, tmp_path, more):
    before = image.read_bytes()

    saveimage.copy(str(image), str(tmp_path / 'copy'), XML.replace('images', 'others') + more)

    head = saveimage.read_header(str(tmp_path / 'copy'))
    assert (head.whole, head.cookie) == (True, '<cookie/>')
    assert head.xml == XML.replace('images', 'others') + more
    assert stream(tmp_path / 'copy') == stream(image)
    assert image.read_bytes() == before
    assert (tmp_path / 'copy').stat().st_mode & 0o777 == 0o600


def test_the_stream_of_a_copy_is_where_it_was_so_that_blocks_can_be_shared(image, tmp_path):
    saveimage.copy(str(image), str(tmp_path / 'copy'), XML.replace('images', 'others'))

    assert (tmp_path / 'copy').stat().st_size == image.stat().st_size


def test_between_file_systems_it_is_read_and_written(image, tmp_path, monkeypatch):
    def fail(*_args):
        raise OSError(errno.EXDEV, 'another file system')
    monkeypatch.setattr(saveimage.os, 'copy_file_range', fail)

    saveimage.copy(str(image), str(tmp_path / 'copy'), XML)

    assert (tmp_path / 'copy').read_bytes() == image.read_bytes()


def test_a_copy_that_is_of_no_use_any_more_ends(image, tmp_path):
    def tell(_bytes):
        raise exception.Aborted(who='its user')

    with pytest.raises(exception.Aborted):
        saveimage.copy(str(image), str(tmp_path / 'copy'), XML, tell)


def test_a_cookie_has_the_cpu_that_runs():
    found = ET.fromstring(saveimage.cookie_of(LIVE.format('bridge')))

    assert found.tag == 'cookie'
    assert found.find('./cpu/feature').attrib == {'policy': 'disable', 'name': 'x2apic'}


@pytest.mark.parametrize(('kind', 'said'), [('bridge', True), ('user', False)])
def test_a_cookie_says_whether_qemu_serves_a_nic_by_itself(kind, said):
    found = ET.fromstring(saveimage.cookie_of(LIVE.format(kind)))

    assert (found.find('slirpHelper') is not None) == said


@pytest.mark.parametrize('content', [b'', b'short', bytes(200), b'LibvirtQemudSave' + b'\1' * 100])
def test_what_is_no_save_image_is_refused(tmp_path, content):
    path = tmp_path / 'image'
    path.write_bytes(content)

    with pytest.raises(exception.InvalidValue):
        saveimage.read_header(str(path))


def test_an_archived_domain_has_its_writable_disks_nowhere():
    found = sources(saveimage.archived(XML, 'snap'))

    assert found == {'vda': f'{saveimage.NOWHERE}/snap/vda', 'sda': '/images/cd'}


def test_an_archived_domain_has_no_password_of_a_console_and_none_without_one():
    graphics = "<graphics type='{}' {}/>"
    xml = XML.replace('</devices>', graphics.format('vnc', "passwd='secret1'")
                      + graphics.format('spice', "passwd='secret2'")
                      + graphics.format('vnc', '') + '</devices>')

    found = [each.get('passwd') for each in
             ET.fromstring(saveimage.archived(xml, 'snap')).iter('graphics')]

    assert [len(each or '') for each in found] == [8, 8, 0]
    assert len({'secret1', 'secret2', *found}) == 5


def test_new_sources_replace_chain_and_format():
    text = saveimage.with_sources(XML, {'vda': ('/new/a.qcow2', 'qcow2')})

    assert sources(text) == {'vda': '/new/a.qcow2', 'sda': '/images/cd'}
    assert '/images/base' not in text
    assert ET.fromstring(text).find("./devices/disk/driver").get('type') == 'qcow2'
