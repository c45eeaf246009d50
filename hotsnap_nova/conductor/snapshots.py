# SPDX-License-Identifier: Apache-2.0
"""The snapshots of this coordinator: begun, looked after, given up, deleted."""

import contextlib
import dataclasses
import time
import uuid
from collections.abc import Callable

from hotsnap_nova import exception, rpc
from hotsnap_nova.conductor import (
    actions,
    deletion,
    errands,
    fanout,
    keeping,
    making,
    marking,
    parts,
    recovery,
    requests,
    restorations,
    restoring,
    rows,
    verifying,
    work,
)
from hotsnap_nova.protocol import durable, messages
from hotsnap_nova.protocol.restore import durable as restores

_NAMESPACE = uuid.UUID('0f5a6c1e-94c9-4f4b-8d4b-6f1c5b0b2f6e')
_POLL_S = 0.1
#: In which hosts say whether they can restore, where nobody waits for an answer.
_CHECK_S = 600.0
#: Longer than hosts may take to say whether a snapshot is possible: so long the row is kept for a
#: restore that is to wait for one.
_KEEP_S = 60.0


class Snapshots(recovery.Recovery):
    """All that can be done with group snapshots.

    How it is made: see `recovery.Recovery`.
    """

    # -- making --------------------------------------------------------------------------------

    def create(self, request: requests.CreateRequest, watcher: work.Watcher | None = None,
               must_be_wanted: Callable[[], None] = lambda: None, wanted_id: str = '') -> str:
        """The id of a snapshot that is now being made; see `wait`.

        :param must_be_wanted: raises where nobody wants it any more; asked before it begins
        :param wanted_id: of the snapshot; empty: a new one
        :raises Invalid: nothing was touched
        """
        request.check()
        members = self._find(request)
        verdicts = self._check(members, request)
        gate = requests.choose_gate(request.gate, verdicts)
        must_be_wanted()
        snapshot = wanted_id or str(uuid.uuid4())
        group = request.group_id or _group_of(members)
        epoch = self._database.next_epoch(group)
        request = dataclasses.replace(request, name=requests.name_of(request, epoch))
        row = rows.first(snapshot, epoch, group, gate, members, request, self._absent_s,
                         marking.of(request, epoch, verdicts) if gate == requests.MARKER else None)
        owner = self._new_owner()
        made = making.Making(row, self._database, self._compute, owner, self._lease_s, watcher,
                             request.deadline_s, self._silence_s)
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
                owner=owner, lease_s=made.lease_s, unique_name=request.unique_name,
                quotas=request.quotas, must_fit=request.must_fit,
                keep_failed=request.keep_failed)
            self._start(made)
        finally:
            self._beginning.discard(snapshot)
        return snapshot

    def abort(self, name: str, who: str) -> None:
        """Give up what goes on with a snapshot, whichever coordinator is at it.

        Returns at once, and waits for no host. One that is being made is in ``error`` when that
        is over, one that is being restored as it was; or it was too far.

        :raises SnapshotBusy: nothing goes on, or it is past that
        """
        found = self._database.get(name)
        _must_be_abortable(found)
        text = f'aborted by {who}'
        # In the row whoever is at it finds the wish, and whoever takes it over.
        self._database.request_abort(found.id, text)
        if going_on := self._work_on(found.id):
            going_on.abort(messages.Cause(exception.Aborted.code, text))
        else:
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
        asked = (requests.MARKER,) if gate == requests.MARKER else ()
        gates = [each for each in asked + requests.PREFERENCE
                 if all(each in verdict['gates'] for verdict in verdicts.values())]
        findings = [dict(finding, host=host) for host, verdict in verdicts.items()
                    for finding in verdict['findings']]
        ruled_out = {name for finding in findings for name in finding['rules_out']}
        possible = bool(gates) and requests.SNAPSHOT not in ruled_out
        return {'possible': possible, 'gates': gates, 'findings': findings,
                'restorable': possible and requests.RESTORE not in ruled_out}

    def wait_until_over(self, name: str, timeout_s: float = 120.0) -> None:
        """Return when nothing goes on with a snapshot any more, here or elsewhere.

        :raises SnapshotBusy: it takes longer than ``timeout_s``
        """
        ends = time.monotonic() + timeout_s
        while goes_on(found := self._database.get(name)):
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
        return verifying.verified(self._available(name), self._compute, tell)

    def begin_verify(self, found, request_id: str) -> None:
        """Have a verification go on; the row tells its end.

        :param found: the row
        :raises StaleGeneration: somebody else was quicker
        """
        owner, begun = self._new_owner(), actions.begun('verify', request_id)
        generation = self._database.compare_and_swap(
            found.id, found.generation, **begun, abort_request=None, lease=(owner, self._lease_s))
        self._start(verifying.Verifying(
            found, self._database, self._compute, owner, self._lease_s, begun['last_action'],
            generation))

    def begin_delete(self, found, force: bool = False) -> None:
        """Have hosts remove a snapshot; the row goes with the last of them, or by force at once.

        :param found: the row
        :raises StaleGeneration, SnapshotNotFound: somebody else was quicker
        """
        self.errands.begin(deletion.begin(self._database, found, force))

    def delete(self, name: str) -> None:
        """Remove a snapshot everywhere, and return when that is done; it may be repeated.

        :raises SnapshotBusy: it is being made or restored
        :raises HotsnapError: a host has not done its part; it still owes it
        """
        found = self._database.get(name)
        if found.status in (rows.CREATING, rows.RESTORING):
            raise exception.SnapshotBusy(snapshot=found.name, status=found.status)
        deletion.begin(self._database, found)
        self.errands.run(found.id)

    # -- bringing back -------------------------------------------------------------------------

    def plan_restore(self, found, paused: bool = False, places: dict[str, str] | None = None,
                     context: dict | None = None,
                     drop_internal_snapshots: bool = False) -> restores.Restore:
        """A restore of this row, not begun; the arguments are of `restorations.planned`."""
        return restorations.planned(found, str(uuid.uuid4()), self._restore_limits, paused,
                                    places, context,
                                    drop_internal_snapshots=drop_internal_snapshots)

    def check_restore(self, planned: restores.Restore, timeout_s: float) -> restores.Restore:
        """With what hosts warn of, where each can restore its share; touches nothing.

        :raises HostUnreachable: one has not said so in time
        :raises HotsnapError: what stands in the way
        """
        shares = dict(planned.hosts)
        told = fanout.each(shares, lambda host: self._compute.check_restore(
            host, planned.restore, shares[host], timeout_s))
        return dataclasses.replace(planned, warnings=tuple(
            each for host in sorted(told) for each in told[host]))

    def begin_restore(self, found, planned: restores.Restore, request_id: str = '',
                      watcher: work.Watcher | None = None) -> None:
        """Have a restore go on; the row tells its end.

        :param found: the row
        :raises StaleGeneration: somebody else was quicker
        """
        self._begin_restore(found, planned, found.generation,
                            restorations.begun(planned, request_id), watcher)

    def _begin_restore(self, found, planned, generation, begun, watcher):
        owner = self._new_owner()
        generation = self._database.compare_and_swap(
            found.id, generation, **begun, lease=(owner, self._lease_s))
        self._start(restoring.Restoring(
            dataclasses.replace(planned, generation=generation), self._database, self._compute,
            owner, self._lease_s, begun['last_action'], restorations.names(found), watcher))

    def begin_restore_keeping(self, found, planned: restores.Restore,
                              present: requests.CreateRequest, request_id: str = '',
                              watcher: work.Watcher | None = None,
                              must_be_wanted: Callable[[], None] = lambda: None,
                              look_again: Callable[[], None] = lambda: None) -> str:
        """Have a snapshot keep the present, and a restore go on once it is available.

        The row tells the end of both, and the id of that snapshot from the beginning.

        :param found: the row
        :param present: of the members of ``planned``
        :param must_be_wanted: as of `create`
        :param look_again: raises where the restore is not possible by then; hosts are asked, too
        :returns: the id of the snapshot that is now being made
        :raises StaleGeneration: somebody else was quicker
        :raises HotsnapError: the snapshot is not possible; nothing was touched
        """
        owner, kept = self._new_owner(), str(uuid.uuid4())
        begun = actions.begun('restore', request_id, restorations.hosts(planned),
                              {keeping.RESULT: kept})
        generation = self._database.compare_and_swap(
            found.id, found.generation, **begun, abort_request=None,
            lease=(owner, self._lease_s + _KEEP_S))

        def begin(must_be_wanted):
            # As things are by now: while the present was kept others may have been restored.
            errands.must_be_published(self._database, self._database.get(kept))
            look_again()
            now = self.check_restore(planned, _CHECK_S)
            must_be_wanted()
            self._begin_restore(found, now, generation,
                                restorations.begun_after(now, begun['last_action']), watcher)
        waiting = keeping.Keeping(found.id, generation, kept, self._database, owner,
                                  self._lease_s, begun['last_action'], begin, self._give_up,
                                  watcher)
        self._beginning.add(found.id)    # before our own recovery can find its row
        try:
            self.create(present, waiting.watch, must_be_wanted, kept)
            self._start(waiting)
        except BaseException:
            with contextlib.suppress(exception.HotsnapError):    # its lease ends by itself
                self._database.compare_and_swap(
                    found.id, generation, last_action=found.last_action,
                    action_status=found.action_status, lease=(None, 0))
            raise
        finally:
            self._beginning.discard(found.id)
        return kept

    def restore(self, name: str, paused: bool = False, watcher: work.Watcher | None = None,
                is_unwanted: Callable[[], bool] = lambda: False,
                drop_internal_snapshots: bool = False,
                present: requests.CreateRequest | None = None) -> tuple[dict, ...]:
        """Bring all members back to the cut; returns when they run, or with ``paused`` stand.

        What it returns is to be known, though nothing failed: see `restorations.warnings`.

        :param is_unwanted: asked now and then whether to give up
        :param drop_internal_snapshots: see `restorations.options`
        :param present: the snapshot to be made first, whose members and group this names
        :raises CleanupIncomplete: the end is decided, and a host fails at it
        :raises LeaseHeld: another coordinator has taken it over
        :raises HotsnapError: everything is as before, but that old members may be stopped; or
            some member or host is named that is not as it should be
        """
        found = self._available(name)
        errands.must_not_be_owed(self._database, found)
        planned = self.plan_restore(found, paused,
                                    drop_internal_snapshots=drop_internal_snapshots)
        planned = self.check_restore(planned, _CHECK_S)
        if present:
            self.begin_restore_keeping(
                found, planned, present, watcher=watcher,
                look_again=lambda: errands.must_not_be_owed(self._database, found))
        else:
            self.begin_restore(found, planned, watcher=watcher)
        aborted = False
        while not self.wait_patiently(found.id, timeout_s=0.2):
            if is_unwanted() and not aborted:
                aborted = True
                with contextlib.suppress(exception.SnapshotBusy):    # too late
                    self.abort(found.id, 'the user')
        found = self._database.get(found.id)
        _must_have_ended(found)
        return restorations.warnings(found.last_action)

    # -- what nobody is to end any more --------------------------------------------------------

    def parts_of(self, host: str) -> tuple[dict, ...]:
        """What a host has: see `parts.of`."""
        return parts.of(self._database, self._compute, host)

    def forget_part(self, host: str, part: str) -> bool:
        """Whether a part has ended on its host: see `parts.forget`."""
        return parts.forget(self._database, self._compute, host, part)

    # -- inside --------------------------------------------------------------------------------

    def _give_up(self, snapshot, why):
        """Have a snapshot given up that nobody waits for any more, if that is still possible."""
        with contextlib.suppress(exception.SnapshotBusy, exception.SnapshotNotFound):
            self.abort(snapshot, why)

    def _available(self, name):
        found = self._database.get(name)
        must_be_available(found)
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
        for verdict in verdicts.values():
            for finding in verdict['findings']:
                if 'id' not in finding:
                    _as_of_1_3(finding, request)
                finding['id'] = finding['id'] or finding['member']    # the group's
        if request.gate == requests.MARKER:
            marking.judge(request, members, verdicts)
        return verdicts


