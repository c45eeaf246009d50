# SPDX-License-Identifier: Apache-2.0
"""Routes, verbs and statuses, through all of Nova's pipeline."""

import uuid
from urllib import parse

from hotsnap_nova import exception
from hotsnap_nova.api import faults, versions
from hotsnap_nova.conductor import rpcapi
from tests.nova import base
from tests.nova.base import SNAPSHOTS


class CreateTest(base.ApiTestCase):

    def create(self, client=None, **wanted):
        return (client or self.api).post(SNAPSHOTS, {'server_group_snapshot': wanted})

    def test_create_answers_202_with_the_snapshot_in_the_making(self):
        group = self.make_group('shop')

        answer = self.create(server_group_id=group, name='nightly', description='before',
                             properties={'ticket': '7'}, gate='barrier', disk='backup')

        assert answer.status_code == 202, answer.text
        shown = answer.json()['server_group_snapshot']
        wanted = {'name': 'nightly', 'description': 'before', 'properties': {'ticket': '7'},
                  'status': 'creating', 'server_group_id': group, 'gate': 'barrier',
                  'project_id': base.PROJECT, 'user_id': 'fake', 'error': None,
                  'request_id': answer.headers['x-openstack-request-id']}
        assert {key: shown[key] for key in wanted} == wanted
        assert {each['name'] for each in shown['members']} == {'web-1', 'web-2'}

    def test_create_needs_no_more_than_the_group(self):
        group = self.make_group('shop')

        answer = self.create(server_group_id=group)

        assert answer.json()['server_group_snapshot']['name'] == 'shop-1'
        assert self.conductor.calls == [
            ('create', {'group': group, 'gate': 'auto', 'disk': 'backup'})]

    def test_a_route_with_the_project_in_it_is_the_same_route(self):
        made = self.make_snapshot()

        answer = self.api.get(f'/{base.PROJECT}{SNAPSHOTS}/{made["id"]}')

        assert answer.status_code == 200
        assert answer.json()['server_group_snapshot']['id'] == made['id']

    def test_an_unknown_group_is_404(self):
        message = self.fault(self.create(server_group_id=str(uuid.uuid4())), 404, 'itemNotFound')

        assert 'no server group' in message
        assert self.conductor.calls == []

    def test_another_projects_group_is_404(self):
        group = self.make_group(client=self.stranger)

        self.fault(self.create(server_group_id=group), 404, 'itemNotFound')

        assert self.conductor.calls == []

    def test_an_admins_snapshot_of_another_projects_group_is_that_projects(self):
        group = self.make_group(client=self.stranger)

        answer = self.create(self.admin, server_group_id=group)

        assert answer.json()['server_group_snapshot']['project_id'] == base.OTHER_PROJECT

    def test_an_empty_group_is_400(self):
        group = self.make_group(members=())

        message = self.fault(self.create(server_group_id=group), 400, 'badRequest')

        assert message == 'The group has no members.'

    def test_bad_fields_are_400_and_the_coordinator_hears_of_none(self):
        group = self.make_group()
        for bad in ({'colour': 'red'}, {'gate': 'ajar'}, {'gate': 'none'}, {'name': ''},
                    {'name': ' spaced'}, {'name': 'x' * 256}, {'name': 7}, {'disk': 'copy'},
                    {'properties': {'a': 1}}, {'properties': 'a=b'},
                    {'server_group_id': 'web'}, {'description': 'x' * 256}):
            with self.subTest(bad):
                self.fault(self.create(**{'server_group_id': group} | bad), 400, 'badRequest')

        self.fault(self.create(), 400, 'badRequest')
        self.fault(self.api.post(SNAPSHOTS, {'snapshot': {}}), 400, 'badRequest')
        self.fault(self.api.post(SNAPSHOTS, None), 400, 'badRequest')
        assert self.conductor.calls == []

    def test_over_quota_is_403_with_the_numbers_and_a_code(self):
        self.conductor.quota = 1
        self.make_snapshot()

        answer = self.create(server_group_id=self.make_group('second'))

        message = self.fault(answer, 403, 'forbidden')
        assert message.startswith('Quota exceeded: 1 of 1')
        assert answer.headers[faults.CODE_HEADER] == 'over_quota'
        assert len(self.conductor.snapshots) == 1

    def test_each_branch_of_our_errors_has_its_status(self):
        group = self.make_group()
        for error, status, name in (
                (exception.Refused(member='web', device='vda', cause='it is rbd',
                                   remedy='use a file'), 400, 'badRequest'),
                (exception.GuestBusy(member='web', reason='a migration'), 409,
                 'conflictingRequest'),
                (exception.GuestNotRunning(member='web', state='SHUTOFF'), 409,
                 'conflictingRequest'),
                (exception.HostUnreachable(host='h1', reason='time'), 503, 'serviceUnavailable'),
                (exception.Bug(reason='of ours'), 500, 'computeFault')):
            with self.subTest(error.code):
                self.conductor.faults['create'] = error

                answer = self.create(self.admin, server_group_id=group)

                assert self.fault(answer, status, name) == str(error)
                assert answer.headers[faults.CODE_HEADER] == error.code


