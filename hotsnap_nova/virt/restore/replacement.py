# SPDX-License-Identifier: Apache-2.0
"""A disk put back as it was at the cut, and the one it replaces kept aside.

Beside the image, named after the restore::

    <image>.hotsnap-new-<restore>    the disk of the cut, being made or ready
    <image>.hotsnap-old-<restore>    the disk that was replaced, while the restore may be undone
    <image>.hotsnap-kept-<restore>   the same, once the restore is over: it may expire

The names alone say what was done, so an undo needs no journal. At no instant is the image's own
path without a disk, or a disk without a name, nor after a loss of power. And what the path names
changes only while no QEMU can open either disk: see `imagelock`.
"""

import contextlib
import json
import os
import subprocess
from collections.abc import Callable

from hotsnap_nova import exception
from hotsnap_nova.virt import files, records
from hotsnap_nova.virt.disks import image
from hotsnap_nova.virt.restore import durable, imagelock

_LOOK_S = 0.2

Tell = Callable[[int], None]


def require_alone(member: records.MemberSpec, device: str, source: str) -> None:
    """Return where an image that a store keeps has all its data in itself, as we write them.

    :raises exception.Refused: reading it would be reading another file of this host's
    """
    if cause := image.kept_fault(source):
        raise exception.Refused(member=member, device=device, cause=cause,
                                remedy=image.KEPT_REMEDY)


def _options(effort):
    limit = ['-r', str(effort.limit_bytes_s)] if effort.limit_bytes_s else []
    return limit + (['-t', 'none', '-T', 'none'] if effort.direct else [])


def _alone(source):
    """The image for QEMU's tools, and nothing below it, whatever its header says by now."""
    return 'json:' + json.dumps({
        'driver': 'qcow2', 'backing': None, 'file': {'driver': 'file', 'filename': source}})


