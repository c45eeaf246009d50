# SPDX-License-Identifier: Apache-2.0
"""The endpoint of `rpcapi`: what Nova's API asks for is begun here, and told from the rows.

The caller is authorised. Whatever can be refused is refused before the answer;
what takes long goes on in a thread, and the row says so before the answer.
"""

import contextlib
import datetime
import time

import oslo_messaging

from hotsnap_nova import exception, rpc
from hotsnap_nova.conductor import (
    actions,
    errands,
    membership,
    quotas,
    requests,
    rows,
    rpcapi,
    shown,
    snapshots,
)

#: Of the time for which an answer is waited for, so much is for the hosts' verdict.
_CHECK_S = 40.0
#: For the last write, and the way there and back.
_SPARE_S = 5.0
#: Statuses of snapshots that take room.
_COUNTED = tuple(each for each in rpcapi.STATUSES if each != rows.ERROR)


class ConductorManager:
    """Serves any of Nova's APIs.

    :param conf: group ``[hotsnap]`` of the configuration
    :param made: `snapshots.Snapshots`
    :param cells: `cells.Cells`, or one like it
    """

    target = oslo_messaging.Target(version=rpcapi.VERSION)

    def __init__(self, conf, database, made: snapshots.Snapshots, cells):
        self._conf = conf
        self._database = database
        self._snapshots = made
        self._cells = cells

    @rpc.answers
    def create(self, context, *, group, name, description, properties, gate, disk):
        ends = _answered_by(context)
        found = self._cells.group(group)
        snapshot = self._snapshots.create(
            self._wanted(context, found, name or '', description=description,
                         properties=properties, gate=gate, disk=disk),
            must_be_wanted=lambda: _must_be_in_time(ends))
        return shown.of(self._get(snapshot))

    @rpc.answers
    def get(self, _context, *, snapshot):
        return shown.of(self._get(snapshot))

    @rpc.answers
    def list(self, _context, *, filters, limit, marker, detail):
        found = self._database.list(**filters, limit=limit, marker=marker)
        return [shown.of(each, detail) for each in found]

    @rpc.answers
    def update(self, _context, *, snapshot, values):
        self._get(snapshot)
        if 'name' in values:
            requests.check_name(values['name'])
        requests.check_texts(values.get('description') or '', values.get('properties'))
        self._database.update(snapshot, **values)
        return shown.of(self._get(snapshot))

    @rpc.answers
    def delete(self, _context, *, snapshot, force):
        found = self._get(snapshot)
        if not force:
            _must_be_idle(found)
        with _in_users_way(found):
            self._snapshots.begin_delete(found, force)

    @rpc.answers
    def restore(self, context, *, snapshot, ignore_new_members, drop_internal_snapshots=False,
                keep_present=None):
        ends = _answered_by(context)
        found = self._get(snapshot)
        snapshots.must_be_available(found)
        servers, places = self._places(context, found, ignore_new_members)

        def look_again():
            _, now = self._places(context, found, ignore_new_members)
            if moved := [each.name for each in found.members
                         if now[each.member_id] != places[each.member_id]]:
                raise exception.MembersMoved(members=', '.join(sorted(moved)))
        caller = _caller(context)
        planned = self._snapshots.plan_restore(
            found, places=places, context=caller,
            drop_internal_snapshots=drop_internal_snapshots)
        present = keep_present and self._wanted(
            context, membership.Group(found.group_id, found.group_name, found.project_id, tuple(
                servers[each.member_id] for each in found.members)), keep_present)
        _must_be_in_time(ends)
        planned = self._snapshots.check_restore(
            planned, min(_CHECK_S, ends - _SPARE_S - time.monotonic()))
        _must_be_in_time(ends)
        request_id = caller['request_id'] or ''
        with _in_users_way(found):
            if present:
                self._snapshots.begin_restore_keeping(
                    found, planned, present, request_id,
                    must_be_wanted=lambda: _must_be_in_time(ends), look_again=look_again)
            else:
                self._snapshots.begin_restore(found, planned, request_id)

    @rpc.answers
    def verify(self, context, *, snapshot):
        found = self._get(snapshot)
        snapshots.must_be_available(found)
        with _in_users_way(found):
            self._snapshots.begin_verify(found, _caller(context)['request_id'] or '')

    @rpc.answers
    def abort(self, _context, *, snapshot):
        self._snapshots.abort(self._get(snapshot).id, 'its user')

    @rpc.answers
    def reset_status(self, _context, *, snapshot, status):
        if status not in rpcapi.RESETTABLE:
            raise exception.InvalidValue(name='status', reason=f'{status} cannot be set')
        self._database.set_status(snapshot, status)

    @rpc.answers
    def check(self, _context, *, group, gate, disk):
        found = self._cells.group(group)
        membership.must_run(found)
        membership.must_answer(self._cells.states(each.host for each in found.servers))
        verdict = self._snapshots.check(
            gate=_gate(gate, self._conf), disk=disk, **_members(found))
        return verdict | {'findings': [
            {'member': each['id'], 'name': each['member'],
             **{key: each[key] for key in ('host', 'device', 'cause', 'remedy', 'rules_out')}}
            for each in verdict['findings']]}

    @rpc.answers
    def parts(self, _context, *, at_host):
        return self._snapshots.parts_of(at_host)

    @rpc.answers
    def forget(self, _context, *, at_host, part):
        return self._snapshots.forget_part(at_host, part)

    # -- inside --------------------------------------------------------------------------------

    def _places(self, context, found, ignore_new_members):
        """The members of a row's snapshot, and where they are, by id, where it can be restored.

        :raises HotsnapError: it cannot; see `membership` and `errands`
        """
        servers = self._cells.servers(each.member_id for each in found.members)
        membership.must_be_of_project(servers.values(), found.project_id)
        membership.must_be_unlocked(servers.values(), context.get(rpcapi.MAY_UNLOCK))
        try:
            group = self._cells.group(found.group_id)
        except rpcapi.GroupNotFound:
            group = None
        errands.must_not_be_owed(
            self._database, found,
            lambda host: self._cells.states([host])[host] == membership.GONE)
        return servers, membership.must_be_as_then(
            found.members, servers, group, self._cells.states(
                {each.host for each in found.members}
                | {each.host for each in servers.values() if each.host}), ignore_new_members)

    def _wanted(self, context, group, name, gate='auto', **more):
        """A request for a snapshot of a group, as its project may have it.

        :param more: of `requests.CreateRequest`
        :raises HotsnapError: it may not, or a member or host is not as it must be
        """
        membership.must_run(group)
        membership.must_answer(self._cells.states(each.host for each in group.servers))
        conf, caller = self._conf, _caller(context)

        def must_fit(others):
            quotas.must_have_room(
                others, conf.max_gib_per_project, conf.restore_keep_hours, group.project_id,
                datetime.datetime.now(datetime.UTC))
        # Before hosts are asked, which takes a while, and once more when it is added: meanwhile
        # others may have been, and their hosts have told what they copy.
        must_fit(self._database.list(project_id=group.project_id, status=_COUNTED))
        limits = (('project_id', group.project_id, conf.max_snapshots_per_project),
                  ('group_id', group.id, conf.max_snapshots_per_group))
        return requests.CreateRequest(
            name, **_members(group), gate=_gate(gate, conf),
            max_pause_ms=conf.max_pause_ms, max_hold_ms=conf.max_hold_ms,
            prepare_timeout_s=conf.prepare_timeout_s, save_timeout_s=conf.save_timeout_s,
            compress=conf.compress, marker_dscp=tuple(conf.marker_dscp),
            group_id=group.id, group_name=group.name, project_id=group.project_id,
            **{key: caller[key] or '' for key in ('user_id', 'request_id')},
            unique_name=False, quotas=tuple(each for each in limits if each[2] >= 0),
            must_fit=must_fit if conf.max_gib_per_project >= 0 else None,
            keep_failed=None if conf.max_failed_per_project < 0 else conf.max_failed_per_project,
            context=caller, **more)

    def _get(self, snapshot):
        """By id alone: names are not unique, and another project may have one like an id."""
        found = self._database.get(snapshot)
        if found.id != snapshot:
            raise exception.SnapshotNotFound(snapshot=snapshot)
        return found


