# SPDX-License-Identifier: Apache-2.0
"""A disk put back as it was at the cut, and the one it replaces kept aside.

Beside the image, named after the restore::

    <image>.hotsnap-new-<restore>    the disk of the cut, being made or ready
    <image>.hotsnap-kept-<restore>   the disk that was replaced

The names alone say what was done, so an undo needs no journal. At no instant
is the image's own path without a disk.
"""

import contextlib
import glob
import os
import subprocess
import time

from hotsnap_nova import exception


class Replacement:
    """One disk of one restore.

    :param path: of the image the domain uses
    :param form: the image's format, as the domain has it
    :ivar kept: where the disk that was replaced is, if it was
    """

    def __init__(self, member: str, path: str, form: str, restore_id: str):
        self._member = member
        path = self._path = os.path.realpath(path)
        self._form = form
        self._new = f'{path}.hotsnap-new-{restore_id}'
        self.kept = f'{path}.hotsnap-kept-{restore_id}'

    def prepare(self, source: str) -> None:
        """Make the disk of the cut from ``source`` (qcow2, only read), durably."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._new)
        made = subprocess.run(
            ['qemu-img', 'convert', '-q', '-f', 'qcow2', '-O', self._form, source, self._new],
            capture_output=True, text=True, check=False, umask=0o077)
        if made.returncode:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._new)
            raise exception.TargetFailed(
                member=self._member, device=self._path,
                reason=made.stderr.strip().splitlines()[-1] if made.stderr else 'qemu-img failed')
        with contextlib.suppress(FileNotFoundError):
            old = os.stat(self._path)
            os.chown(self._new, old.st_uid, old.st_gid)
            os.chmod(self._new, old.st_mode & 0o7777)
        _sync(self._new)

    def swap(self) -> None:
        """The disk of the cut takes the image's place. Repeatable.

        :raises exception.TargetFailed: it is not there: not prepared, or undone
        """
        if not os.path.exists(self._new):
            if self.swapped:
                return
            raise exception.TargetFailed(
                member=self._member, device=self._path,
                reason='the disk of the cut is no longer there')
        with contextlib.suppress(FileExistsError, FileNotFoundError):
            os.link(self._path, self.kept)
        os.replace(self._new, self._path)
        _sync(os.path.dirname(self._path))

    @property
    def swapped(self) -> bool:
        """Whether the image's path may hold the disk of the cut."""
        return os.path.exists(self.kept)

    def undo(self) -> None:
        """The old disk is back, whatever was done. Repeatable."""
        if os.path.exists(self.kept):
            if os.path.exists(self._path) and os.path.samefile(self.kept, self._path):
                os.unlink(self.kept)
            else:
                os.replace(self.kept, self._path)
            _sync(os.path.dirname(self._path))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._new)

    def finish(self, keep_hours: float) -> None:
        """Drop disks that were kept aside for longer than ``keep_hours``."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._new)
        with contextlib.suppress(FileNotFoundError):
            os.utime(self.kept)  # from now on it counts as kept
        for kept in glob.glob(f'{glob.escape(self._path)}.hotsnap-kept-*'):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - os.stat(kept).st_mtime >= keep_hours * 3600:
                    os.unlink(kept)


def overlay(member: str, base: str, path: str) -> None:
    """A qcow2 at ``path`` that begins as ``base`` and leaves it alone."""
    made = subprocess.run(
        ['qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', os.path.abspath(base),
         path], capture_output=True, text=True, check=False, umask=0o077)
    if made.returncode:
        raise exception.TargetFailed(
            member=member, device=path,
            reason=made.stderr.strip().splitlines()[-1] if made.stderr else 'qemu-img failed')


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
