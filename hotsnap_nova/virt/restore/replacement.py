# SPDX-License-Identifier: Apache-2.0
"""A disk put back as it was at the cut, and the one it replaces kept aside.

Beside the image, named after the restore::

    <image>.hotsnap-new-<restore>    the disk of the cut, being made or ready
    <image>.hotsnap-old-<restore>    the disk that was replaced, while the restore may be undone
    <image>.hotsnap-kept-<restore>   the same, once the restore is over: it may expire

The names alone say what was done, so an undo needs no journal. At no instant
is the image's own path without a disk.
"""

import contextlib
import fcntl
import glob
import json
import os
import subprocess
import time
from collections.abc import Callable

from hotsnap_nova import exception
from hotsnap_nova.virt import files


class Replacement:
    """One disk of one restore.

    :param path: of the image the domain uses
    :param form: the image's format, as the domain has it
    :param privileged: for what this process may not do by itself
    :ivar old: where the disk that was replaced is, if it was and the restore is not over
    """

    def __init__(self, member: str, path: str, form: str, restore_id: str,
                 privileged: files.Files | None = None):
        self._member = member
        self._privileged = privileged or files.Files()
        path = self._path = os.path.realpath(path)
        self._form = form
        self._new = f'{path}.hotsnap-new-{restore_id}'
        self.old = f'{path}.hotsnap-old-{restore_id}'
        self._kept = f'{path}.hotsnap-kept-{restore_id}'

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
        # Opened and changed while it is ours: afterwards only QEMU's user may.
        with open(self._new, 'rb') as new:
            with contextlib.suppress(FileNotFoundError):
                old = os.stat(self._path)
                os.chmod(self._new, old.st_mode & 0o7777)
                self._privileged.chown(self._new, old.st_uid, old.st_gid)
            os.fsync(new.fileno())

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
        with contextlib.suppress(FileNotFoundError):
            self._link_old()
        os.replace(self._new, self._path)
        _sync(os.path.dirname(self._path))

    def _link_old(self):
        with contextlib.suppress(FileExistsError):
            try:
                os.link(self._path, self.old)
            except PermissionError:
                # The kernel lets nobody link another's file (fs.protected_hardlinks): it is ours
                # for a moment. Nobody misses it, for the guest is stopped.
                self._privileged.chown(self._path, os.geteuid(), -1)
                os.link(self._path, self.old)
        owner = os.stat(self._new)
        if os.stat(self.old).st_uid != owner.st_uid:    # since just now, or an earlier try
            self._privileged.chown(self.old, owner.st_uid, owner.st_gid)

    @property
    def swapped(self) -> bool:
        """Whether the image's path may hold the disk of the cut."""
        return os.path.exists(self.old)

    def undo(self) -> None:
        """The old disk is back, whatever was done. Repeatable."""
        if os.path.exists(self.old):
            if os.path.exists(self._path) and os.path.samefile(self.old, self._path):
                os.unlink(self.old)
            else:
                os.replace(self.old, self._path)
            _sync(os.path.dirname(self._path))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._new)

    def finish(self, keep_hours: float) -> None:
        """The restore is over: its replaced disk counts as kept from now on. Repeatable.

        :param keep_hours: 0 drops it at once
        """
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._new)
        if not os.path.exists(self.old):
            return
        if not keep_hours:
            os.unlink(self.old)
            return
        self._privileged.touch(self.old)
        os.replace(self.old, self._kept)
        _sync(os.path.dirname(self._path))


def expire(image: str, keep_hours: float, is_used: Callable[[str], bool],
           privileged: files.Files | None = None) -> tuple[str, ...]:
    """Drop disks that restores replaced beside ``image`` and kept for long enough.

    Those of a restore that may still be undone have another name, and are not
    looked at.

    :param is_used: whether somebody has use for the file at a path
    :param privileged: for what this process may not do by itself
    :returns: paths of what was dropped
    """
    privileged, dropped = privileged or files.Files(), []
    for kept in sorted(glob.glob(f'{glob.escape(os.path.realpath(image))}.hotsnap-kept-*')):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - os.stat(kept).st_mtime < keep_hours * 3600 or is_used(kept):
                continue
            if os.geteuid() not in (0, os.stat(kept).st_uid):
                privileged.chown(kept, os.geteuid(), -1)    # to look whether it is open
            if _unlink_unopened(kept):
                dropped.append(kept)
    return tuple(dropped)


def chain(path: str) -> tuple[str, ...]:
    """The image and all below it; the image alone where it is none.

    :raises PermissionError: this process may not read it
    """
    with contextlib.suppress(FileNotFoundError):
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    shown = subprocess.run(
        ['qemu-img', 'info', '-U', '--backing-chain', '--output', 'json', path],
        capture_output=True, text=True, check=False)
    below = json.loads(shown.stdout) if not shown.returncode else ()
    return tuple(os.path.realpath(each) for each in (
        path, *(image['filename'] for image in below)))


def _unlink_unopened(path: str) -> bool:
    """Whether the file was removed: no QEMU, and no tool of its, has it open.

    They hold locks on bytes of every image they have open, where the file
    system has locks.
    """
    with open(path, 'r+b') as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        os.unlink(path)
    return True


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
