# SPDX-License-Identifier: Apache-2.0
"""The coordinator for real behind Nova's API: the life of a snapshot, and all that is refused."""

import json
import threading
import uuid

from hotsnap_nova import exception
from hotsnap_nova.api import faults
from hotsnap_nova.conductor import rows
from tests.nova import base, cloud
from tests.nova.base import SNAPSHOTS


class LifeTest(cloud.CloudTestCase):

    def test_create_list_restore_verify_delete(self):
        group = self.make_group('shop')

        answer = self.create(group, description='before', properties={'ticket': '7'})
        assert answer.status_code == 202, answer.text
        begun = answer.json()['server_group_snapshot']
        assert (begun['name'], begun['status']) == ('shop-1', 'creating')
        assert begun['request_id'] == answer.headers['x-openstack-request-id']
        made = self.until(begun['id'], lambda shown: shown['status'] != 'creating')
        assert (made['status'], made['error'], made['phase']) == ('available', None, '')
        assert [(each['name'], each['host']) for each in made['members']] == [
            ('web-1', 'h1'), ('web-2', 'h2')]
        assert all(each['pause_ms'] > 0 and each['size_bytes'] > 0 for each in made['members'])
        assert made['skew_ms'] >= 0
        listed = self.api.get(SNAPSHOTS).json()['server_group_snapshots']
        assert [each['id'] for each in listed] == [begun['id']]

        assert self.act(begun['id'], restore=None).status_code == 202
        restored = self.acted(begun['id'])
        assert (restored['last_action']['name'], restored['last_action']['status']) == (
            'restore', 'done')
        assert restored['last_action']['error'] is None
        assert restored['status'] == 'available'
        assert {self.world.guest(name)['disk'] for name in ('web-1', 'web-2')} == {begun['id']}

        assert self.act(begun['id'], verify=None).status_code == 202
        verified = self.acted(begun['id'])['last_action']
        assert (verified['name'], verified['status']) == ('verify', 'done')
        assert verified['result']['files'] > 0

        assert self.api.delete(f'{SNAPSHOTS}/{begun["id"]}').status_code == 202
        self.until(begun['id'], lambda shown: shown is None)
        assert self.hosts['h1'].store.list() == ()
        assert self.world.untouched()

    def test_hosts_are_told_in_whose_name(self):
        made = self.make_available()

        row = self.service.database.get(made['id'])
        for _, work in rows.load(row.machine, row.generation).hosts:
            assert json.loads(work.options)['context'] == {
                'user_id': 'fake', 'project_id': base.PROJECT, 'request_id': made['request_id']}

    def test_abort_ends_in_error_and_a_deletion_removes_it(self):
        for host in self.hosts.values():
            host.engine.save_s = 30
        group = self.make_group()
        snapshot = self.create(group).json()['server_group_snapshot']['id']
        self.until(snapshot, lambda shown: shown['phase'] == 'save')
        assert self.act(snapshot, restore=None).status_code == 409
        assert self.api.delete(f'{SNAPSHOTS}/{snapshot}').status_code == 409

        assert self.act(snapshot, abort=None).status_code == 202

        failed = self.until(snapshot, lambda shown: shown['status'] != 'creating')
        assert (failed['status'], failed['error']['code']) == ('error', 'aborted')
        assert self.api.delete(f'{SNAPSHOTS}/{snapshot}').status_code == 202
        self.until(snapshot, lambda shown: shown is None)
        assert self.world.untouched()

    def test_a_failed_member_is_named_by_its_id(self):
        self.hosts['h2'].engine.faults['record'] = exception.GuestBusy(
            member='web-2', reason='a job runs')
        group = self.make_group()

        snapshot = self.create(group).json()['server_group_snapshot']['id']

        failed = self.until(snapshot, lambda shown: shown['status'] != 'creating')
        assert failed['error']['code'] == 'guest_busy'
        assert failed['error']['server_id'] == self.world.spec('web-2').id

    def test_names_need_not_be_unique_and_epochs_make_the_others(self):
        group = self.make_group('shop')

        names = [self.make_available(group, **wanted)['name']
                 for wanted in ({'name': 'x'}, {'name': 'x'}, {})]

        assert names == ['x', 'x', 'shop-3']

    def test_check_names_servers_as_their_user_does(self):
        group = self.make_group()
        self.world.add('old', gates=['barrier'])
        with self.world.open() as guests:
            guests['web-2']['gates'] = ['barrier']

        answer = self.api.post(f'/os-server-groups/{group}/snapshot-check',
                               {'snapshot_check': None})

        assert answer.status_code == 200, answer.text
        verdict = answer.json()['snapshot_check']
        assert (verdict['possible'], verdict['gates']) == (True, ['barrier'])
        (finding,) = verdict['findings']
        assert finding['server_id'] == self.world.spec('web-2').id
        assert finding['server_name'] == 'web-2'

    def test_a_restarted_service_shows_all_it_had(self):
        made = self.make_available()
        self.service.stop()
        self.service.stop = lambda: None

        again = cloud.service.Service(cloud.CONF.hotsnap, 'conductor-2',
                                      cloud.nova_rpc.TRANSPORT, cloud.cells.Cells())
        again.start()
        self.addCleanup(again.stop)

        assert self.show(made['id'])['status'] == 'available'


