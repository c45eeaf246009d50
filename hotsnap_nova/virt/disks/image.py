# SPDX-License-Identifier: Apache-2.0
"""What an image file says of itself.

Its format is never guessed: what is in a raw image is its guest's, who may have written the header
of another format into it, with any file of the host's below. And whoever wrote an image does not
say how long it takes to read its header, nor how much memory.
"""

import contextlib
import errno
import json
import os
import re
import stat
import struct
import subprocess

from hotsnap_nova import sparse

_TIMEOUT_S = 30.0
#: util-linux's; the limits are those that Nova has for the same program.
_LIMITED = ('prlimit', '--as=1073741824', '--cpu=30', '--')

#: Of qcow2: magic, version, where the name of the backing file is.
_HEADER = struct.Struct('>4sIQ')
_MAGIC = b'QFI\xfb'
#: From version 3 on: what a reader must know, by bit; bit 2: the data are in another file.
_INCOMPATIBLE = struct.Struct('>72xQ')
_DATA_FILE = 1 << 2
#: How large the disk is.
_SIZE = struct.Struct('>24xQ')


#: A name of QEMU's that is no path: ``json:{…}``, ``nbd://…``
_PROTOCOL = re.compile(r'[^/:]*:')


class ChainUnknown(OSError):
    """What is below an image cannot be told."""


def describe(path: str, form: str) -> dict | None:
    """What ``qemu-img info`` tells, while a guest may use it; None: it cannot be read.

    :param form: its format
    """
    try:
        shown = subprocess.run(
            [*_LIMITED, 'qemu-img', 'info', '-U', '-f', form, '--output', 'json', path],
            capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return None
    return None if shown.returncode else json.loads(shown.stdout)


def data_file(described: dict) -> str:
    """Where the data of a qcow2 image are if not in it; else empty."""
    return described.get('format-specific', {}).get('data', {}).get('data-file', '')


def chain(path: str, form: str) -> tuple[str, ...]:
    """The image and all below it, layer by layer, each by the format that the one above says.

    :param form: the image's
    :raises ChainUnknown: one cannot be read or is no file, or its format is said nowhere
    :raises PermissionError: this process may not read one
    """
    below = []
    while path:
        if _PROTOCOL.match(path):
            raise ChainUnknown(f'what is below {below[-1] if below else path} cannot be told: '
                               f'{path} is no path')
        path = os.path.realpath(path)
        if path in below:
            raise ChainUnknown(f'{path} is below itself')
        below.append(path)
        if form == 'raw':
            break    # has nothing below, whatever is in it
        with contextlib.suppress(FileNotFoundError):
            os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
        if not os.path.exists(path):
            break
        described = describe(path, form) if form else None
        if described is None:
            raise ChainUnknown(f'what is below {path} cannot be told: ' + (
                f'as {form} it cannot be read' if form else 'nobody says its format'))
        path = described.get('full-backing-filename', described.get('backing-filename', ''))
        if path.startswith('file:/'):
            path = path.removeprefix('file:')    # as QEMU does
        form = described.get('backing-filename-format', '')
    return tuple(below)


def is_set_aside(path: str, cut: str) -> bool:
    """Whether a file has room of which nothing was written yet: its disk was preallocated.

    One that is written whole looks the same whether it was or not, and needs nothing of it. (A
    sparse image that grows may have some such room, too, but is not as large as its disk: XFS sets
    a little aside beyond the end.)

    :param cut: a qcow2 image of the same disk, which tells how large that is
    """
    try:
        with open(cut, 'rb') as file:
            (size_bytes,) = _SIZE.unpack(file.read(_SIZE.size))
        with open(path, 'rb') as file:
            status = os.fstat(file.fileno())
            if not 0 < size_bytes <= status.st_size:
                return False
            data_bytes = sum(end - start for start, end in sparse.data_extents(file.fileno()))
            return status.st_blocks * 512 - data_bytes > size_bytes >> 6
    except (OSError, struct.error):    # it is gone, or another's: nothing is known of it
        return False


#: What to do about a `kept_fault`.
KEPT_REMEDY = 'look who else writes to the store, and delete the snapshot'


def kept_fault(path: str) -> str:
    """Why this is not an image as we write them to stores, in a sentence's words; '' where it is.

    Ours have all their data in themselves. By another one's header whoever writes to the store
    would have a host read any file for him; so QEMU's tools, which would, are not asked.
    """
    reason = _reads_beside(path)
    return f'what the store keeps of it {reason}: we write none like that' if reason else ''


def _reads_beside(path):
    """No link is followed, and no FIFO waited for."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        if exc.errno in (errno.ELOOP, errno.ENXIO):    # a link, a socket
            return 'is no file'
        raise
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return 'is no file'
        header = os.read(fd, _INCOMPATIBLE.size)
    finally:
        os.close(fd)
    if len(header) < _INCOMPATIBLE.size or not header.startswith(_MAGIC):
        return 'is no qcow2 image'
    _magic, version, backing_at = _HEADER.unpack_from(header)
    if backing_at:
        return 'has a backing file'
    if version > 2 and _INCOMPATIBLE.unpack(header)[0] & _DATA_FILE:
        return 'has its data in another file'
    return ''
