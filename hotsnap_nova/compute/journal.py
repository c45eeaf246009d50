# SPDX-License-Identifier: Apache-2.0
"""What a host must remember of its parts in snapshots, whatever becomes of its processes.

::

    <state>/journal/<snapshot id>.json    a `Part`; there from before its first stop
    <state>/epochs.json                   the ledger: how snapshots ended for each member
    <state>/locks/                        who of several processes is at work on which part

Files are written aside, fsynced and renamed. A part's file is written only
while the lock ``snapshot-<id>`` is held: a part whose lock is free was left
behind by a process that died.
"""

import contextlib
import errno
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping

from oslo_log import log as logging

from hotsnap_nova import exception
from hotsnap_nova.compute import locks
from hotsnap_nova.protocol import durable, hoststate, wire
from hotsnap_nova.storage import durable as files

LOG = logging.getLogger(__name__)

#: Ends the name of a file that is not what was written.
DAMAGED = '.damaged'
#: What cannot be read at a start is tried again after so long each: NFS, or who has all of the
#: process's files open, may need a moment.
_AGAIN_S = (0.1, 0.4, 1.0)


class Damaged(Exception):
    """A file is there, and is not what was written."""


class Journal:
    """The journal of one host.

    :param state_path: folder that survives a restart of the host
    """

    def __init__(self, state_path: str, host_locks: locks.Locks):
        self.folder = os.path.join(state_path, 'journal')
        self._ledger = os.path.join(state_path, 'epochs.json')
        self._locks = host_locks
        self._unread: frozenset[str] = frozenset()
        self._ledger_is_read = True
        files.make_folders(self.folder)

    def known(self) -> tuple[str, ...]:
        """Ids of all snapshots in the journal, whoever is at work on them."""
        return tuple(sorted(name.removesuffix('.json') for name in os.listdir(self.folder)
                            if name.endswith('.json')))

    def has(self, snapshot: str) -> bool:
        """Whether there is a part of this snapshot, be it one that cannot be read."""
        return any(os.path.exists(self._path(snapshot) + suffix) for suffix in ('', DAMAGED))

    def adopt(self) -> tuple[durable.Part, ...]:
        """The parts that nobody is at work on; from now on they are ours."""
        sweep(self.folder, self._locks, _lock)
        ours = [snapshot for snapshot in self.known() if self._locks.take(_lock(snapshot))]
        found, self._unread = read_at_start(
            {snapshot: self._path(snapshot) for snapshot in ours}, wire.decode)
        for snapshot in ours:
            if snapshot not in found:
                self._locks.release(_lock(snapshot))
        return tuple(found.values())

    def must_be_read(self, snapshot: str) -> None:
        """Nothing, where what this host has of a snapshot is known.

        :raises Unavailable: there is a part that `adopt` could not read; or there is none, and
            `decided` could not read how those ended that are no more
        """
        must_be_read(snapshot, self._path(snapshot), self._unread)
        if not self._ledger_is_read and not os.path.lexists(self._path(snapshot)):
            raise unavailable(self._ledger)

    def unread(self) -> dict[str, str]:
        """Paths of the parts that `adopt` could not read, by snapshot."""
        return {each: self._path(each) for each in sorted(self._unread)
                if os.path.lexists(self._path(each))}

    def decided(self) -> tuple[durable.Decided, ...]:
        """The ledger of epochs; none of it where it cannot be read now, see `read_at_start`."""
        with self._locks.held('epochs'):
            found, left = read_at_start({'': self._ledger}, _decoded_rows)
        self._ledger_is_read = not left
        return found.get('', ())

    def claim(self, snapshot: str) -> bool:
        """Whether this process may work on the snapshot; no other can until `forget`."""
        return self._locks.holds(_lock(snapshot)) or self._locks.take(_lock(snapshot))

    def write(self, part: durable.Part) -> None:
        """Make a part durable.

        :raises SnapshotBusy: another process works on it
        """
        if not self.claim(part.snapshot):
            raise exception.SnapshotBusy(snapshot=part.snapshot,
                                         status='in the hands of another process')
        write(self._path(part.snapshot), wire.encode(part))

    def forget(self, snapshot: str, rows: Iterable[durable.Decided]) -> None:
        """Make a decision durable: first the ledger rises, then the part goes.

        :raises OSError: nothing was forgotten; the ledger cannot be read now, or written
        """
        rows = tuple(rows)
        if rows:
            with self._locks.held('epochs'):
                kept = hoststate.ledger(read_own(self._ledger, _decoded_rows) or (), rows)
                write(self._ledger, [wire.encode(row) for row in kept])
        remove(self._path(snapshot))
        remove(self._path(snapshot) + DAMAGED)
        self._locks.release(_lock(snapshot))

    def _path(self, snapshot):
        return os.path.join(self.folder, f'{snapshot}.json')