class Replacement:
    """One disk of one restore.

    :param path: of the image the domain uses
    :param form: the image's format, as the domain has it
    :param privileged: for what this process may not do by itself
    :param noted: what `noted` said after the preparation; None: only names are known
    :ivar old: where the disk that was replaced is, if it was and the restore is not over
    """

    def __init__(self, member: records.MemberSpec, path: str, form: str, restore_id: str,
                 privileged: files.Files | None = None, noted: dict | None = None):
        self._member = member
        self._privileged = privileged or files.Files()
        self.path = os.path.realpath(path)
        self.form = form
        self._noted = noted
        self.new = f'{self.path}.hotsnap-new-{restore_id}'
        self.old = f'{self.path}.hotsnap-old-{restore_id}'
        self.kept = f'{self.path}.hotsnap-kept-{restore_id}'

    # -- the disk of the cut -------------------------------------------------------------------

    def prepare(self, source: str, tell: Tell = lambda _bytes: None,
                effort: records.Effort = records.ALL_EFFORT) -> None:
        """Make the disk of the cut from ``source`` (qcow2, only read), durably. Repeatable.

        :param tell: called with how many bytes there are, now and then; what it raises ends it
        """
        if self.swapped:
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.new)
        try:
            self._convert(source, tell, effort)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.new)
            raise
        # Opened and changed while it is ours: afterwards only QEMU's user may.
        with open(self.new, 'rb') as new:
            with contextlib.suppress(FileNotFoundError):
                os.chmod(self.new, os.stat(self.path).st_mode & 0o7777)
                self._take_owner()
            os.fsync(new.fileno())
        durable.sync_folder_of(self.path)

    def _convert(self, source, tell, effort):
        require_alone(self._member, self.path, source)
        options = _options(effort)
        if image.is_set_aside(self.path, source):
            options += ['-o', 'preallocation=falloc']
        with subprocess.Popen(
                ['qemu-img', 'convert', '-q', *options, '-O', self.form, _alone(source), self.new],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                text=True, umask=0o077) as made:
            try:
                while True:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        _none, said = made.communicate(timeout=_LOOK_S)
                        break
                    with contextlib.suppress(FileNotFoundError):
                        tell(os.stat(self.new).st_blocks * 512)
            except BaseException:
                made.kill()
                raise
        if made.returncode:
            raise exception.TargetFailed(
                member=self._member, device=self.path,
                reason=said.strip().splitlines()[-1] if said else 'qemu-img failed')

    def take_owner(self) -> None:
        """The disk of the cut belongs to whoever has the image now. Repeatable.

        libvirt lends disks to QEMU's user, and only a guest that has stopped tells from whom.
        """
        if not os.path.exists(self.old):    # else it may be ours for a moment: see `_link_old`
            with contextlib.suppress(FileNotFoundError):
                self._take_owner()

    def _take_owner(self):
        owner, new = os.stat(self.path), os.stat(self.new)
        if (owner.st_uid, owner.st_gid) != (new.st_uid, new.st_gid):
            self._privileged.chown(self.new, owner.st_uid, owner.st_gid)

    def noted(self) -> dict:
        """What a swap must find again: which files these are, and what of the cut's would change.

        Inodes alone, for devices are numbered anew at each boot; JSON.

        :raises FileNotFoundError: it is not prepared
        """
        cut = os.stat(self.path if self.swapped else self.new)
        old = imagelock.identity(self.old if self.swapped else self.path)
        return {'path': self.path, 'form': self.form, 'old': old and old[1],
                'new': cut.st_ino, 'size_bytes': cut.st_size, 'mtime_ns': cut.st_mtime_ns}

    # -- what there is -------------------------------------------------------------------------

    @property
    def swapped(self) -> bool:
        """Whether the path names another file than the disk it had before the restore."""
        return os.path.exists(self.old) and not self._still_own()

    @property
    def touched(self) -> bool:
        """Whether there is anything of the restore beside the image, before it is over."""
        return any(os.path.lexists(each) for each in (self.new, self.old))

    @property
    def written(self) -> bool:
        """Whether somebody wrote to the disk of the cut in the image's place; False if unknown.

        QEMU writes nothing to a disk by opening it, nor for a guest that stands at the cut.
        """
        if self._noted is None or not self.swapped:
            return False
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            return False
        return (status.st_size, status.st_mtime_ns) != (
            self._noted['size_bytes'], self._noted['mtime_ns'])

    @property
    def known(self) -> bool:
        """Whether `written` can be told."""
        return self._noted is not None

    def prove_unused(self) -> None:
        """Return where nobody has the image open, and it is the one of the preparation.

        :raises imagelock.ImageInUse: somebody has
        :raises GuestChanged: it is another
        """
        with contextlib.suppress(FileNotFoundError), contextlib.ExitStack() as locks:
            self._lock(locks, self.path, 'new' if self.swapped else 'old')

    # -- swap and undo -------------------------------------------------------------------------

    @contextlib.contextmanager
    def locked(self):
        """For the block, nobody can open the old disk or that of the cut, wherever they are.

        It lasts until nobody can be about to open one by a name that it no longer has.

        :raises imagelock.ImageInUse: somebody has one of them open
        :raises exception.GuestChanged: one is another than at the preparation
        :raises exception.TargetFailed: the disk of the cut is not there: not prepared, or undone
        """
        with contextlib.ExitStack() as locks:
            if os.path.exists(self.new):
                self._lock(locks, self.new, 'new')
                if os.path.exists(self.path):
                    self._lock(locks, self.path, 'old')
            elif self.swapped:
                self._lock(locks, self.path, 'new')
                self._lock(locks, self.old, 'old')
            else:
                raise self._missing()
            yield

    def swap(self) -> None:
        """The disk of the cut takes the image's place; both are `locked`. Repeatable.

        :raises exception.GuestChanged: another file of that name is in the way
        :raises exception.TargetFailed: the disk of the cut is not there: not prepared, or undone
        """
        if not os.path.exists(self.new):
            if not self.swapped:
                raise self._missing()
            return
        if os.path.exists(self.path):
            self._link_old()
        os.replace(self.new, self.path)
        durable.sync_folder_of(self.path)

    def _link_old(self):
        with contextlib.suppress(FileExistsError):
            try:
                os.link(self.path, self.old)
            except PermissionError:
                # The kernel lets nobody link another's file (fs.protected_hardlinks): it is ours
                # for a moment. Nobody misses it, for the guest is stopped.
                self._privileged.chown(self.path, os.geteuid(), -1)
                os.link(self.path, self.old)
        # Its new name is on the disk before its old one is another's.
        durable.sync_folder_of(self.path)
        if not self._still_own():
            raise exception.GuestChanged(
                member=self._member, reason=f'{self.old} is there, and is not {self.path}')
        owner = os.stat(self.new)
        if os.stat(self.old).st_uid != owner.st_uid:    # since just now, or an earlier try
            self._privileged.chown(self.old, owner.st_uid, owner.st_gid)

    @contextlib.contextmanager
    def locked_to_undo(self):
        """The same for the disk of the cut, where it is in the image's place."""
        with contextlib.ExitStack() as locks:
            if self.swapped and os.path.exists(self.path):
                self._lock(locks, self.path, 'new')
            yield

    def undo(self) -> None:
        """The old disk is back, whatever was done; it is `locked_to_undo`. Repeatable.

        What somebody wrote to the disk of the cut meanwhile is kept, as ``kept``.
        """
        if self.swapped:
            if self.written:
                with contextlib.suppress(FileExistsError):
                    os.link(self.path, self.kept)
                durable.sync_folder_of(self.path)
            os.replace(self.old, self.path)
            durable.sync_folder_of(self.path)
        for name in (self.old, self.new):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
                durable.sync_folder_of(self.path)

    def finish(self, keep_hours: float) -> None:
        """The restore is over: its replaced disk counts as kept from now on. Repeatable.

        :param keep_hours: 0 drops it at once
        """
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.new)
        if not os.path.exists(self.old):
            return
        if not keep_hours or self._still_own():
            os.unlink(self.old)
            durable.sync_folder_of(self.path)
            return
        self._privileged.touch(self.old)
        os.replace(self.old, self.kept)
        durable.sync_folder_of(self.path)

    # -- inside --------------------------------------------------------------------------------

    def _missing(self):
        return exception.TargetFailed(member=self._member, device=self.path,
                                      reason='the disk of the cut is no longer there')

    def _still_own(self):
        return imagelock.identity(self.old) == imagelock.identity(self.path)

    def _lock(self, locks, path, which):
        locked = locks.enter_context(imagelock.ImageLock(path, self._privileged))
        wanted = self._noted and self._noted[which]
        if wanted and locked.identity[1] != wanted:
            raise exception.GuestChanged(
                member=self._member, reason=f'the file at {path} is no longer the one that it was '
                'when the restore was prepared')
