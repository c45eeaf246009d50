# SPDX-License-Identifier: Apache-2.0
"""What a host must remember of its restores, whatever becomes of its processes.

::

    <state>/restores/<restore id>.json    a `RestorePart`, and what was kept of its members;
                                          there from before anything is touched
    <state>/restores/ended.json           the ledger: restores that have ended here
    <state>/locks/restore-<id>.lock       who of several processes is at work on which part

The manifest, from which members are made, may be gone when the restore is to be ended: hosts may
share a store, and any of them deletes a snapshot there. So what was read of it is kept here.
"""

import contextlib
import os
import threading
import urllib.parse

from oslo_log import log as logging

from hotsnap_nova import exception
from hotsnap_nova.compute import journal, locks
from hotsnap_nova.protocol import messages, wire
from hotsnap_nova.protocol.restore import durable, participant
from hotsnap_nova.protocol.restore import messages as restore_messages
from hotsnap_nova.storage import durable as files

LOG = logging.getLogger(__name__)

_ENDED = 'ended.json'
_KEPT = 'kept_members'
#: Of a version that was ordered step by step: who takes it over can only end it.
_UPGRADED = messages.Cause('upgraded', 'the host was upgraded in the middle of the restore')


class Orders:
    """The orders of one host.

    :param state_path: folder that survives a restart of the host
    :param host_locks: of that folder
    """

    def __init__(self, state_path: str, host_locks: locks.Locks):
        self.folder = os.path.join(state_path, 'restores')
        self._locks = host_locks
        self._kept: dict[str, list[dict]] = {}
        self._parts: dict[str, durable.RestorePart] = {}    # as they are on disk
        self._unread: frozenset[str] = frozenset()
        self._ledger_is_read = True
        self._mutex = threading.RLock()
        files.make_folders(self.folder)

    def known(self) -> tuple[str, ...]:
        """Ids of all restores that have not ended here, whoever is at work on them."""
        return tuple(sorted(urllib.parse.unquote(name.removesuffix('.json'))
                            for name in os.listdir(self.folder)
                            if name.endswith('.json') and name != _ENDED))

    def on_record(self) -> frozenset[str]:
        """As `known`, and those whose part cannot be read: somebody may still end them here."""
        return frozenset(self.known()) | {
            urllib.parse.unquote(os.path.basename(path).partition('.json')[0])
            for path in journal.damaged(self.folder)}

    def adopt(self) -> tuple[durable.RestorePart, ...]:
        """The parts that nobody is at work on; from now on they are ours."""
        journal.sweep(self.folder, self._locks, lambda name: _lock(urllib.parse.unquote(name)))
        ours = [restore for restore in self.known() if self._locks.take(_lock(restore))]
        found, self._unread = journal.read_at_start(
            {restore: self._path(restore) for restore in ours}, _decoded)
        for restore in ours:
            if restore not in found:
                self._locks.release(_lock(restore))
        for restore, (part, kept) in found.items():
            self._parts[restore] = part
            if kept is not None:
                self._kept[restore] = kept
        return tuple(part for part, _kept in found.values())

    def must_be_read(self, restore: str) -> None:
        """Nothing, where what this host has of a restore is known.

        :raises Unavailable: there is a part that `adopt` could not read; or there is none, and
            `ended` could not read how those ended that are no more
        """
        journal.must_be_read(restore, self._path(restore), self._unread)
        if not self._ledger_is_read and not os.path.lexists(self._path(restore)):
            raise journal.unavailable(self._path_of(_ENDED))

    def unread(self) -> dict[str, str]:
        """Paths of the parts that `adopt` could not read, by restore."""
        return {each: self._path(each) for each in sorted(self._unread)
                if os.path.lexists(self._path(each))}

    def under_way(self) -> dict[str, tuple[str, ...] | None]:
        """Ids of the members by restore, of all that have not ended here; not of those withdrawn.

        None: its part cannot be read now. Whoever is at work on one may write it meanwhile: what
        is damaged is left to them.
        """
        found = {}
        for restore in self.known():
            with contextlib.suppress(journal.Damaged):
                try:
                    read = journal.read(self._path(restore), _decoded)
                except OSError as exc:
                    LOG.warning('Restore %(id)s: whose it is cannot be read now: %(error)s',
                                {'id': restore, 'error': exc})
                    found[restore] = None
                    continue
                if read:
                    part, _kept = read
                    found[part.restore] = tuple(member.id for member in part.share.members
                                                if member.id not in part.withdrawn)
        return found

    def ended(self) -> tuple[durable.RestoreEnded, ...]:
        """The ledger, oldest first; none where it cannot be read, see `journal.read_at_start`."""
        with self._locks.held('restores-ended'):
            found, left = journal.read_at_start({_ENDED: self._path_of(_ENDED)}, _decoded_rows)
        self._ledger_is_read = not left
        return found.get(_ENDED, ())

    def claim(self, restore: str) -> None:
        """Nothing, where this process may work on the restore; no other can until `end`.

        :raises SnapshotBusy: another process works on it
        """
        if not (self._locks.holds(_lock(restore)) or self._locks.take(_lock(restore))):
            raise exception.SnapshotBusy(snapshot=restore,
                                         status='being restored by another process')

    def kept(self, restore: str) -> list[dict] | None:
        """What `keep` was given; None: nothing was touched yet."""
        return self._kept.get(restore)

    def keep(self, restore: str, members: list[dict]) -> None:
        """Remember what the manifest says of the members, as durably as the part is."""
        with self._mutex:
            self._kept[restore] = members
            if part := self._parts.get(restore):
                self.write(part)

    def write(self, part: durable.RestorePart) -> None:
        """Make a part durable.

        :raises SnapshotBusy: another process works on it
        """
        self.claim(part.restore)
        with self._mutex:
            journal.write(self._path(part.restore),
                          wire.encode(part) | {_KEPT: self._kept.get(part.restore)})
            self._parts[part.restore] = part

    def end(self, ended: durable.RestoreEnded) -> None:
        """Make an end durable: first the ledger knows it, then the part goes.

        :raises SnapshotBusy: another process works on it
        :raises OSError: nothing has ended; the ledger cannot be read now, or written
        """
        self.claim(ended.restore)
        with self._locks.held('restores-ended'):
            known = journal.read_own(self._path_of(_ENDED), _decoded_rows) or ()
            others = [row for row in known if row.restore != ended.restore]
            rows = [*others, ended][-participant.KEPT:]
            journal.write(self._path_of(_ENDED), [wire.encode(row) for row in rows])
        with self._mutex:
            journal.remove(self._path(ended.restore))
            self._parts.pop(ended.restore, None)
            self._kept.pop(ended.restore, None)
        self._locks.release(_lock(ended.restore))

    def _path(self, restore):
        # It comes over the bus, and must not name a file elsewhere, or the ledger.
        name = f'{urllib.parse.quote(restore, safe="")}.json'
        return self._path_of(name if name != _ENDED else f'%65{name[1:]}')

    def _path_of(self, name):
        return os.path.join(self.folder, name)


def _lock(restore):
    return f'restore-{urllib.parse.quote(restore, safe="")}'


def _decoded_rows(plain):
    return tuple(wire.decode(row) for row in plain)


def _decoded(plain):
    """(part, what was kept of its members)."""
    if 'kind' in plain:
        return wire.decode(plain), plain.get(_KEPT)
    return _of_steps(plain)


def _of_steps(plain):
    """What hosts before RPC 1.3 kept: anything up to a start may have been done."""
    members = tuple(messages.Member(each['spec']['id'], each['spec']['name'])
                    for each in plain['members'])
    share = restore_messages.Share(plain['snapshot_id'], members, plain['paused'])
    part = durable.RestorePart(
        plain['restore_id'], share, restore_messages.Step.START, durable.Status.INTERRUPTED,
        refusal=_UPGRADED)
    return part, [{'id': each['spec']['id'], 'name': each['spec']['name'],
                   'folder': each['folder'], 'facts': each['facts']}
                  for each in plain['members']]