class ReadTest(base.ApiTestCase):

    def names(self, answer):
        assert answer.status_code == 200, answer.text
        return [each['name'] for each in answer.json()['server_group_snapshots']]

    def test_show_tells_measurements_and_size_of_each_member(self):
        made = self.make_available()

        shown = self.api.get(f'{SNAPSHOTS}/{made["id"]}').json()['server_group_snapshot']

        assert (shown['status'], shown['skew_ms']) == ('available', 1.5)
        assert [(each['pause_ms'], each['hold_ms'], each['size_bytes'])
                for each in shown['members']] == [(12.25, 14.5, 1 << 20)] * 2

    def test_hosts_are_shown_to_admins_alone(self):
        made = self.make_available()
        path = f'{SNAPSHOTS}/{made["id"]}'

        seen = self.admin.get(path).json()['server_group_snapshot']['members']
        hidden = self.api.get(path).json()['server_group_snapshot']['members']
        listed = self.api.get(SNAPSHOTS + '/detail').json()['server_group_snapshots']

        assert [each['host'] for each in seen] == ['host0', 'host1']
        assert not any('host' in each for each in hidden + listed[0]['members'])

    def test_a_failed_snapshot_says_why(self):
        self.conductor.fail_next = {'code': 'pause_too_long', 'message': 'It took too long.',
                                    'member': 'some-server', 'host': 'host1'}
        made = self.make_available()
        path = f'{SNAPSHOTS}/{made["id"]}'

        shown = self.api.get(path).json()['server_group_snapshot']
        to_admin = self.admin.get(path).json()['server_group_snapshot']

        assert shown['status'] == 'error'
        assert shown['error'] == {'code': 'pause_too_long', 'message': 'It took too long.',
                                  'server_id': 'some-server'}
        assert to_admin['error']['host'] == 'host1'

    def test_an_error_names_hosts_to_admins_alone(self):
        message = ('Host host1 does not answer: host1.example is not host1; '
                   'host0 waits for host host1.')
        self.conductor.fail_next = {'code': 'host_unreachable', 'message': message,
                                    'member': None, 'host': 'host1'}
        path = f'{SNAPSHOTS}/{self.make_available()["id"]}'

        shown = self.api.get(path).json()['server_group_snapshot']
        to_admin = self.admin.get(path).json()['server_group_snapshot']

        assert to_admin['error']['message'] == message
        assert shown['error']['message'] == (
            'A host does not answer: host1.example is not a host; a host waits for a host.')

    def test_the_end_of_a_restore_names_hosts_to_admins_alone(self):
        """Its members had moved to hosts that the snapshot does not name."""
        made = self.make_available()
        message = 'The group is back, but: host new1 does not answer; host new2 does not answer.'
        self.conductor.snapshots[made['id']]['last_action'] = {
            'name': 'restore', 'status': 'failed', 'started_at': 'x', 'finished_at': 'y',
            'request_id': 'req', 'result': None, 'hosts': ['new1', 'new2'],
            'error': {'code': 'restore_incomplete', 'message': message, 'member': None,
                      'host': None}}

        to_user, to_admin = (
            each.get(f'{SNAPSHOTS}/{made["id"]}').json()['server_group_snapshot']['last_action']
            for each in (self.api, self.admin))

        assert to_admin['error']['message'] == message
        assert to_user['error']['message'] == (
            'The group is back, but: a host does not answer; a host does not answer.')
        assert 'hosts' not in to_user

    def test_an_error_names_paths_to_admins_alone(self):
        message = ('Store /var/lib/hotsnap/store: the file system is full '
                   '(/var/lib/hotsnap/store/.drafts/x.save). VFIO/SR-IOV, 1/2: https://a.example/b')
        self.conductor.fail_next = {'code': 'store_unavailable', 'message': message,
                                    'member': None, 'host': None}
        path = f'{SNAPSHOTS}/{self.make_available()["id"]}'

        shown = self.api.get(path).json()['server_group_snapshot']
        to_admin = self.admin.get(path).json()['server_group_snapshot']

        assert to_admin['error']['message'] == message
        assert shown['error']['message'] == (
            'Store a path: the file system is full (a path). VFIO/SR-IOV, 1/2: '
            'https://a.example/b')

    def test_a_fault_names_paths_to_admins_alone(self):
        path = f'{SNAPSHOTS}/{self.make_available()["id"]}/action'
        self.conductor.faults['restore'] = exception.StoreUnavailable(
            store='/srv/store', reason='it hangs')

        to_user = self.fault(self.api.post(path, {'restore': None}), 503, 'serviceUnavailable')
        to_admin = self.fault(self.admin.post(path, {'restore': None}), 503, 'serviceUnavailable')

        assert to_user == 'Store a path: it hangs.'
        assert to_admin == 'Store /srv/store: it hangs.'

    def test_a_fault_names_hosts_to_admins_alone(self):
        path = f'{SNAPSHOTS}/{self.make_available()["id"]}/action'
        self.conductor.faults['restore'] = exception.HostUnreachable(
            host='host1', reason='its nova-compute is down')

        to_user = self.fault(self.api.post(path, {'restore': None}), 503, 'serviceUnavailable')
        to_admin = self.fault(self.admin.post(path, {'restore': None}), 503, 'serviceUnavailable')

        assert to_user == 'A host does not answer: its nova-compute is down.'
        assert to_admin == 'Host host1 does not answer: its nova-compute is down.'

    def test_what_is_not_there_is_404(self):
        self.fault(self.api.get(f'{SNAPSHOTS}/{uuid.uuid4()}'), 404, 'itemNotFound')
        self.fault(self.api.get(f'{SNAPSHOTS}/nightly'), 404, 'itemNotFound')

    def test_filters_narrow_the_list(self):
        group = self.make_group()
        self.make_snapshot(group, name='first')
        self.make_snapshot(name='second')
        self.make_available(name='third')

        assert self.names(self.api.get(SNAPSHOTS)) == ['third', 'second', 'first']
        assert self.names(self.api.get(f'{SNAPSHOTS}?name=second')) == ['second']
        assert self.names(self.api.get(f'{SNAPSHOTS}?status=available')) == ['third']
        assert self.names(self.api.get(f'{SNAPSHOTS}?server_group_id={group}')) == ['first']
        assert self.names(self.api.get(f'{SNAPSHOTS}/detail?name=second')) == ['second']

    def test_bad_queries_are_400(self):
        made = self.make_snapshot()
        for query in ('colour=red', 'status=lost', 'limit=-1', 'limit=ten', 'marker=first',
                      f'marker={uuid.uuid4()}', 'name=a&name=b', 'all_projects=maybe'):
            with self.subTest(query):
                self.fault(self.api.get(f'{SNAPSHOTS}?{query}'), 400, 'badRequest')
        self.fault(self.api.get(f'{SNAPSHOTS}/{made["id"]}?colour=red'), 400, 'badRequest')

    def test_following_next_shows_each_snapshot_once(self):
        for number in range(5):
            self.make_snapshot(name=f'n{number}')

        for path in (SNAPSHOTS, SNAPSHOTS + '/detail'):
            url, seen, pages = f'{path}?limit=2', [], 0
            while url:
                page = self.api.get(url)
                seen += self.names(page)
                pages += 1
                links = page.json().get('server_group_snapshots_links', [])
                url = None
                for link in links:
                    assert link['rel'] == 'next'
                    parts = parse.urlsplit(link['href'])
                    assert parts.path == f'/v2.1{path}'
                    url = f'{path}?{parts.query}'
            assert (seen, pages) == (['n4', 'n3', 'n2', 'n1', 'n0'], 3)

    def test_operators_limit_of_a_page_holds(self):
        self.flags(max_limit=1, group='api')
        self.make_snapshot(name='a')
        self.make_snapshot(name='b')

        page = self.api.get(f'{SNAPSHOTS}?limit=50')

        assert self.names(page) == ['b']
        assert page.json()['server_group_snapshots_links']

    def test_the_list_is_of_the_own_project(self):
        self.make_snapshot(name='mine')
        self.make_snapshot(client=self.stranger, name='theirs')

        assert self.names(self.api.get(SNAPSHOTS)) == ['mine']
        assert self.names(self.stranger.get(SNAPSHOTS)) == ['theirs']
        assert self.names(self.admin.get(f'{SNAPSHOTS}?all_projects=true')) == ['theirs', 'mine']
        assert self.names(self.admin.get(f'{SNAPSHOTS}?all_projects=false')) == ['mine']
        self.fault(self.api.get(f'{SNAPSHOTS}?all_projects=true'), 403, 'forbidden')

    def test_our_version_is_ours(self):
        version = self.api.get(SNAPSHOTS + '/version').json()['version']

        assert (version['version'], version['status']) == (versions.VERSION, 'CURRENT')


