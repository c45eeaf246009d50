# SPDX-License-Identifier: Apache-2.0
"""The restores a host has begun, as it was ordered to do them.

::

    <state>/restores/<restore id>.json    a `RestoreWork`; there from before anything is touched

The manifest, from which an order is made, may be gone when the restore is to be
ended: hosts may share a store, and any of them deletes a snapshot there.
"""

import dataclasses
import json
import os
import urllib.parse

from hotsnap_nova import exception
from hotsnap_nova.compute import journal
from hotsnap_nova.virt import records


class Orders:
    """The orders of one host.

    :param state_path: folder that survives a restart of the host
    """

    def __init__(self, state_path: str):
        self._folder = os.path.join(state_path, 'restores-by-step')
        os.makedirs(self._folder, mode=0o700, exist_ok=True)

    def read(self, restore_id: str) -> records.RestoreWork | None:
        """The order; None: this host has not begun the restore, or has ended it.

        :raises StoreUnavailable: the file is damaged
        """
        path = self._path(restore_id)
        try:
            with open(path) as file:
                return _work(json.load(file))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as exc:
            # Renamed into place whole, so the disk or an operator did this.
            raise exception.StoreUnavailable(store=path, reason=f'damaged: {exc}') from exc

    def under_way(self) -> dict[str, tuple[str, ...]]:
        """Ids of the members by restore, of all that were begun here and have not ended.

        :raises StoreUnavailable: a file is damaged
        """
        works = (self.read(urllib.parse.unquote(name.removesuffix('.json')))
                 for name in sorted(os.listdir(self._folder)) if name.endswith('.json'))
        return {work.restore_id: tuple(member.spec.id for member in work.members)
                for work in works if work}

    def write(self, work: records.RestoreWork) -> None:
        """Make an order durable."""
        journal.write(self._path(work.restore_id), dataclasses.asdict(work))

    def forget(self, restore_id: str) -> None:
        """The restore has ended here; repeating it is harmless."""
        journal.remove(self._path(restore_id))

    def _path(self, restore_id):
        # It comes over the bus, and must not name a file elsewhere.
        return os.path.join(self._folder, f'{urllib.parse.quote(restore_id, safe="")}.json')


def _work(plain):
    return records.RestoreWork(
        snapshot_id=plain['snapshot_id'], restore_id=plain['restore_id'], paused=plain['paused'],
        members=tuple(records.RestoreMember(
            spec=records.MemberSpec(each['spec']['id'], each['spec']['name']),
            folder=each['folder'], facts=each['facts']) for each in plain['members']),
        notes=plain.get('notes', {}))