def _answered_by(context):
    """Until when, by `time.monotonic`, whoever asked waits for the answer."""
    left_s = rpc.seconds_left(context)
    return time.monotonic() + (rpcapi.HOSTS_S if left_s is None else left_s)


def _must_be_in_time(ends):
    """Nothing, where whoever asked is still there when it has begun.

    :raises Unavailable: its user is told by now that it failed, or is about to be
    """
    if time.monotonic() >= ends - _SPARE_S:
        raise exception.Unavailable('Whether that can be done could not be told in time; nothing '
                                    'was begun.')


def _caller(context):
    return {key: context.get(key) for key in ('user_id', 'project_id', 'request_id')}


def _members(group):
    return {'members': tuple((each.id, each.host) for each in group.servers),
            'names': {each.id: each.name for each in group.servers},
            'domains': {each.id: each.domain for each in group.servers}}


def _gate(wanted, conf):
    return conf.gate if wanted == 'auto' else wanted


def _must_be_idle(found):
    """Nothing, where a snapshot can be deleted without force.

    What is decided, and goes on at hosts alone, is in nobody's way.
    """
    if found.status in (rows.CREATING, rows.RESTORING, rows.DELETING):
        raise exception.SnapshotBusy(snapshot=found.name, status=found.status)
    if found.action_status == actions.RUNNING:
        raise exception.SnapshotBusy(
            snapshot=found.name, status=f'busy ({found.last_action["name"]})')


@contextlib.contextmanager
def _in_users_way(found):
    """Of two requests for one snapshot at the same time the second is told that it is busy."""
    try:
        yield
    except exception.StaleGeneration as exc:
        raise exception.SnapshotBusy(snapshot=found.name, status='busy') from exc