def _as_of_1_3(finding, request):
    """Complete what a host of before 1.3 has found: it knows a guest by libvirt's name alone."""
    finding['id'] = next((member_id for member_id, name in request.domains.items()
                          if name == finding['member']), '')
    finding['member'] = request.names.get(finding['id'], finding['member'])
    finding.setdefault('rules_out', finding['gates'] or [requests.SNAPSHOT])


def goes_on(found) -> bool:
    """Whether some coordinator is at a snapshot, or has to be."""
    return (found.status in (rows.CREATING, rows.RESTORING) or not found.closed
            or found.action_status == actions.RUNNING)


def must_be_available(found) -> None:
    """Nothing, where a snapshot can be used.

    :raises SnapshotBusy:
    """
    if found.status == rows.AVAILABLE and not goes_on(found):
        return
    status = found.status
    if found.status == rows.AVAILABLE:
        status = f'busy ({found.last_action["name"] if found.closed else found.phase})'
    raise exception.SnapshotBusy(snapshot=found.name, status=status)


def _must_be_abortable(found):
    status = found.status
    if found.restore:
        row = restorations.load(found, restores.RestoreLimits())
        if row.resolution is not restores.Resolution.RESUME:
            return
        status = 'past that: it is decided that its members run'
    elif found.action_status == actions.RUNNING:
        return
    elif not found.closed:    # whatever status an operator has set
        if found.decision != durable.Decision.FINISH:
            return
        status = 'past that: it is decided that it is kept'
    raise exception.SnapshotBusy(snapshot=found.name, status=status)


def _must_have_ended(found):
    """Nothing, where the row tells that the restore went well.

    :raises HotsnapError: why not
    """
    action = found.last_action
    if action['status'] == actions.RUNNING:
        raise exception.LeaseHeld(snapshot=found.name, owner=found.lease_owner or 'nobody')
    if error := action['error']:
        raise rpc.exception_of({**error, 'details': {
            key: error[key] for key in ('member', 'host') if error[key]}})


def _group_of(members):
    """The same id for the same members, so that their epochs grow."""
    ids = sorted(each['id'] for here in members.values() for each in here)
    return str(uuid.uuid5(_NAMESPACE, ','.join(ids)))