class RefusedTest(cloud.CloudTestCase):
    """The right status, one clear sentence, nothing changed."""

    def refused(self, answer, status, code, words):
        assert answer.status_code == status, answer.text
        (fault,) = answer.json().values()
        assert answer.headers[faults.CODE_HEADER] == code
        assert words in fault['message'], fault
        assert '\n' not in fault['message']

    def untouched(self, count=0):
        assert len(self.service.database.list()) == count
        assert self.world.untouched()
        assert not any(host.left() for host in self.hosts.values())

    def test_an_unknown_group(self):
        self.refused(self.create(str(uuid.uuid4())), 404, 'group_not_found', 'no server group')
        self.untouched()

    def test_another_projects_group(self):
        group = self.make_group(client=self.stranger)

        self.refused(self.create(group), 404, 'group_not_found', group)
        self.untouched()

    def test_a_group_without_members_or_with_deleted_ones_alone(self):
        empty = self.make_group(members=())
        group = self.make_group()
        for name in ('web-1', 'web-2'):
            self.change(self.world.spec(name).id, deleted=True)

        for each in (empty, group):
            self.refused(self.create(each), 400, 'empty_group', 'no members')
        self.untouched()

    def test_an_unknown_field(self):
        answer = self.create(self.make_group(), gates='hold')

        assert answer.status_code == 400
        assert "'gates' was unexpected" in answer.text
        self.untouched()

    def test_a_gate_that_a_member_cannot_do(self):
        self.refused(self.create(self.make_group(), gate='marker'), 400, 'gate_not_possible',
                     'no IP address of it is known')
        self.untouched()

    def test_a_disk_mode_that_there_is_not(self):
        answer = self.create(self.make_group(), disk='redirect')

        assert answer.status_code == 400
        assert "'redirect' is not one of ['backup']" in answer.text
        self.untouched()

    def test_a_stopped_member(self):
        group = self.make_group()
        self.change(self.world.spec('web-2').id, vm_state='stopped')

        self.refused(self.create(group), 409, 'guest_not_running', 'web-2 is not running')
        self.untouched()

    def test_a_member_that_is_being_worked_on(self):
        group = self.make_group()
        self.change(self.world.spec('web-1').id, task_state='rebooting')

        self.refused(self.create(group), 409, 'guest_busy', 'web-1 is busy: it is rebooting')
        self.untouched()

    def test_a_member_of_another_project(self):
        group = self.make_group()
        self.boot('theirs', 'h1', group, self.stranger.project)

        self.refused(self.create(group), 409, 'members_foreign', 'the group: theirs.')
        self.untouched()

    def test_a_member_that_can_do_no_gate(self):
        group = self.make_group()
        with self.world.open() as guests:
            guests['web-1']['gates'] = []

        self.refused(self.create(group), 400, 'refused', 'web-1, net0: vhost')
        self.untouched()

    def test_a_host_that_nova_holds_to_be_down(self):
        group = self.make_group()
        self.set_service('h2', forced_down=True)

        self.refused(self.create(group), 503, 'host_unreachable', 'A host does not answer: its')
        self.untouched()

    def test_over_quota_of_the_group_and_of_the_project(self):
        self.flags(group='hotsnap', max_snapshots_per_group=1, max_snapshots_per_project=2)
        first = self.make_group('a', members=(('a-1', 'h1'),))
        second = self.make_group('b', members=(('b-1', 'h1'),))
        third = self.make_group('c', members=(('c-1', 'h1'),))
        self.make_available(first)

        self.refused(self.create(first), 403, 'over_quota', '1 of 1 group snapshots of group')
        self.make_available(second)
        self.refused(self.create(third), 403, 'over_quota', '2 of 2 group snapshots of project')
        self.untouched(2)

    def test_over_quota_of_the_projects_bytes(self):
        group = self.make_group()
        self.make_available(group)
        self.flags(group='hotsnap', max_gib_per_project=0)

        self.refused(self.create(group), 403, 'over_quota_bytes', 'of 0 GiB')
        self.untouched(1)

        self.flags(group='hotsnap', max_gib_per_project=1)
        self.make_available(group)

    def test_the_oldest_failures_go_beyond_so_many(self):
        self.flags(group='hotsnap', max_failed_per_project=1)
        group = self.make_group()
        self.hosts['h2'].engine.faults['record'] = exception.GuestBusy(member='x', reason='y')
        failed = [self.create(group).json()['server_group_snapshot']['id']]
        self.until(failed[0], lambda shown: shown['status'] == 'error')
        failed.append(self.create(group).json()['server_group_snapshot']['id'])
        self.until(failed[1], lambda shown: shown['status'] == 'error')

        third = self.create(group).json()['server_group_snapshot']['id']

        self.until(third, lambda shown: shown['status'] == 'error')
        assert self.show(failed[0]) is None
        assert self.show(failed[1])['status'] == 'error'

    def test_properties_that_the_databases_column_cannot_hold(self):
        group = self.make_group()
        made = self.make_available(group, properties={'kept': 'yes'})['id']
        many = {str(number): '\U0001f40d' * 255 for number in range(22)}

        for answer in (self.create(group, properties=many),
                       self.api.put(f'{SNAPSHOTS}/{made}', {
                           'server_group_snapshot': {'properties': many}})):
            self.refused(answer, 400, 'invalid_value', 'properties: at most 65535 bytes')

        assert self.show(made)['properties'] == {'kept': 'yes'}
        self.untouched(1)
        del many['0']
        self.make_available(group, properties=many)

    def test_snapshots_in_error_are_not_counted(self):
        self.flags(group='hotsnap', max_snapshots_per_group=1)
        group = self.make_group()
        self.hosts['h2'].engine.faults['record'] = exception.GuestBusy(member='x', reason='y')
        failed = self.create(group).json()['server_group_snapshot']['id']
        self.until(failed, lambda shown: shown['status'] == 'error')
        self.hosts['h2'].engine.faults.clear()

        self.make_available(group)

    def test_a_restore_while_another_runs_and_a_delete_meanwhile(self):
        made = self.make_available()['id']
        go_on = []
        self.hosts['h1'].engine.faults['restore_prepare'] = lambda _work: cloud.cluster.until(
            lambda: go_on)
        assert self.act(made, restore=None).status_code == 202

        self.refused(self.act(made, restore=None), 409, 'snapshot_busy', 'is restoring')
        self.refused(self.act(made, verify=None), 409, 'snapshot_busy', 'is restoring')
        self.refused(self.api.delete(f'{SNAPSHOTS}/{made}'), 409, 'snapshot_busy', 'is restoring')
        go_on.append(True)

        assert self.acted(made)['last_action']['status'] == 'done'

    def test_a_restore_that_keeps_the_present_first(self):
        group = self.make_group()
        made = self.make_available(group)['id']

        assert self.act(made, restore={'keep_present': 'before'}).status_code == 202

        done = self.acted(made)['last_action']
        assert (done['status'], done['error']) == ('done', None)
        kept = self.api.get(f'{SNAPSHOTS}/{done["result"]["kept_present"]}').json()[
            'server_group_snapshot']
        assert (kept['name'], kept['status'], kept['server_group_id']) == (
            'before', 'available', group)
        assert self.world.guest('web-1')['disk'] == made
        assert self.act(kept['id'], restore=None).status_code == 202
        assert self.acted(kept['id'])['last_action']['status'] == 'done'
        assert self.world.guest('web-1')['disk'] == kept['id']

    def test_a_restore_that_keeps_the_present_looks_at_its_servers_again(self):
        group = self.make_group()
        made = self.make_available(group)['id']
        engine, reached, goes_on = self.hosts['h1'].engine, threading.Event(), threading.Event()
        engine.faults['save'] = lambda _work: (reached.set(), goes_on.wait(60))
        assert self.act(made, restore={'keep_present': 'before'}).status_code == 202
        assert reached.wait(60)

        self.boot('web-3', 'h1', group)
        goes_on.set()

        done = self.acted(made)['last_action']
        assert (done['status'], done['error']['code']) == ('failed', 'members_added')
        assert 'restore_prepare' not in engine.calls

    def test_a_restore_that_keeps_the_present_is_refused_what_a_snapshot_is(self):
        made = self.make_available()['id']
        self.change(self.world.spec('web-2').id, vm_state='stopped')

        answer = self.act(made, restore={'keep_present': 'before'})

        self.refused(answer, 409, 'guest_not_running', 'web-2')
        assert 'restore_prepare' not in self.hosts['h1'].engine.calls
        assert self.act(made, restore=None).status_code == 202

    def test_a_restore_after_servers_joined(self):
        group = self.make_group()
        made = self.make_available(group)['id']
        self.boot('web-3', 'h1', group)

        self.refused(self.act(made, restore=None), 409, 'members_added', 'web-3')

        assert self.act(made, restore={'ignore_new_members': True}).status_code == 202
        assert self.acted(made)['last_action']['status'] == 'done'
        assert self.world.guest('web-3')['disk'] == 'own'

    def test_a_restore_after_members_were_deleted(self):
        made = self.make_available()['id']
        self.change(self.world.spec('web-2').id, deleted=True)

        self.refused(self.act(made, restore=None), 409, 'members_deleted', 'web-2')
        assert self.world.guest('web-1')['disk'] == 'own'

    def test_a_restore_after_a_member_moved(self):
        made = self.make_available()['id']
        self.change(self.world.spec('web-2').id, host='h1')

        assert self.act(made, restore=None).status_code == 202

        assert self.acted(made)['last_action']['status'] == 'done'    # their hosts share a store
        assert 'restore_stop' not in self.hosts['h2'].engine.calls
        assert self.world.guest('web-2')['disk'] == made

    def test_a_restore_of_a_member_that_is_locked_is_theirs_who_may_unlock_it(self):
        made = self.make_available()['id']
        server = self.world.spec('web-2').id
        for locked_by, client, refused in (
                ('admin', self.api, True), ('owner', self.far_admin, False),
                ('owner', self.api, False), ('admin', self.admin, False)):
            with self.subTest((locked_by, refused)):
                self.change(server, locked=True, locked_by=locked_by)
                answer = self.act(made, client, restore=None)
                if refused:
                    self.refused(answer, 409, 'members_locked', 'unlock them: web-2.')
                    assert self.world.untouched()
                    continue
                assert answer.status_code == 202, answer.text
                assert self.acted(made)['last_action']['status'] == 'done'

    def test_a_restore_of_a_member_that_is_on_no_host(self):
        made = self.make_available()['id']
        self.change(self.world.spec('web-2').id, host=None, vm_state='shelved_offloaded')

        self.refused(self.act(made, restore=None), 409, 'guest_not_running', 'web-2')

    def test_a_restore_of_a_member_whose_host_may_still_run_it(self):
        made = self.make_available()['id']
        self.set_service('h2', last_seen_up=cloud.long_ago())

        self.refused(self.act(made, restore=None), 503, 'host_unreachable', 'may still run')
        assert self.world.untouched()

    def test_a_restore_of_a_group_that_was_deleted(self):
        group = self.make_group()
        made = self.make_available(group)['id']
        assert self.api.delete(f'/os-server-groups/{group}').status_code == 204

        assert self.act(made, restore=None).status_code == 202
        assert self.acted(made)['last_action']['status'] == 'done'

    def test_a_name_that_is_none(self):
        made = self.make_available()['id']

        answer = self.api.put(f'{SNAPSHOTS}/{made}', {'server_group_snapshot': {'name': ' '}})

        assert answer.status_code == 400
        assert self.show(made)['name'] == 'web-1'

    def test_another_projects_snapshot(self):
        made = self.make_available()['id']

        for answer in (self.act(made, self.stranger, restore=None),
                       self.stranger.delete(f'{SNAPSHOTS}/{made}')):
            self.refused(answer, 404, 'snapshot_not_found', made)
        assert self.show(made, self.api)['project_id'] == base.PROJECT
