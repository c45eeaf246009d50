# SPDX-License-Identifier: Apache-2.0
"""The driver in stock nova-computes: what it adds to Nova's life, and what it leaves alone."""

import threading
import time
import xml.etree.ElementTree as ET

import fixtures
import oslo_messaging
import pytest
from nova import objects
from nova.compute import power_state, task_states, vm_states
from nova.tests import fixtures as nova_fixtures

from hotsnap_nova import exception
from tests.fakes.cluster import until
from tests.nova.computes import CALLER, ComputeTestCase

SNAPSHOTTING = (vm_states.ACTIVE, task_states.IMAGE_SNAPSHOT)
AT_REST = (vm_states.ACTIVE, None)


class TestComesAndGoes(ComputeTestCase):
    def test_a_host_answers_while_its_nova_compute_runs(self):
        self.start_compute('compute1')

        answer = self.compute_api.ping('compute1')

        assert answer['host'] == 'compute1'
        assert 0 <= time.time() - answer['started_at'] < 300
        assert self.traits() == {'CUSTOM_HOTSNAP'}
        self.computes['compute1'].stop()
        with pytest.raises(exception.HostUnreachable):
            self.compute_api.ping('compute1')

    def test_nova_lives_where_ours_cannot(self):
        self.flags(store='none-such', group='hotsnap')

        self.start_compute('compute1')
        server = self._create_server(host='compute1', networks='none')

        assert server['status'] == 'ACTIVE'
        assert self.traits() == set()
        with pytest.raises(exception.HostUnreachable):
            self.compute_api.ping('compute1')

    def test_a_restart_leaves_nothing_of_what_was_under_way(self):
        self.start_compute('compute1')
        server = self.boot('web')
        saving = self.saving()
        snapshot = self.snapshots.create(self.request(server))
        assert saving.wait(30)
        assert self.state(server) == SNAPSHOTTING

        self.restart_compute_service('compute1')

        assert self.snapshots.wait(snapshot, timeout_s=60)
        assert self.snapshots.get(snapshot).status == 'error'
        assert self.state(server) == AT_REST
        assert self.world.untouched()

    def test_disks_are_given_away_by_novas_privileged_helper(self):
        self.start_compute('compute1')
        asked = []
        for name in ('chown', 'utime'):
            self.useFixture(fixtures.MonkeyPatch(
                f'nova.privsep.path.{name}', lambda *args, name=name: asked.append((name, *args))))

        self.engine.files.chown('/disk', 64055, -1)
        self.engine.files.touch('/disk')

        assert asked == [('chown', '/disk', 64055, -1), ('utime', '/disk')]

    def traits(self):
        found = self._get_provider_traits(self.compute_rp_uuids['compute1'])
        return {trait for trait in found if 'HOTSNAP' in trait}

    def saving(self):
        """An event for when a save begins; it then takes long."""
        begun = threading.Event()
        self.engine.save_s = 60.0
        self.engine.faults['save'] = lambda _work: begun.set()
        return begun


