# SPDX-License-Identifier: Apache-2.0
"""The snapshots of this coordinator: begun, looked after, given up, deleted."""

import dataclasses
import time
import uuid
from collections.abc import Callable

from hotsnap_nova import exception
from hotsnap_nova.conductor import drive, fanout, recovery, requests, rows
from hotsnap_nova.protocol import messages

_NAMESPACE = uuid.UUID('0f5a6c1e-94c9-4f4b-8d4b-6f1c5b0b2f6e')
_POLL_S = 0.1


class Snapshots(recovery.Recovery):
    """All that can be done with group snapshots.

    How it is made: see `recovery.Recovery`.
    """

    # -- making --------------------------------------------------------------------------------

    def create(self, request: requests.CreateRequest,
               watcher: drive.Watcher | None = None) -> str:
        """The id of a snapshot that is now being made; see `wait`.

        :raises Invalid: nothing was touched
        """
        request.check()
        members = self._find(request)
        gate = requests.choose_gate(request.gate, self._check(members, request))
        snapshot = str(uuid.uuid4())
        group = request.group_id or _group_of(members)
        epoch = self._database.next_epoch(group)
        request = dataclasses.replace(request, name=requests.name_of(request, epoch))
        row = rows.first(snapshot, epoch, group, gate, members, request)
        driven = drive.Drive(row, self._database, self._compute, self._owner, self._lease_s,
                             watcher, request.deadline_s, self._silence_s)
        self._beginning.add(snapshot)    # before our own recovery can find its row
        try:
            self._database.create({
                'id': snapshot, 'name': request.name, 'description': request.description,
                'properties': request.properties, 'group_id': group,
                'group_name': request.group_name or request.name, 'project_id': request.project_id,
                'user_id': request.user_id, 'request_id': request.request_id, 'epoch': epoch,
                'gate': gate, 'disk': request.disk, 'status': rows.CREATING, 'phase': 'prepare',
                'machine': rows.dump(row),
            }, [{'member_id': each['id'], 'name': each['name'], 'host': host}
                for host, here in members.items() for each in here],
                owner=self._owner, lease_s=driven.lease_s, unique_name=request.unique_name,
                quotas=request.quotas)
            self._start(driven)
        finally:
            self._beginning.discard(snapshot)
        return snapshot

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

    def check(self, members: tuple[tuple[str, str], ...], gate: str = 'auto', **more) -> dict:
        """What hosts say of a group; nothing is touched.

        :param more: of `requests.CreateRequest`
        :returns: {possible, restorable, gates, findings}: gates that all can do; of each finding
            {member, id, host, device, cause, remedy, rules_out}
        """
        request = requests.CreateRequest('check', members, gate, **more)
        request.check()
        verdicts = self._check(self._find(request), request)
        gates = [each for each in requests.PREFERENCE
                 if all(each in verdict['gates'] for verdict in verdicts.values())]
        findings = [dict(finding, host=host) for host, verdict in verdicts.items()
                    for finding in verdict['findings']]
        ruled_out = {name for finding in findings for name in finding['rules_out']}
        possible = bool(gates) and requests.SNAPSHOT not in ruled_out
        return {'possible': possible, 'gates': gates, 'findings': findings,
                'restorable': possible and requests.RESTORE not in ruled_out}

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
        deleting = self.deleting(found)
        deleting.begin()
        deleting.carry_out()

    def restore(self, name: str, paused: bool = False, watcher: drive.Watcher | None = None,
                is_unwanted: Callable[[], bool] = lambda: False) -> None:
        """Bring all members back to the cut; returns when they run.

        :param is_unwanted: asked now and then whether to give up

        :raises HotsnapError: everything is as before, but that old members may be stopped
        """
        self.restoring(self._available(name)).run(paused, watcher, is_unwanted)

    # -- inside --------------------------------------------------------------------------------

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
        if request.names:
            return {host: [{'id': each, 'name': request.names[each]} for each in here]
                    for host, here in by_host.items()}
        found = fanout.each(by_host, lambda host: self._compute.find(host, by_host[host]))
        seen = set()
        for here in found.values():
            for member in here:
                if member['id'] in seen:
                    raise exception.DuplicateMember(member=member['name'])
                seen.add(member['id'])
        return found

    def _check(self, members, request):
        verdicts = fanout.each(members, lambda host: self._compute.check(
            host, members[host], request.gate))
        # Hosts know a guest by libvirt's name, its user perhaps by another.
        ids = {name: member_id for names in (request.names, request.domains)
               for member_id, name in names.items()}
        for verdict in verdicts.values():
            for finding in verdict['findings']:
                finding['id'] = ids.get(finding['member'], finding['member'])
                finding['member'] = request.names.get(finding['id'], finding['member'])
                # A host of before 1.3 has no other words.
                finding.setdefault('rules_out', finding['gates'] or [requests.SNAPSHOT])
        return verdicts


def hosts_of(found) -> tuple[str, ...]:
    """Hosts that keep a part of a snapshot."""
    return tuple(sorted({member.host for member in found.members}))


def _group_of(members):
    """The same id for the same members, so that their epochs grow."""
    ids = sorted(each['id'] for here in members.values() for each in here)
    return str(uuid.uuid5(_NAMESPACE, ','.join(ids)))
