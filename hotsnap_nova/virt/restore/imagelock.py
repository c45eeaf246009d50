# SPDX-License-Identifier: Apache-2.0
"""A disk image that no QEMU can open for writing as long as we say, and the proof that none has.

QEMU holds locks on bytes of each image it has open (``file-posix.c``): one of the first range
for each thing it does with the image, one of the second for each that it lets nobody else do. It
takes its own, looks for others', and does not start where there are any. We do as one would that
does nothing with the image and lets others read it. Locks are of an open file, not of a name.

A QEMU that was loaded from memory takes none before it first runs: libvirt alone knows of it.
"""

import errno
import fcntl
import os
import struct

from oslo_log import log

from hotsnap_nova.virt import files

LOG = log.getLogger(__name__)

_F_OFD_GETLK, _F_OFD_SETLK = 36, 37    # which Python's fcntl does not name
_LOCK = struct.Struct('hhqqi4x')
#: Of 64 bytes each the first is for reading, which does no harm.
_DONE, _DENIED = (101, 63), (201, 63)
#: By which we know each other.
_OURS = (int.from_bytes(b'hotsnap'), 1)
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}

Identity = tuple[int, int]


class ImageInUse(Exception):
    """Somebody has the image open for writing: a QEMU, or a tool of its."""


def identity(path: str) -> Identity | None:
    """Which file is at a path, whatever it is called: device and inode; None: there is none."""
    try:
        return of(os.stat(path))
    except FileNotFoundError:
        return None


def of(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino


class ImageLock:
    """Held from its making on, and until it is closed or this process ends.

    :param path: of the image; whoever owns it, it is as it was afterwards
    :ivar identity: of the file that is locked, which need not be at the path for long
    :ivar proves: whether its file system has locks at all; without, QEMU takes none, and
        nobody but libvirt can tell whether an image is in use
    :raises ImageInUse: at once
    :raises FileNotFoundError: there is no such image
    """

    def __init__(self, path: str, privileged: files.Files):
        self._fd = _opened(path, privileged)
        try:
            self.identity = of(os.fstat(self._fd))
            self.proves = self._take(path)
        except BaseException:
            os.close(self._fd)
            raise

    def _take(self, path):
        try:
            self._lock(_F_OFD_SETLK, fcntl.F_WRLCK, _OURS)
            self._lock(_F_OFD_SETLK, fcntl.F_RDLCK, _DENIED)
            found = self._lock(_F_OFD_GETLK, fcntl.F_WRLCK, _DONE)
        except OSError as exc:
            if exc.errno in (errno.EAGAIN, errno.EACCES):
                raise ImageInUse(path) from None
            if exc.errno not in _NO_LOCKS:
                raise
            LOG.warning('The file system of %(path)s has no locks (%(error)s): whether it is in '
                        'use, nobody knows but libvirt', {'path': path, 'error': exc})
            return False
        if found != fcntl.F_UNLCK:
            raise ImageInUse(path)
        return True

    def _lock(self, command, kind, where):
        return _LOCK.unpack(fcntl.fcntl(self._fd, command, _LOCK.pack(
            kind, os.SEEK_SET, *where, 0)))[0]

    def close(self) -> None:
        """Let go of it; safe to repeat."""
        # Two threads may come here: the number is taken before it is used.
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.close()


def _opened(path, privileged):
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except PermissionError:
        # libvirt may leave it to QEMU's user: it is ours for a moment.
        was = os.stat(path)
        privileged.chown(path, os.geteuid(), -1)
        try:
            return os.open(path, os.O_RDWR | os.O_CLOEXEC)
        finally:
            privileged.chown(path, was.st_uid, -1)