class TestSnapshots(ComputeTestCase):
    def setUp(self):
        super().setUp()
        self.start_compute('compute1')

    def test_an_instance_has_a_task_from_its_preparation_to_the_end_of_its_save(self):
        server = self.boot('web')
        seen = [self.during(step, lambda: self.state(server))
                for step in ('prepare', 'record', 'release', 'save', 'finish')]

        row = self.snapshot(server)

        assert row.status == 'available', row.error_message
        assert seen == [[SNAPSHOTTING]] * 5
        assert self.state(server) == AT_REST

    def test_a_snapshot_is_an_action_of_the_instance_in_its_callers_name(self):
        server = self.boot('web')

        self.snapshot(server, context=CALLER)

        action, event = self.action(server)
        assert (action.action, action.user_id, action.project_id) == (
            'createImage', CALLER['user_id'], CALLER['project_id'])
        assert (event.event, event.result, event.host) == (
            'compute_snapshot_server_group', 'Success', 'compute1')

    def test_a_failed_snapshot_is_an_action_that_failed_and_says_why(self):
        server = self.boot('web')
        self.engine.faults['save'] = exception.Bug(reason='no room')

        self.snapshot(server, context=CALLER)

        _action, event = self.action(server)
        assert event.result == 'Error'
        assert 'no room' in event.details

    def test_a_snapshot_is_notified_as_novas_own(self):
        server = self.boot('web')
        self.notifier.reset()

        row = self.snapshot(server)

        found = [each for each in self.notifier.versioned_notifications
                 if each['event_type'].startswith('instance.snapshot')]
        assert [each['event_type'] for each in found] == [
            'instance.snapshot.start', 'instance.snapshot.end']
        assert found[0]['payload']['nova_object.data']['snapshot_image_id'] == row.id
        assert [each.event_type for each in self.notifier.notifications
                if 'snapshot' in each.event_type] == [
            'compute.instance.snapshot.start', 'compute.instance.snapshot.end']

    def test_novas_api_refuses_what_would_disturb_a_snapshot(self):
        server = self.boot('web')
        answers = {}

        def ask():
            for action in ('reboot', 'pause', 'suspend', 'resize', 'createImage', 'os-stop'):
                body = {'reboot': {'type': 'HARD'}, 'createImage': {'name': 'i'},
                        'resize': {'flavorRef': '2'}}.get(action)
                answers[action] = self.api.api_post(
                    f'/servers/{server}/action', {action: body},
                    check_response_status=[409]).status
        self.during('save', ask)

        assert self.snapshot(server).status == 'available'

        assert set(answers.values()) == {409}

    def test_an_instance_that_nova_is_at_work_on_refuses_and_says_with_what(self):
        server = self.boot('web')
        instance = self.instance(server)
        instance.task_state = task_states.REBOOTING
        instance.save()

        row = self.snapshot(server)

        assert row.status == 'error'
        assert 'rebooting' in row.error_message
        assert self.state(server) == (vm_states.ACTIVE, task_states.REBOOTING)

    def test_a_member_refused_gives_the_others_back(self):
        first, second = self.boot('web'), self.boot('db')
        self._stop_server(self.api.get_server(second))

        row = self.snapshot(first, second)

        assert row.status == 'error'
        assert self.state(first) == AT_REST
        assert self.state(second) == (vm_states.STOPPED, None)

    def test_a_task_whose_setting_was_not_answered_is_given_back(self):
        server = self.boot('web')
        save, lost = objects.Instance.save, []

        def save_and_lose(instance, **kwargs):
            save(instance, **kwargs)
            if instance.task_state == task_states.IMAGE_SNAPSHOT_PENDING and not lost:
                lost.append(self.state(server))
                raise oslo_messaging.MessagingTimeout('no answer')
        self.useFixture(fixtures.MonkeyPatch('nova.objects.Instance.save', save_and_lose))

        row = self.snapshot(server)

        assert (row.status, row.error_code) == ('error', 'host_unreachable')
        assert lost == [(vm_states.ACTIVE, task_states.IMAGE_SNAPSHOT_PENDING)]
        assert self.state(server) == AT_REST

    def test_deleting_a_member_fails_the_snapshot_and_not_the_deletion(self):
        server, other = self.boot('web'), self.boot('db')
        begun = threading.Event()
        self.engine.save_s = 60.0
        self.engine.faults['save'] = lambda _work: begun.set()
        snapshot = self.snapshots.create(self.request(server, other))
        assert begun.wait(30)

        self._delete_server(self.api.get_server(server))

        assert self.snapshots.wait(snapshot, timeout_s=30)
        row = self.snapshots.get(snapshot)
        assert row.status == 'error'
        assert 'destroy' in row.error_message
        assert self.state(other) == AT_REST
        assert self.world.untouched()

    def test_novas_life_goes_on_after_a_snapshot(self):
        server = self.boot('web')
        assert self.snapshot(server).status == 'available'

        found = self.api.get_server(server)
        found = self._reboot_server(found, hard=True)
        found = self._suspend_server(found)
        found = self._resume_server(found)
        found = self._stop_server(found)
        found = self._start_server(found)
        self._delete_server(found)


