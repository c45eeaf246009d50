# SPDX-License-Identifier: Apache-2.0
"""What restores leave beside disks, until it is old: see `replacement` and `parts`.

One replaced disk an image is kept: the next restore's takes its place.
"""

import contextlib
import fcntl
import functools
import glob
import os
import time
from collections.abc import Callable, Collection

from oslo_log import log

from hotsnap_nova import exception
from hotsnap_nova.virt import domain, files
from hotsnap_nova.virt.disks import image
from hotsnap_nova.virt.restore import parts

LOG = log.getLogger(__name__)

#: A disk of the cut that nobody put in its place for so long belongs to no restore any more. One
#: that needs it all the same fails before it has touched anything. So does a member's memory of a
#: restore that is not on record here, which whoever needs it unpacks again. Marks, which nobody
#: could make again, stay: other processes may have them on record.
_ABANDONED_HOURS = 24.0


class Keeper:
    """What the engine does with them, by the domains that it finds.

    :ivar keep_hours: how long replaced disks are kept
    :ivar files: who does what only root may do with disks
    """

    keep_hours = 24.0
    files = files.Files()

    def drop_expired(self, on_record: Collection[str] = ()) -> tuple[str, ...]:
        """Drop disks that restores replaced more than ``keep_hours`` ago, or never came to use.

        They are looked for beside the disks of every domain defined here; what
        is a disk of one, or below one, stays. So is its memory of restores that have ended: where
        a host lost its power at the end, or its journal, it may be there again.

        :param on_record: ids of restores that may still need what they have
        :returns: paths of what was dropped
        """
        definitions = tuple(self._definitions())
        used = _users(lambda: definitions)
        dropped = self._drop_ended(definitions, used, on_record)
        for path in sorted({os.path.realpath(disk.path) for definition in definitions
                            for disk in definition.disks
                            if disk.writable and disk.kind == 'file' and disk.path}):
            try:
                for name, hours in (('kept', self.keep_hours), ('new', _ABANDONED_HOURS)):
                    dropped += expire(path, name, hours, used, self.files)
            except OSError as exc:
                LOG.warning('Disks kept beside %(image)s cannot be dropped: %(error)s',
                            {'image': path, 'error': exc})
        return dropped

    def _drop_ended(self, definitions, used, on_record):
        dropped = ()
        for each in definitions:
            for folder in {os.path.dirname(os.path.realpath(disk.path)) for disk in each.disks
                           if disk.writable and disk.path}:
                try:
                    for what in parts.MADE_AGAIN:
                        start = os.path.join(folder, parts.before(each.uuid, what))
                        dropped += _expire(
                            start, _ABANDONED_HOURS, lambda path, start=start:
                            path.removeprefix(start).removesuffix('.new') in on_record
                            or used(path), self.files)
                    dropped += _expire(
                        os.path.join(folder, parts.before(each.uuid, parts.TRIAL)),
                        _ABANDONED_HOURS, used, self.files)
                except OSError as exc:
                    LOG.warning('What ended restores left in %(folder)s cannot be dropped: '
                                '%(error)s', {'folder': folder, 'error': exc})
        return dropped

    def drop_older(self, part: parts.Part) -> None:
        """Drop what earlier restores kept of a member, as far as that can be done now."""
        used = _users(self._definitions)
        for placed in part.replaced:
            try:
                expire(placed.path, 'kept', 0.0,
                       lambda kept, own=placed.kept: kept == own or used(kept), self.files)
            except (OSError, exception.HotsnapError) as exc:
                LOG.warning('Disks kept beside %(image)s are dropped later: %(error)s',
                            {'image': placed.path, 'error': exc})

    def _definitions(self):
        """Of every domain, as it runs and as it would start."""
        for each in self._libvirt().listAllDomains():
            # It may go away, or be busy ending, while we ask.
            with contextlib.suppress(exception.HotsnapError):
                found = self._guest(each.UUIDString())
                yield domain.DomainXml(found.full_xml())
                yield domain.DomainXml(found.xml(live=False))


def expire(path: str, name: str, keep_hours: float, is_used: Callable[[str], bool],
           privileged: files.Files | None = None) -> tuple[str, ...]:
    """Drop what restores left beside an image as ``hotsnap-<name>-``, if it is old enough.

    :param is_used: whether somebody has use for the file at a path; what it raises keeps it
    :param privileged: for what this process may not do by itself
    :returns: paths of what was dropped
    """
    return _expire(f'{os.path.realpath(path)}.hotsnap-{name}-', keep_hours, is_used,
                   privileged or files.Files())


def _expire(start, keep_hours, is_used, privileged):
    """The same of all whose path starts so."""
    dropped = []
    for left in sorted(glob.glob(f'{glob.escape(start)}*')):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - os.stat(left).st_mtime < keep_hours * 3600 or is_used(left):
                continue
            if os.geteuid() not in (0, os.stat(left).st_uid):
                privileged.chown(left, os.geteuid(), -1)    # to look whether it is open
            if _unlink_unopened(left):
                dropped.append(left)
    return tuple(dropped)


def _unlink_unopened(path):
    """Whether the file was removed: nobody has it open, were it to read; see `imagelock`."""
    with open(path, 'r+b') as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        os.unlink(path)
    return True


def _users(definitions):
    """Whether a path is a disk of a domain, or below one; asked for only where it matters."""
    @functools.cache
    def used():
        return {below for definition in definitions() for path, form in definition.images
                for below in image.chain(path, form)}
    return lambda path: path in used()
