# SPDX-License-Identifier: Apache-2.0
"""The snapshots of this coordinator: begun, looked after, given up, deleted, recovered."""

import datetime
import json
import threading
import time
import uuid
from collections.abc import Callable

from oslo_log import log as logging

from hotsnap_nova import exception
from hotsnap_nova.conductor import drive, fanout, requests, restore, rows
from hotsnap_nova.protocol import durable, messages

LOG = logging.getLogger(__name__)

_NAMESPACE = uuid.UUID('0f5a6c1e-94c9-4f4b-8d4b-6f1c5b0b2f6e')
#: Between the last cut and its host's word of it, and for releases that dawdle.
_SPARE_MS = 1_000
_POLL_S = 0.1


class Snapshots:
    """All that can be done with group snapshots.

    :param database: `db.api`, or one like it
    :param compute: `compute.rpcapi.ComputeApi`
    :param owner: who holds the leases; unique to this process
    :param is_dead: whether an owner is known to be no more, so that its
        leases need not be waited for
    :param patience_s: how long hosts may take for what was decided before those
        who wait are told
    """

    def __init__(self, database, compute, owner: str, lease_s: float = 30.0,
                 is_dead: Callable[[str], bool] = lambda _owner: False,
                 patience_s: float = 30.0):
        self._database = database
        self._compute = compute
        self._owner = owner
        self._lease_s = lease_s
        self._is_dead = is_dead
        self._patience_s = patience_s
        self._drives: dict[str, drive.Drive] = {}
        self._mutex = threading.Lock()

    # -- making --------------------------------------------------------------------------------

    def create(self, request: requests.CreateRequest,
               watcher: drive.Watcher | None = None) -> str:
        """The id of a snapshot that is now being made; see `wait`.

        :raises Invalid: nothing was touched
        """
        request.check()
        members = self._find(request)
        gate = requests.choose_gate(request.gate, self._check(members, request.gate))
        snapshot = str(uuid.uuid4())
        group = request.group_id or _group_of(members)
        epoch = self._database.next_epoch(group)
        row = self._row(snapshot, epoch, group, gate, members, request)
        self._database.create({
            'id': snapshot, 'name': request.name, 'description': request.description,
            'properties': request.properties, 'group_id': group,
            'group_name': request.group_name or request.name, 'project_id': request.project_id,
            'user_id': request.user_id, 'request_id': request.request_id, 'epoch': epoch,
            'gate': gate, 'status': rows.CREATING, 'phase': 'prepare', 'machine': rows.dump(row),
        }, [{'member_id': each['id'], 'name': each['name'], 'host': host}
            for host, here in members.items() for each in here],
            owner=self._owner, lease_s=self._lease_s)
        self._start(drive.Drive(row, self._database, self._compute, self._owner, self._lease_s,
                                watcher, request.deadline_s))
        return snapshot

    def wait(self, snapshot: str, timeout_s: float | None = None) -> bool:
        """Whether a snapshot made or recovered here has ended, after waiting for that."""
        with self._mutex:
            driven = self._drives.get(snapshot)
        return driven is None or driven.wait(timeout_s)

    def wait_patiently(self, snapshot: str, timeout_s: float) -> bool:
        """As `wait`, but where hosts fail at what was decided not for ever.

        :raises CleanupIncomplete: recovery goes on with it
        """
        if self.wait(snapshot, timeout_s):
            return True
        if self._drives[snapshot].seconds_decided() >= self._patience_s:
            found = self._database.get(snapshot)
            raise exception.CleanupIncomplete(snapshot=found.name, decision=found.decision)
        return False

    def abort(self, name: str, who: str) -> None:
        """Give up a snapshot that is being made, whichever coordinator makes it.

        Returns at once; when it is over the snapshot is in ``error``, or was too far.

        :raises SnapshotBusy: it is past that
        """
        found = self._database.get(name)
        if found.status != rows.CREATING:
            raise exception.SnapshotBusy(snapshot=found.name, status=found.status)
        text = f'aborted by {who}'
        with self._mutex:
            driven = self._drives.get(found.id)
        if driven:
            driven.abort(messages.Cause(exception.Aborted.code, text))
        else:
            self._database.request_abort(found.id, text)
            self.recover(found.id)    # where its coordinator is dead this is all it takes

    def check(self, members: tuple[tuple[str, str], ...], gate: str = 'auto') -> dict:
        """``{'gates', 'findings'}`` of a group, by what its hosts say; nothing is touched."""
        request = requests.CreateRequest('check', members, gate)
        request.check()
        verdicts = self._check(self._find(request), gate)
        gates = [each for each in requests.PREFERENCE
                 if all(each in verdict['gates'] for verdict in verdicts.values())]
        return {'gates': gates, 'findings': [dict(finding, host=host)
                                             for host, verdict in verdicts.items()
                                             for finding in verdict['findings']]}

    def wait_until_over(self, name: str, timeout_s: float = 120.0) -> None:
        """Return when a snapshot is being made by nobody any more, here or elsewhere.

        :raises SnapshotBusy: it takes longer than ``timeout_s``
        """
        ends = time.monotonic() + timeout_s
        while (found := self._database.get(name)).status == rows.CREATING:
            if time.monotonic() >= ends:
                raise exception.SnapshotBusy(snapshot=found.name, status=found.phase)
            time.sleep(_POLL_S)

    # -- having --------------------------------------------------------------------------------

    def list(self, **filters) -> list:
        return self._database.list(**filters)

    def get(self, name: str):
        """The row of a snapshot with its members.

        :raises SnapshotNotFound, NameNotUnique:
        """
        return self._database.get(name)

    def verify(self, name: str, tell: Callable[[int, int], None] | None = None) -> dict:
        """``{'files', 'size_bytes'}``: everything kept anywhere is as it was written.

        :raises SnapshotDamaged, ManifestDamaged: names what is not
        """
        found = self._available(name)
        done = fanout.each(hosts_of(found), lambda host: self._compute.verify(
            host, found.id, tell))
        return {key: sum(each[key] for each in done.values()) for key in ('files', 'size_bytes')}

    def export(self, name: str, destination: str) -> dict:
        """Paths by member's name: what plain ``virsh restore --xml`` needs, on each host."""
        found = self._available(name)
        done = fanout.each(hosts_of(found), lambda host: self._compute.export(
            host, found.id, destination))
        return {member: paths for each in done.values() for member, paths in each.items()}

    def delete(self, name: str) -> None:
        """Remove a snapshot everywhere; may be repeated until every host has answered.

        :raises SnapshotBusy: it is being made or restored
        """
        found = self._database.get(name)
        if found.status in (rows.CREATING, rows.RESTORING):
            raise exception.SnapshotBusy(snapshot=found.name, status=found.status)
        self._database.compare_and_swap(found.id, found.generation, status=rows.DELETING)
        fanout.each(hosts_of(found), lambda host: self._compute.delete(host, found.id))
        self._database.delete(found.id)

    def restore(self, name: str, paused: bool = False, watcher: drive.Watcher | None = None,
                is_unwanted: Callable[[], bool] = lambda: False) -> None:
        """Bring all members back to the cut; returns when they run.

        :param is_unwanted: asked now and then whether to give up

        :raises HotsnapError: everything is as before, but that old members may be stopped
        """
        found = self._available(name)
        self._restoring(found).run(paused, watcher, is_unwanted)

    # -- after a restart -----------------------------------------------------------------------

    def recover(self, only: str | None = None) -> tuple[str, ...]:
        """Go on with what dead coordinators left; ids of the snapshots taken over."""
        taken = []
        for found in self._database.open_snapshots():
            driven_here = found.id in self._drives and not self.wait(found.id, 0)
            if driven_here or only not in (None, found.id):
                continue
            force = bool(found.lease_owner) and self._is_dead(found.lease_owner)
            if not self._database.take_lease(found.id, self._owner, self._lease_s, force=force):
                continue
            LOG.warning('Snapshot %s is taken over', found.id)
            try:
                self._take_over(self._database.get(found.id))
            except Exception as exc:
                # One that cannot be gone on with must not be in the way of all else.
                LOG.error('Snapshot %(id)s cannot be gone on with yet: %(error)s',
                          {'id': found.id, 'error': exc})
                self._database.release_lease(found.id, self._owner)
            else:
                taken.append(found.id)
        return tuple(taken)

    def close(self) -> None:
        """Return when nothing is driven here any more; what hosts fail at is left to recovery."""
        for snapshot, driven in tuple(self._drives.items()):
            while not self.wait(snapshot, timeout_s=0.2):
                if driven.seconds_decided() >= self._patience_s:
                    driven.leave()

    # -- inside --------------------------------------------------------------------------------

    def _take_over(self, found):
        if found.status == rows.RESTORING:
            self._restoring(found).recover()
        else:
            self._start(drive.Drive(rows.load(found.machine, found.generation),
                                    self._database, self._compute, self._owner,
                                    self._lease_s), resume=True)

    def _restoring(self, found):
        return restore.Restore(found, self._database, self._compute, self._owner, self._lease_s)

    def _start(self, driven, resume=False):
        with self._mutex:
            self._drives[driven.snapshot] = driven
            driven.start(resume)

    def _available(self, name):
        found = self._database.get(name)
        if found.status != rows.AVAILABLE:
            raise exception.SnapshotBusy(snapshot=found.name, status=found.status)
        return found

    def _find(self, request):
        """Members by host: ``{'id', 'name'}`` each."""
        by_host: dict[str, list[str]] = {}
        for name, host in request.members:
            by_host.setdefault(host, []).append(name)
        found = fanout.each(by_host, lambda host: self._compute.find(host, by_host[host]))
        seen = set()
        for here in found.values():
            for member in here:
                if member['id'] in seen:
                    raise exception.DuplicateMember(member=member['name'])
                seen.add(member['id'])
        return found

    def _check(self, members, gate):
        return fanout.each(members, lambda host: self._compute.check(host, members[host], gate))

    def _row(self, snapshot, epoch, group, gate, members, request):
        delays = {each['id']: request.record_delays_s[each['name']]
                  for here in members.values() for each in here
                  if each['name'] in request.record_delays_s}
        created_at = datetime.datetime.now(datetime.UTC).strftime('%Y-%m-%dT%H:%M:%S.%fZ')
        options = json.dumps({
            'name': request.name, 'description': request.description,
            'properties': request.properties, 'group_name': request.group_name or request.name,
            'created_at': created_at, 'compress': request.compress, 'record_delays_s': delays})
        hosts = tuple(
            (host, messages.Work(
                group, tuple(messages.Member(each['id'], each['name']) for each in here),
                messages.Gate(gate), request.max_pause_ms, request.max_hold_ms, options))
            for host, here in sorted(members.items()))
        longest = max(len(here) for here in members.values())
        record_ms = (request.max_pause_ms * longest + request.max_hold_ms + _SPARE_MS
                     + int(sum(delays.values()) * 1000))
        deadline_ms = int((request.deadline_s or request.save_timeout_s) * 1000)
        return durable.Snapshot(snapshot, epoch, hosts, durable.Limits(
            prepare_timeout_ms=min(int(request.prepare_timeout_s * 1000), deadline_ms),
            record_timeout_ms=record_ms, save_timeout_ms=deadline_ms, repeat_ms=500))


def hosts_of(found) -> tuple[str, ...]:
    """Hosts that keep a part of a snapshot."""
    return tuple(sorted({member.host for member in found.members}))


def _group_of(members):
    """The same id for the same members, so that their epochs grow."""
    ids = sorted(each['id'] for here in members.values() for each in here)
    return str(uuid.uuid5(_NAMESPACE, ','.join(ids)))
