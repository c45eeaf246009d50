# SPDX-License-Identifier: Apache-2.0
"""libvirt's save image: a header, the domain XML and QEMU's migration stream.

Layout (libvirt, ``src/qemu/qemu_saveimage.h``): 92 bytes of header: a magic of
16 bytes, then little-endian 32-bit words: version, length of what follows up to
the stream, whether the guest ran, format (0: raw), where in it the cookie is (0:
there is none), unused. The XML, the cookie and padding follow, each text with a
NUL. While the stream is being written the magic says so, and libvirt refuses
the file.
"""

import dataclasses
import errno
import os
import secrets
import struct
import xml.etree.ElementTree as ET
from collections.abc import Callable

import zstandard

from hotsnap_nova import exception
from hotsnap_nova.virt import domain

MAGIC_PARTIAL = b'LibvirtQemudPart'
MAGIC_WHOLE = b'LibvirtQemudSave'
_HEADER = struct.Struct('<16s5I56x')
_VERSION = 2
_PADDING = 64 * 1024
_COPIED_BYTES, _READ_BYTES = 64 << 20, 1 << 20
#: Of file systems between which the kernel itself copies nothing.
_NOT_BETWEEN = {errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS}
#: VNC knows 8 characters of a password.
_PASSWORD_BYTES = 4

#: Where the XML in the archive says the disks are: nowhere, so that a bare
#: ``virsh restore`` cannot join old memory to a newer disk.
NOWHERE = '/nonexistent/hotsnap'


@dataclasses.dataclass(frozen=True)
class Header:
    """What is before QEMU's stream; ``cookie`` is empty where there is none."""

    whole: bool
    xml: str
    cookie: str
    stream_offset: int


def header(xml: str, cookie: str = '', *, whole: bool, was_running: bool = True,
           size_bytes: int = 0) -> bytes:
    """Everything before QEMU's stream; both forms have the same length.

    :param cookie: see :func:`cookie_of`
    :param size_bytes: to be as long as that, where it suffices
    """
    texts = [text.encode() + b'\0' for text in (xml, cookie) if text]
    length = sum(len(text) for text in texts)
    padding = size_bytes - _HEADER.size - length
    if padding < 0:
        padding = _PADDING
    fixed = _HEADER.pack(MAGIC_WHOLE if whole else MAGIC_PARTIAL, _VERSION, length + padding,
                         1 if was_running else 0, 0, len(texts[0]) if cookie else 0)
    return b''.join([fixed, *texts, bytes(padding)])


def cookie_of(live_xml: str) -> str:
    """What libvirt notes beside the XML of a guest it saves: the CPU as QEMU made it.

    A definition says what was asked for. Without this a guest would wake with what the
    same words mean to the QEMU and the host of that day.

    :param live_xml: of the running guest, as it is, not as it may migrate
    """
    root = domain.parsed(live_xml)
    cookie = ET.Element('cookie')
    cookie.extend(root.findall('./cpu'))
    # libvirt's word for: no NIC of this guest is served by the slirp inside QEMU.
    if root.find("./devices/interface[@type='user']") is None:
        ET.SubElement(cookie, 'slirpHelper')
    return ET.tostring(cookie, encoding='unicode')


def cpu_of(cookie: str) -> str:
    """The CPU in a cookie; '' where there is none."""
    found = domain.parsed(cookie).find('./cpu') if cookie else None
    return '' if found is None else ET.tostring(found, encoding='unicode')


def read_header(path: str) -> Header:
    """What a save image says of itself; one that ends in ``.zst`` is compressed.

    :raises exception.InvalidValue: it is not one
    """
    with _opened(path) as image:
        fixed = image.read(_HEADER.size)
        if len(fixed) != _HEADER.size:
            raise exception.InvalidValue(name=path, reason='too short for a save image')
        magic, version, length, _ran, form, cookie_at = _HEADER.unpack(fixed)
        if magic not in (MAGIC_PARTIAL, MAGIC_WHOLE) or version != _VERSION or form != 0:
            raise exception.InvalidValue(name=path, reason='not a raw save image of libvirt')
        text = image.read(length)
    return Header(magic == MAGIC_WHOLE, _text(text),
                  _text(text[cookie_at:]) if cookie_at else '', _HEADER.size + length)


def copy(path: str, to: str, xml: str, tell: Callable[[int], None] = lambda _bytes: None) -> None:
    """The same memory for another definition; blocks are shared where the file system can.

    :param path: of a whole image, which is only read
    :param to: of the new one, for nobody but its owner
    :param tell: called with how many bytes there are, now and then; what it raises ends it
    """
    was = read_header(path)
    new = header(xml, was.cookie, whole=True, size_bytes=was.stream_offset)
    shift = len(new) - was.stream_offset
    with open(path, 'rb') as source, open(
            os.open(to, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 'wb') as target:
        # Only where blocks begin can they be shared: the old header goes along.
        at = was.stream_offset if shift else 0
        while count := _copied(source.fileno(), target.fileno(), at, at + shift):
            at += count
            tell(at)
        os.pwrite(target.fileno(), new, 0)


def _copied(source, target, at, to):
    """How many bytes were; 0 at the end."""
    try:
        return os.copy_file_range(source, target, _COPIED_BYTES, at, to)
    except OSError as exc:
        if exc.errno not in _NOT_BETWEEN:
            raise
        return os.pwrite(target, os.pread(source, _READ_BYTES, at), to)


def _opened(path):
    return zstandard.open(path) if path.endswith('.zst') else open(path, 'rb')


def _text(raw: bytes) -> str:
    return raw.split(b'\0', 1)[0].decode()


def with_sources(xml: str, sources: dict[str, tuple[str, str]]) -> str:
    """The domain XML with other disk images.

    :param sources: target device → (path, driver type); disks it does not name
        stay as they are
    """
    root = domain.parsed(xml)
    for disk in root.iterfind('./devices/disk'):
        target = disk.find('target').get('dev')
        if target not in sources:
            continue
        path, form = sources[target]
        disk.set('type', 'file')
        driver = disk.find('driver')
        if driver is not None:
            driver.set('type', form)
        for child in ('source', 'backingStore'):
            for element in disk.findall(child):
                disk.remove(element)
        source = ET.Element('source', {'file': path})
        disk.insert(1 if driver is not None else 0, source)
    return ET.tostring(root, encoding='unicode')


def archived(xml: str, snapshot_id: str) -> str:
    """The domain XML for the archive: its writable disks are nowhere, its passwords others.

    A restored guest has today's passwords. Who starts an exported one gives it new ones: not
    none, or its console would be anybody's.
    """
    root = domain.parsed(xml)
    sources = {}
    for disk in root.iterfind('./devices/disk'):
        target = disk.find('target').get('dev')
        if disk.get('device', 'disk') == 'disk' and disk.find('readonly') is None:
            sources[target] = (f'{NOWHERE}/{snapshot_id}/{target}', 'qcow2')
    for graphics in root.iterfind('./devices/graphics[@passwd]'):
        graphics.set('passwd', secrets.token_hex(_PASSWORD_BYTES))
    return with_sources(ET.tostring(root, encoding='unicode'), sources)
