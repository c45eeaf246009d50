# SPDX-License-Identifier: Apache-2.0
"""A coordinator behind `conductor.rpcapi`, all in memory: nothing is snapshotted.

Time passes when somebody looks: each ``get`` of a snapshot takes it one step on.
"""

import copy
import itertools
import uuid

import oslo_messaging

from hotsnap_nova import exception, rpc
from hotsnap_nova.conductor import rpcapi

_PHASES = ('record', 'release', 'save', 'finish')


class Conductor:
    """An endpoint for `rpc.open_server`.

    :ivar groups: id → {name, project_id, members: {id: name}}; the tests' to fill
    :ivar faults: method → what it raises, ``faults_left`` times in all; None: always
    :ivar verdict: of ``check``; None: the first member rules out a gate
    :ivar fail_next: {code, message, member, host}: what the next work begun ends with
    :ivar warnings: what restores warn of, as `rpcapi` tells it
    :ivar contexts: of each call
    """

    target = oslo_messaging.Target(version=rpcapi.VERSION)

    def __init__(self, quota=100):
        self.quota = quota
        self.groups = {}
        self.faults = {}
        self.faults_left = None
        self.verdict = None
        self.fail_next = None
        self.warnings = []
        self.contexts = []
        self.calls = []
        self.snapshots = {}
        self._future = {}
        self._seconds = itertools.count()

    def add_group(self, group_id, name, project_id, members=('web', 'db')):
        self.groups[group_id] = {'name': name, 'project_id': project_id, 'members': {
            str(uuid.uuid4()): member for member in members}}

    # -- what is called ------------------------------------------------------------------------

    @rpc.answers
    def create(self, context, *, group, name, description, properties, gate, disk):
        self._begin(context, 'create', group=group, gate=gate, disk=disk)
        found = self._group(group)
        used = sum(each['project_id'] == found['project_id'] for each in self.snapshots.values())
        if used >= self.quota:
            raise exception.OverQuota(used=used, limit=self.quota,
                                   scope=f'project {found["project_id"]}')
        now, epoch = self._now(), len(self.snapshots) + 1
        snapshot = {
            'id': str(uuid.uuid4()), 'name': name or f'{found["name"]}-{epoch}',
            'description': description, 'properties': properties, 'group_id': group,
            'group_name': found['name'], 'project_id': found['project_id'],
            'user_id': context['user_id'], 'request_id': context['request_id'],
            'status': 'creating', 'phase': 'prepare', 'gate': 'hold' if gate == 'auto' else gate,
            'disk': disk, 'epoch': epoch, 'created_at': now, 'updated_at': now, 'skew_ms': None,
            'error': None, 'last_action': None,
            'members': [{'id': member_id, 'name': member, 'host': f'host{index}',
                         'pause_ms': None, 'wait_ms': None, 'hold_ms': None, 'size_bytes': None,
                         'done_bytes': 0, 'total_bytes': 0}
                        for index, (member_id, member) in enumerate(found['members'].items())]}
        self.snapshots[snapshot['id']] = snapshot
        self._future[snapshot['id']] = [*({'phase': phase} for phase in _PHASES), self._created]
        return snapshot

    @rpc.answers
    def get(self, context, *, snapshot):
        self._begin(context, 'get')
        shown = copy.deepcopy(self._one(snapshot))
        self._step(snapshot)
        return shown

    @rpc.answers
    def list(self, context, *, filters, limit, marker, detail):
        self._begin(context, 'list', filters=filters, limit=limit, detail=detail)
        if marker is not None:
            self._one(marker)
        found = [each for each in reversed(self.snapshots.values())
                 if all(each[key] == value for key, value in filters.items())]
        if marker is not None:
            found = found[[each['id'] for each in found].index(marker) + 1:]
        return [each if detail else {key: value for key, value in each.items()
                                     if key != 'members'} for each in found[:limit]]

    @rpc.answers
    def update(self, context, *, snapshot, values):
        self._begin(context, 'update', **values)
        self._one(snapshot).update(values, updated_at=self._now())
        return self.snapshots[snapshot]

    @rpc.answers
    def delete(self, context, *, snapshot, force):
        self._begin(context, 'delete', force=force)
        if not force:
            self._must_be(snapshot, 'available', 'error', 'error_deleting')
        self.snapshots[snapshot]['status'] = 'deleting'
        self._future[snapshot] = [{}, self._deleted]

    @rpc.answers
    def restore(self, context, *, snapshot, ignore_new_members, drop_internal_snapshots=False,
                keep_present=None):
        self._begin(context, 'restore', ignore_new_members=ignore_new_members,
                    drop_internal_snapshots=drop_internal_snapshots, keep_present=keep_present)
        found = self._must_be(snapshot, 'available')
        now = self.groups[found['group_id']]['members']
        then = {each['id'] for each in found['members']}
        if then - set(now):
            raise rpcapi.MembersDeleted(members=', '.join(sorted(
                each['name'] for each in found['members'] if each['id'] not in now)))
        if set(now) - then and not ignore_new_members:
            raise rpcapi.MembersAdded(members=', '.join(sorted(
                name for member, name in now.items() if member not in then)))
        result = {'warnings': self.warnings} if self.warnings else {}
        if keep_present is None:
            found['status'] = 'restoring'
            self._act(context, found, 'restore', ('stop', 'start', 'resume'), result or None)
        else:
            self._act(context, found, 'restore', ('restore', 'stop', 'start', 'resume'),
                      {'kept_present': str(uuid.uuid4())} | result)

    @rpc.answers
    def verify(self, context, *, snapshot):
        self._begin(context, 'verify')
        found = self._must_be(snapshot, 'available')
        self._act(context, found, 'verify', ('verify',), {'files': 6, 'size_bytes': 1 << 30})

    @rpc.answers
    def abort(self, context, *, snapshot):
        self._begin(context, 'abort')
        self._must_be(snapshot, 'creating')
        self.fail_next = {'code': 'aborted', 'message': 'The snapshot was aborted by its user.',
                          'member': None, 'host': None}
        self._future[snapshot] = [{'phase': 'discard'}, self._created]

    @rpc.answers
    def reset_status(self, context, *, snapshot, status):
        self._begin(context, 'reset_status', status=status)
        self._one(snapshot).update(status=status)
        self._future.pop(snapshot, None)

    @rpc.answers
    def check(self, context, *, group, gate, disk):
        self._begin(context, 'check', gate=gate, disk=disk)
        member, name = next(iter(self._group(group)['members'].items()))
        return self.verdict or {
            'possible': True, 'restorable': True, 'gates': ['barrier'], 'findings': [
                {'member': member, 'name': name, 'host': 'host0', 'device': 'net0',
                 'cause': 'it uses vhost', 'remedy': 'take it off vhost', 'rules_out': ['hold']}]}

    # -- inside --------------------------------------------------------------------------------

    def _begin(self, context, method, **kwargs):
        self.contexts.append(context)
        self.calls.append((method, kwargs))
        if method in self.faults and self.faults_left != 0:
            if self.faults_left:
                self.faults_left -= 1
            raise self.faults[method]

    def _now(self):
        return f'2026-01-31T12:00:{next(self._seconds):02d}Z'

    def _group(self, group):
        if group not in self.groups:
            raise rpcapi.GroupNotFound(group=group)
        if not self.groups[group]['members']:
            raise exception.EmptyGroup()
        return self.groups[group]

    def _one(self, snapshot):
        if snapshot not in self.snapshots:
            raise exception.SnapshotNotFound(snapshot=snapshot)
        return self.snapshots[snapshot]

    def _must_be(self, snapshot, *statuses):
        found = self._one(snapshot)
        if found['status'] not in statuses:
            raise exception.SnapshotBusy(snapshot=found['name'], status=found['status'])
        return found

    def _step(self, snapshot):
        future = self._future.get(snapshot)
        if not future:
            return
        change = future.pop(0)
        if callable(change):
            change(self.snapshots[snapshot])
        else:
            self.snapshots[snapshot].update(change)

    def _created(self, found):
        error, self.fail_next = self.fail_next, None
        found.update(phase='', error=error, status='error' if error else 'available')
        if error:
            return
        found['skew_ms'] = 1.5
        for each in found['members']:
            each.update(pause_ms=12.25, wait_ms=0.0, hold_ms=14.5, size_bytes=1 << 20,
                        done_bytes=1 << 20, total_bytes=1 << 20)

    def _act(self, context, found, name, phases, result):
        action = {'name': name, 'status': 'running', 'started_at': self._now(),
                  'finished_at': None, 'request_id': context['request_id'], 'error': None,
                  'result': result if name == 'restore' else None}
        found['last_action'] = action

        def end(found):
            error, self.fail_next = self.fail_next, None
            action.update(status='failed' if error else 'done', finished_at=self._now(),
                          error=error, result=None if error else result)
            found.update(status='available', phase='')
        self._future[found['id']] = [*({'phase': phase} for phase in phases), end]

    def _deleted(self, found):
        error, self.fail_next = self.fail_next, None
        if error:
            found.update(status='error_deleting', error=error)
        else:
            del self.snapshots[found['id']]