class TestRestores(ComputeTestCase):
    def setUp(self):
        super().setUp()
        self.start_compute('compute1')
        self.server = self.boot('web')
        self.row = self.snapshot(self.server)

    def restore(self):
        found = self.snapshots.get(self.row.id)
        self.snapshots.restoring(found, context=CALLER).run(False)

    def stop(self):
        self._stop_server(self.api.get_server(self.server))
        with self.world.open() as guests:
            guests['web']['state'] = 'shut off'

    def test_an_instance_has_a_task_through_a_restore(self):
        seen = [self.during(f'restore_{step}', lambda: self.state(self.server)[1])
                for step in ('prepare', 'stop', 'start', 'resume', 'finish')]

        self.restore()

        assert seen == [[task_states.RESTORING]] * 5
        assert self.state(self.server) == AT_REST
        action, event = self.action(self.server)
        assert (action.action, event.event, event.result) == (
            'restore', 'compute_restore_server_group', 'Success')

    def test_a_member_that_was_stopped_is_active_after_a_restore(self):
        self.stop()
        domain = self.driver()._host.get_guest(self.instance(self.server))
        self.engine.faults['restore_resume'] = lambda _work: domain.launch()

        self.restore()

        assert self.state(self.server) == AT_REST
        assert self.instance(self.server).power_state == power_state.RUNNING

    def test_an_undone_restore_leaves_an_instance_as_its_guest_is(self):
        self.stop()
        self.engine.faults['restore_start'] = exception.Bug(reason='broken')

        with pytest.raises(exception.Bug):
            self.restore()

        assert self.state(self.server) == (vm_states.STOPPED, None)
        _action, event = self.action(self.server)
        assert event.result == 'Error'

    def test_an_instance_at_work_refuses_a_restore_before_anything_is_stopped(self):
        instance = self.instance(self.server)
        instance.task_state = task_states.REBOOTING
        instance.save()

        with pytest.raises(exception.GuestBusy, match='rebooting'):
            self.restore()

        assert 'restore_stop' not in self.engine.calls
        assert self.state(self.server)[1] == task_states.REBOOTING

    def test_a_restart_frees_what_a_restore_held(self):
        instance = self.instance(self.server)
        instance.task_state = task_states.RESTORING
        instance.save()

        self.restart_compute_service('compute1')

        assert self.state(self.server) == AT_REST

    def test_a_restart_within_a_restore_keeps_its_members_until_it_ends(self):
        def do(*steps):
            for step in steps:
                self.compute_api.restore('compute1', step, self.row.id, 'r', False, context=CALLER)
        do('prepare', 'stop')
        other = self.boot('db')

        self.restart_compute_service('compute1')

        assert self.state(self.server)[1] == task_states.RESTORING
        self.api.post_server_action(
            self.server, {'reboot': {'type': 'HARD'}}, check_response_status=[409])
        assert self.state(other) == AT_REST
        do('undo')
        assert self.state(self.server) == AT_REST
        _action, event = self.action(self.server)
        assert event.result == 'Error'

    def test_deleting_a_member_within_a_restore_fails_it_and_not_the_deletion(self):
        other = self.boot('db')
        self.row = self.snapshot(self.server, other, name='both')
        restores = self.manager().stepwise

        def delete(_work):
            threading.Thread(target=self.api.delete_server, args=(self.server,)).start()
            until(lambda: restores._unwanted)    # Nova waits for this step, and no longer
        self.engine.faults['restore_prepare'] = delete

        with pytest.raises(exception.Aborted):
            self.restore()

        self._wait_until_deleted({'id': self.server})
        assert 'restore_stop' not in self.engine.calls
        assert self.state(other) == AT_REST
        assert self.world.untouched()

    def test_nova_defines_what_a_restored_instance_starts_with(self):
        found = ET.fromstring(self.engine.definitions.xml(self.server))

        assert found.findtext('uuid') == self.server
        assert found.findtext('memory') == str(self.instance(self.server).flavor.memory_mb * 1024)


class TestNics(ComputeTestCase):
    """What option ``virtio_without_vhost`` does to the NICs that Nova defines."""

    def nic(self, without_vhost, **flavor):
        """``driver`` of a server's only NIC; None: libvirt chooses, and takes vhost."""
        self.flags(virtio_without_vhost=without_vhost, group='hotsnap')
        self.start_compute('compute1')
        server = self._create_server(
            host='compute1', flavor_id=self._create_flavor(vcpu=2, **flavor),
            networks=[{'uuid': nova_fixtures.NeutronFixture.network_1['id']}])
        (nic,) = ET.fromstring(self.engine.definitions.xml(server['id'])).iter('interface')
        assert nic.find('model').get('type') == 'virtio'
        return nic.find('driver')

    def test_a_nic_is_the_stock_drivers_where_nothing_else_is_asked_for(self):
        assert self.nic(False) is None

    def test_a_nic_is_served_by_qemu_itself(self):
        found = self.nic(True)

        assert (found.get('name'), found.get('queues')) == ('qemu', None)

    def test_multiqueue_is_left_to_who_asked_for_it(self):
        found = self.nic(True, extra_spec={'hw:vif_multiqueue_enabled': 'true'})

        assert (found.get('name'), found.get('queues')) == ('vhost', '2')