def _lock(snapshot):
    return f'snapshot-{snapshot}'


def _decoded_rows(plain):
    return tuple(wire.decode(row) for row in plain)


def read(path: str, decoded: Callable):
    """What is ``decoded`` of a file's JSON; None: there is no file.

    :raises Damaged: it is not what was written
    :raises OSError: it cannot be read now, and is in its place
    """
    try:
        with open(path) as file:
            return decoded(json.load(file))
    except FileNotFoundError:
        return None
    except (IsADirectoryError, ValueError, TypeError, LookupError, AttributeError) as exc:
        # Renamed into place whole, so the disk or an operator did this.
        raise Damaged(str(exc)) from exc


def read_own(path: str, decoded: Callable):
    """As `read`, of what nobody else writes meanwhile, for its lock is held.

    One that is damaged is put aside, and None: it is in nobody's way, and kept for people to look
    at.
    """
    try:
        return read(path, decoded)
    except Damaged as exc:
        _put_aside(path, exc)
        return None


def read_at_start(paths: Mapping[str, str], decoded: Callable) -> tuple[dict, frozenset[str]]:
    """As `read_own`, by key what is there, and keys of what cannot be read even after a while.

    Nobody waits for one that the disk has lost: where EIO lasts it is put aside, too. What else
    cannot be read stays where it is, and whoever starts next tries again; it keeps nobody from
    the others.
    """
    found, left = {}, dict.fromkeys(paths)
    for wait_s in (0.0, *_AGAIN_S):
        if not left:
            break
        time.sleep(wait_s)
        for key in tuple(left):
            with _noted(left, key):
                content = read_own(paths[key], decoded)
                del left[key]
                if content is not None:
                    found[key] = content
    for key, error in tuple(left.items()):
        if error.errno == errno.EIO:
            with _noted(left, key):
                _put_aside(paths[key], error)
                del left[key]
        else:
            LOG.error('%(path)s cannot be read now, and waits for the next start: %(why)s. Repair '
                      'that, and start this service again', {'path': paths[key], 'why': error})
    return found, frozenset(left)


def must_be_read(key: str, path: str, unread_keys: frozenset[str]) -> None:
    """Nothing, unless `read_at_start` left a file that is still there.

    :raises Unavailable: it is; what it would be asked would be answered as by one that lost it
    """
    if key in unread_keys and os.path.lexists(path):
        raise unavailable(path)


def unavailable(path: str) -> exception.Unavailable:
    """What to raise where a file is there that could not be read at the start."""
    return exception.Unavailable(f'What is on record in {path} could not be read: repair that, '
                                 'and start the service again.')


@contextlib.contextmanager
def _noted(errors, key):
    try:
        yield
    except OSError as exc:
        errors[key] = exc


def _put_aside(path, why):
    LOG.error('%(path)s cannot be read, and is put aside as %(aside)s: %(why)s',
              {'path': path, 'aside': path + DAMAGED, 'why': why})
    files.rename(path, path + DAMAGED)


def damaged(folder: str) -> tuple[str, ...]:
    """Paths of the files in a folder that could not be read."""
    return tuple(os.path.join(folder, name) for name in sorted(os.listdir(folder))
                 if name.endswith(DAMAGED))


def write(path: str, content) -> None:
    """Make JSON durable: after a crash there is all of the old or all of the new."""
    files.write(path, json.dumps(content).encode())


def remove(path: str) -> None:
    """Have no such file, even after a crash, nor what a crash left beside it."""
    for name in (path, f'{path}.new'):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
    files.sync(os.path.dirname(path))


def sweep(folder: str, host_locks: locks.Locks, lock_of: Callable[[str], str]) -> None:
    """Remove what processes that died in `write` left in a folder of files with locks."""
    for name in os.listdir(folder):
        key, aside, _pid = name.partition('.json.new')    # up to 1.2 with the process's id
        if aside and host_locks.take(lock_of(key)):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(folder, name))
            host_locks.release(lock_of(key))