class ChangeTest(base.ApiTestCase):

    def act(self, snapshot, client=None, **action):
        return (client or self.api).post(f'{SNAPSHOTS}/{snapshot["id"]}/action', action)

    def test_update_changes_what_it_names(self):
        made = self.make_available(name='old', description='kept')

        answer = self.api.put(f'{SNAPSHOTS}/{made["id"]}', {'server_group_snapshot': {
            'name': 'new', 'properties': {'a': 'b'}}})

        shown = answer.json()['server_group_snapshot']
        assert answer.status_code == 200
        assert (shown['name'], shown['description'], shown['properties']) == (
            'new', 'kept', {'a': 'b'})

    def test_update_takes_no_other_field(self):
        made = self.make_available(name='old')
        for bad in ({}, {'status': 'error'}, {'name': ''}, {'gate': 'hold'}):
            with self.subTest(bad):
                answer = self.api.put(f'{SNAPSHOTS}/{made["id"]}', {'server_group_snapshot': bad})
                self.fault(answer, 400, 'badRequest')

        assert self.conductor.snapshots[made['id']]['name'] == 'old'

    def test_delete_answers_202_and_then_it_is_gone(self):
        made = self.make_available()
        path = f'{SNAPSHOTS}/{made["id"]}'

        answer = self.api.delete(path)

        assert (answer.status_code, answer.content) == (202, b'')
        statuses = [self.api.get(path).status_code for _ in range(3)]
        assert statuses == [200, 200, 404]

    def test_delete_of_a_snapshot_in_the_making_is_409(self):
        made = self.make_snapshot(name='nightly')

        message = self.fault(self.api.delete(f'{SNAPSHOTS}/{made["id"]}'), 409,
                             'conflictingRequest')

        assert message == 'Snapshot nightly is creating.'
        assert self.conductor.snapshots[made['id']]['status'] == 'creating'

    def test_an_admin_may_force_a_delete(self):
        made = self.make_snapshot()
        path = f'{SNAPSHOTS}/{made["id"]}?force=true'

        self.fault(self.api.delete(path), 403, 'forbidden')
        answer = self.admin.delete(path)

        assert answer.status_code == 202
        assert self.conductor.calls[-1] == ('delete', {'force': True})

    def test_restore_runs_in_the_background_and_a_second_is_409(self):
        made = self.make_available(name='nightly')

        first, second = self.act(made, restore=None), self.act(made, restore={})

        assert first.status_code == 202
        assert self.fault(second, 409, 'conflictingRequest') == 'Snapshot nightly is restoring.'
        shown = self.api.get(f'{SNAPSHOTS}/{made["id"]}').json()['server_group_snapshot']
        assert (shown['status'], shown['last_action']['name'],
                shown['last_action']['status']) == ('restoring', 'restore', 'running')
        assert shown['last_action']['request_id'] == first.headers['x-openstack-request-id']

    def test_restore_with_new_members_is_409_unless_they_are_ignored(self):
        made = self.make_available()
        self.conductor.groups[made['group_id']]['members']['new'] = 'web-3'

        answer = self.act(made, restore=None)

        assert 'web-3' in self.fault(answer, 409, 'conflictingRequest')
        assert answer.headers[faults.CODE_HEADER] == 'members_added'
        assert self.act(made, restore={'ignore_new_members': True}).status_code == 202

    def test_restore_drops_internal_snapshots_only_if_it_is_told_to(self):
        for wanted in (None, {}, {'drop_internal_snapshots': False},
                       {'drop_internal_snapshots': True}):
            made = self.make_available()

            assert self.act(made, restore=wanted).status_code == 202

            (told,) = [call[1] for call in self.conductor.calls if call[0] == 'restore'][-1:]
            assert told['drop_internal_snapshots'] is bool(
                (wanted or {}).get('drop_internal_snapshots'))

    def test_restore_asks_to_keep_the_present_by_a_name_and_tells_the_snapshots_id(self):
        made = self.make_available(name='nightly')

        assert self.act(made, restore={'keep_present': 'before'}).status_code == 202

        assert self.conductor.calls[-1] == ('restore', {
            'ignore_new_members': False, 'drop_internal_snapshots': False,
            'keep_present': 'before'})
        shown = self.api.get(f'{SNAPSHOTS}/{made["id"]}').json()['server_group_snapshot']
        assert uuid.UUID(shown['last_action']['result']['kept_present'])

    def test_what_a_restore_warns_of_names_hosts_and_paths_to_admins_alone(self):
        made = self.make_available()
        web = made['members'][0]
        self.conductor.warnings = [{
            'member': web['id'], 'name': web['name'], 'host': 'host1', 'device': 'guest',
            'cause': 'no trial load: host1 has no room in /var/lib/x', 'remedy': 'make room'}]
        self.act(made, restore=None)

        (told,), (to_admin,) = (
            user.get(f'{SNAPSHOTS}/{made["id"]}').json()['server_group_snapshot'][
                'last_action']['result']['warnings'] for user in (self.api, self.admin))

        assert told == {
            'server_id': web['id'], 'server_name': web['name'], 'device': 'guest',
            'cause': 'no trial load: a host has no room in a path', 'remedy': 'make room'}
        assert to_admin == told | {'cause': self.conductor.warnings[0]['cause'], 'host': 'host1'}

    def test_a_restore_that_keeps_the_present_needs_both_rules(self):
        made = self.make_available()
        for rule in ('create', 'restore'):
            with self.subTest(rule):
                name = f'hotsnap:server_group_snapshots:{rule}'
                self.policy.set_rules({name: 'role:admin'}, overwrite=False)
                answer = self.act(made, restore={'keep_present': 'before'})
                self.fault(answer, 403, 'forbidden')
                self.policy.set_rules({name: 'role:member'}, overwrite=False)

        assert self.act(made, restore={'keep_present': 'before'}).status_code == 202

    def test_verify_and_abort_answer_202(self):
        made, making = self.make_available(), self.make_snapshot()

        assert self.act(made, verify=None).status_code == 202
        assert self.act(making, abort={}).status_code == 202

        assert [call[0] for call in self.conductor.calls if call[0] in ('verify', 'abort')] == [
            'verify', 'abort']

    def test_reset_status_is_an_admins(self):
        made = self.make_snapshot()

        self.fault(self.act(made, reset_status={'status': 'error'}), 403, 'forbidden')
        answer = self.act(made, self.admin, reset_status={'status': 'error'})

        assert answer.status_code == 202
        assert self.conductor.snapshots[made['id']]['status'] == 'error'

    def test_bad_actions_are_400_and_change_nothing(self):
        made = self.make_available()
        for bad in ({}, {'explode': None}, {'restore': None, 'verify': None},
                    {'restore': {'at': 'once'}}, {'restore': {'ignore_new_members': 'yes'}},
                    {'restore': {'drop_internal_snapshots': 1}},
                    {'restore': {'keep_present': ''}}, {'restore': {'keep_present': None}},
                    {'verify': {'deep': True}}, {'reset_status': None},
                    {'reset_status': {'status': 'creating'}}, {'abort': 1}):
            with self.subTest(bad):
                self.fault(self.act(made, self.admin, **bad), 400, 'badRequest')

        assert self.conductor.snapshots[made['id']]['status'] == 'available'

    def test_check_says_gates_and_what_stands_in_the_way(self):
        group = self.make_group()

        answer = self.api.post(f'/os-server-groups/{group}/snapshot-check',
                               {'snapshot_check': None})

        verdict = answer.json()['snapshot_check']
        assert answer.status_code == 200
        assert (verdict['possible'], verdict['gates']) == (True, ['barrier'])
        finding = verdict['findings'][0]
        assert (finding['server_name'], finding['device'], finding['rules_out']) == (
            'web-1', 'net0', ['hold'])
        assert (finding['gates'], finding['refuses']) == (['hold'], False)    # as in 1.0
        assert 'host' not in finding

    def test_check_of_another_projects_group_is_404(self):
        group = self.make_group(client=self.stranger)

        answer = self.api.post(f'/os-server-groups/{group}/snapshot-check',
                               {'snapshot_check': {'gate': 'hold'}})

        self.fault(answer, 404, 'itemNotFound')

    def test_a_group_that_the_coordinator_lost_sight_of_is_404(self):
        group = self.make_group()
        self.conductor.faults['check'] = rpcapi.GroupNotFound(group=group)

        answer = self.api.post(f'/os-server-groups/{group}/snapshot-check',
                               {'snapshot_check': None})

        self.fault(answer, 404, 'itemNotFound')
