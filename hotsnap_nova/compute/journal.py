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

import json
import os
from collections.abc import Iterable

from oslo_log import log as logging

from hotsnap_nova import exception
from hotsnap_nova.compute import locks
from hotsnap_nova.protocol import durable, hoststate, wire

LOG = logging.getLogger(__name__)

#: Ends the name of a file that cannot be read.
DAMAGED = '.damaged'


class Journal:
    """The journal of one host.

    :param state_path: folder that survives a restart of the host
    """

    def __init__(self, state_path: str, host_locks: locks.Locks):
        self._folder = os.path.join(state_path, 'journal')
        self._ledger = os.path.join(state_path, 'epochs.json')
        self._locks = host_locks
        os.makedirs(self._folder, mode=0o700, exist_ok=True)

    def known(self) -> tuple[str, ...]:
        """Ids of all snapshots in the journal, whoever is at work on them."""
        return tuple(sorted(name.removesuffix('.json') for name in os.listdir(self._folder)
                            if name.endswith('.json')))

    def adopt(self) -> tuple[durable.Part, ...]:
        """The parts that nobody is at work on; from now on they are ours."""
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
        try:
            with open(self._ledger) as file:
                return tuple(wire.decode(row) for row in json.load(file))
        except FileNotFoundError:
            return ()
        except ValueError as exc:
            raise exception.StoreUnavailable(store=self._ledger, reason=str(exc)) from exc

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
        self._locks.release(_lock(snapshot))

    def _read(self, snapshot):
        try:
            with open(self._path(snapshot)) as file:
                return wire.decode(json.load(file))
        except FileNotFoundError:
            return None
        except ValueError as exc:
            # Renamed into place whole, so the disk or an operator did this.
            raise exception.StoreUnavailable(
                store=self._path(snapshot), reason=f'damaged journal: {exc}') from exc

    def _path(self, snapshot):
        return os.path.join(self._folder, f'{snapshot}.json')


def _lock(snapshot):
    return f'snapshot-{snapshot}'


def read(path: str):
    """The JSON of a file; None: there is none, or none that can be read, which is put aside."""
    try:
        with open(path) as file:
            return json.load(file)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        put_aside(path, exc)
        return None


def put_aside(path: str, why: Exception) -> None:
    """What cannot be read is in nobody's way any more, and kept for people to look at."""
    # Renamed into place whole, so the disk or an operator did this.
    LOG.error('%(path)s is damaged and put aside, as %(path)s%(suffix)s: %(why)s',
              {'path': path, 'suffix': DAMAGED, 'why': why})
    os.rename(path, f'{path}{DAMAGED}')
    _sync(os.path.dirname(path))


def write(path: str, content) -> None:
    """Make JSON durable: after a crash there is all of the old or all of the new."""
    aside = f'{path}.new-{os.getpid()}'
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, 'w') as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.rename(aside, path)
    _sync(os.path.dirname(path))


def remove(path: str) -> None:
    """Have no such file, even after a crash."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    _sync(os.path.dirname(path))


def _sync(folder):
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
