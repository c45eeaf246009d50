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
import json
import os
from collections.abc import Callable, Iterable

from oslo_log import log as logging

from hotsnap_nova import exception
from hotsnap_nova.compute import locks
from hotsnap_nova.protocol import durable, hoststate, wire
from hotsnap_nova.storage import durable as files

LOG = logging.getLogger(__name__)

#: Ends the name of a file that cannot be read.
DAMAGED = '.damaged'


class Journal:
    """The journal of one host.

    :param state_path: folder that survives a restart of the host
    """

    def __init__(self, state_path: str, host_locks: locks.Locks):
        self.folder = os.path.join(state_path, 'journal')
        self._ledger = os.path.join(state_path, 'epochs.json')
        self._locks = host_locks
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
        parts = []
        for snapshot in self.known():
            if not self._locks.take(_lock(snapshot)):
                continue
            part = self._read(snapshot)
            if part is None:
                self._locks.release(_lock(snapshot))
            else:
                parts.append(part)
        return tuple(parts)

    def decided(self) -> tuple[durable.Decided, ...]:
        """The ledger of epochs."""
        return read(self._ledger, _decoded_rows) or ()

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
        """Make a decision durable: first the ledger rises, then the part goes."""
        rows = tuple(rows)
        if rows:
            with self._locks.held('epochs'):
                kept = hoststate.ledger(self.decided(), rows)
                write(self._ledger, [wire.encode(row) for row in kept])
        remove(self._path(snapshot))
        remove(self._path(snapshot) + DAMAGED)
        self._locks.release(_lock(snapshot))

    def _read(self, snapshot):
        return read(self._path(snapshot), wire.decode)

    def _path(self, snapshot):
        return os.path.join(self.folder, f'{snapshot}.json')


def _lock(snapshot):
    return f'snapshot-{snapshot}'


def _decoded_rows(plain):
    return tuple(wire.decode(row) for row in plain)


def read(path: str, decoded: Callable):
    """What is ``decoded`` of a file's JSON; None: there is no file, or it was put aside.

    One that cannot be read is in nobody's way, and kept for people to look at.
    """
    try:
        with open(path) as file:
            return decoded(json.load(file))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as exc:
        # Renamed into place whole, so the disk or an operator did this.
        LOG.error('%(path)s cannot be read, and is put aside as %(aside)s: %(why)s',
                  {'path': path, 'aside': path + DAMAGED, 'why': exc})
        files.rename(path, path + DAMAGED)
        return None


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
