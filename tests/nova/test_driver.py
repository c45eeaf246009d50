# SPDX-License-Identifier: Apache-2.0
"""The driver in stock nova-computes: what it adds to Nova's life, and what it leaves alone."""

import contextlib
import json
import threading
import time
import xml.etree.ElementTree as ET

import fixtures
import oslo_messaging
import pytest
from nova import context as nova_context
from nova import exception as nova_exception
from nova import objects
from nova.compute import power_state, task_states, vm_states
from nova.objects import fields
from nova.tests import fixtures as nova_fixtures
from nova.virt.libvirt import host as libvirt_host

from hotsnap_nova import exception
from hotsnap_nova.compute import manager
from hotsnap_nova.protocol import messages
from hotsnap_nova.protocol.restore import messages as orders
from hotsnap_nova.protocol.restore.messages import Step
from tests.fakes.cluster import until
from tests.nova.computes import CALLER, ComputeTestCase

ALL = (Step.PREPARE, Step.STOP, Step.START, Step.RESUME)
SNAPSHOTTING = (vm_states.ACTIVE, task_states.IMAGE_SNAPSHOT)
AT_REST = (vm_states.ACTIVE, None)


class Away:
    """A method that does not work, and then as ever.

    :ivar is_away: it does not
    """

    def __init__(self, method, error):
        self._method, self._error = method, error
        self.is_away = True

    def __get__(self, instance, _kind):
        return lambda *args, **kwargs: self(instance, *args, **kwargs)

    def __call__(self, *args, **kwargs):
        if self.is_away:
            raise self._error
        return self._method(*args, **kwargs)


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

    def test_guests_are_reached_over_a_socket_of_the_host_however_nova_does(self):
        uris = []
        self.useFixture(fixtures.MonkeyPatch(
            'hotsnap_nova.virt.host.Engine',
            lambda uri, keep_hours: uris.append(uri) or self._open_engine(uri, keep_hours)))
        self.flags(connection_uri='qemu+tcp://127.0.0.1/system', group='libvirt')

        self.start_compute('compute1')
        self.flags(local_uri='qemu:///system', group='hotsnap')
        self.start_compute('compute2')

        assert uris == ['qemu+tcp://127.0.0.1/system', 'qemu:///system']

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

    def test_a_stop_frees_guests_before_it_waits_for_what_hangs(self):
        self.start_compute('compute1')
        server = self.boot('web')
        saving, hanging, goes_on = self.saving(), threading.Event(), threading.Event()
        self.snapshots.create(self.request(server))
        assert saving.wait(30)
        self.useFixture(fixtures.MonkeyPatch('hotsnap_nova.nova.participation._END_S', 300.0))
        self.addCleanup(goes_on.set)
        self.engine.faults['check'] = lambda _about: (hanging.set(), goes_on.wait(300))

        def ask():
            with contextlib.suppress(exception.HostUnreachable):
                self.compute_api.check('compute1', [], 'hold')
        threading.Thread(target=ask, daemon=True).start()
        assert hanging.wait(30)

        self.computes['compute1'].stop()

        until(lambda: self.state(server) == AT_REST)
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
        self.orders = self.restoring(self.row)

    def restoring(self, row):
        """A function that has the host do steps, and returns the answer to the last of them.

        One that has trouble with a decision is asked no further.
        """
        share = orders.Share(row.id, tuple(
            messages.Member(each.member_id, each.name) for each in row.members), False,
            json.dumps({'context': CALLER}))

        def do(*steps):
            answers = []
            for step in steps:
                order = orders.Order(f'of-{row.id}', 'compute1', step, share)
                until(lambda order=order: answers.append(self.compute_api.order(order, 30))
                      or is_said(answers[-1]))
            return answers[-1]

        def is_said(answer):
            return not isinstance(answer, orders.OrderWorking) or bool(answer.trouble)
        return do

    def stop(self):
        self._stop_server(self.api.get_server(self.server))
        with self.world.open() as guests:
            guests['web']['state'] = 'shut off'

    def domain(self, server=None):
        """The guest as Nova's fake libvirt has it; our engine has others."""
        return self.driver()._host.get_guest(self.instance(server or self.server))

    def test_an_instance_has_a_task_through_a_restore(self):
        seen = [self.during(f'restore_{step}', lambda: self.state(self.server)[1])
                for step in ('prepare', 'stop', 'start', 'resume', 'finish')]

        self.orders(*ALL)

        assert seen == [[task_states.RESTORING]] * 5
        assert self.state(self.server) == AT_REST
        action, event = self.action(self.server)
        assert (action.action, event.event, event.result) == (
            'restore', 'compute_restore_server_group', 'Success')

    def test_a_member_that_was_stopped_is_active_after_a_restore(self):
        self.stop()
        domain = self.domain()
        self.engine.faults['restore_resume'] = lambda _work: domain.launch()

        self.orders(*ALL)

        assert self.state(self.server) == AT_REST
        assert self.instance(self.server).power_state == power_state.RUNNING

    def test_an_undone_restore_leaves_an_instance_as_its_guest_is(self):
        self.stop()

        self.orders(*ALL[:2], Step.UNDO)

        assert self.state(self.server) == (vm_states.STOPPED, None)
        _action, event = self.action(self.server)
        assert event.result == 'Error'

    def test_an_instance_at_work_refuses_a_restore_before_anything_is_stopped(self):
        instance = self.instance(self.server)
        instance.task_state = task_states.REBOOTING
        instance.save()

        refused = self.orders(Step.PREPARE)

        assert (refused.cause.code, 'rebooting' in refused.cause.text) == ('guest_busy', True)
        self.orders(Step.UNDO)
        assert 'restore_prepare' not in self.engine.calls
        assert self.state(self.server)[1] == task_states.REBOOTING

    def test_a_guest_of_which_libvirt_does_not_tell_is_not_said_to_be_off(self):
        self.orders(*ALL[:3])
        libvirt = Away(libvirt_host.Host.get_guest, nova_exception.InternalError('no libvirt'))
        self.useFixture(fixtures.MonkeyPatch('nova.virt.libvirt.host.Host.get_guest', libvirt))

        answer = self.orders(Step.RESUME)

        assert 'libvirt does not say whether it runs' in answer.trouble
        assert self.state(self.server) == (vm_states.ACTIVE, task_states.RESTORING)
        libvirt.is_away = False
        until(lambda: self.orders(Step.RESUME) == self.done(Step.RESUME))
        assert self.state(self.server) == AT_REST
        assert self.instance(self.server).power_state == power_state.RUNNING

    def test_a_conductor_that_is_away_at_the_end_costs_a_moment(self):
        self.orders(*ALL[:3])
        conductor = Away(objects.Instance.save, oslo_messaging.MessagingTimeout('no answer'))
        self.useFixture(fixtures.MonkeyPatch('nova.objects.Instance.save', conductor))

        answer = self.orders(Step.RESUME)

        assert 'nova-conductor' in answer.trouble
        assert self.state(self.server) == (vm_states.ACTIVE, task_states.RESTORING)
        conductor.is_away = False
        until(lambda: self.orders(Step.RESUME) == self.done(Step.RESUME))
        assert self.state(self.server) == AT_REST
        assert self.engine.calls.count('restore_resume') == 1

    def test_a_database_of_novas_that_is_away_for_a_moment_costs_a_moment(self):
        self.orders(*ALL[:2])
        get, lost = objects.Instance.get_by_uuid, []

        def lose_the_first(*args, **kwargs):
            if not lost:
                lost.append(args)
                raise oslo_messaging.RemoteError('DBConnectionError', 'SELECT and so on')
            return get(*args, **kwargs)
        self.useFixture(fixtures.MonkeyPatch('nova.objects.Instance.get_by_uuid',
                                             staticmethod(lose_the_first)))
        self.engine.faults['restore_start'] = lambda _work: self.engine.definitions.starting(
            self.server)

        assert self.orders(Step.START) == self.done(Step.START)
        assert lost
        assert self.engine.calls.count('restore_start') == 2

    def done(self, step):
        return orders.OrderDone(f'of-{self.row.id}', 'compute1', step)

    def test_a_restart_frees_what_no_restore_holds(self):
        instance = self.instance(self.server)
        instance.task_state = task_states.RESTORING
        instance.save()

        self.restart_compute_service('compute1')

        assert self.state(self.server) == AT_REST

    def test_a_restart_without_libvirts_word_frees_it_when_that_comes(self):
        instance = self.instance(self.server)
        instance.task_state = task_states.RESTORING
        instance.save()
        self.useFixture(fixtures.MonkeyPatch(
            'hotsnap_nova.nova.participation._RECOVER_EVERY_S', 0.01))
        answers = iter([power_state.NOSTATE, power_state.RUNNING])
        self.useFixture(fixtures.MonkeyPatch(
            'hotsnap_nova.nova.driver.HotSnapLibvirtDriver._power_state_of',
            lambda _driver, _instance: next(answers)))

        self.restart_compute_service('compute1')

        assert self.state(self.server) == AT_REST

    def takes_long_to_start(self):
        """Ours works on guests, and has not started until this is set; Nova does not wait."""
        real, goes_on = manager.ComputeManager.start, threading.Event()
        self.addCleanup(goes_on.set)
        self.useFixture(fixtures.MonkeyPatch(
            'hotsnap_nova.compute.manager.ComputeManager.start',
            lambda made: (real(made), goes_on.wait(300))))
        self.useFixture(fixtures.MonkeyPatch('hotsnap_nova.nova.participation._START_S', 0.0))
        return goes_on

    def test_a_guest_is_its_owners_while_ours_takes_long_to_start(self):
        """Nova has waited for so long, and serves; steps of restores go on already."""
        self.orders(*ALL[:2])
        self.takes_long_to_start()

        self.restart_compute_service('compute1')

        ours, instance = self.driver()._participation, self.instance(self.server)
        until(lambda: self.manager() and self.manager()._restores.busy())
        assert not ours.answers
        with pytest.raises(nova_exception.InstanceInvalidState):
            ours.refuse_while_busy(instance, 'attach_volume')
        ours.withdraw(instance, 'Nova has to destroy the instance')
        (part,) = self.manager()._restores.busy()
        assert part.withdrawn == (self.server,)

    def test_what_is_ended_while_it_starts_is_ended_by_what_starts_it(self):
        goes_on = self.takes_long_to_start()
        self.restart_compute_service('compute1')
        until(self.manager)
        starting, stopped = self.manager(), threading.Event()
        stop = starting.stop
        starting.stop = lambda: (stop(), stopped.set())

        self.computes['compute1'].stop()

        assert not stopped.is_set()
        goes_on.set()
        assert stopped.wait(30)
        assert self.manager() is None

    @contextlib.contextmanager
    def saves_fail(self, server, error):
        """Nova's record of this server cannot be changed."""
        real = objects.Instance.save

        def save(instance, *args, **kwargs):
            if instance.uuid == server:
                raise error
            return real(instance, *args, **kwargs)
        with fixtures.MonkeyPatch('nova.objects.Instance.save', save):
            yield

    def test_a_restart_frees_all_but_what_was_deleted_meanwhile(self):
        servers = [self.server, self.boot('db'), self.boot('app')]
        for server in servers:
            instance = self.instance(server)
            instance.task_state = task_states.RESTORING
            instance.save()
        first = min(servers, key=[each.uuid for each in objects.InstanceList.get_by_host(
            nova_context.get_admin_context(), 'compute1')].index)

        with self.saves_fail(first, nova_exception.InstanceNotFound(instance_id=first)):
            self.restart_compute_service('compute1')

        assert {self.state(server) for server in servers if server != first} == {AT_REST}

    def test_a_restart_within_a_restore_keeps_its_members_until_it_ends(self):
        self.orders(*ALL[:2])
        other = self.boot('db')

        self.restart_compute_service('compute1')

        assert self.state(self.server)[1] == task_states.RESTORING
        self.api.post_server_action(
            self.server, {'reboot': {'type': 'HARD'}}, check_response_status=[409])
        assert self.state(other) == AT_REST
        self.orders(Step.UNDO)
        assert self.state(self.server) == AT_REST
        _action, event = self.action(self.server)
        assert event.result == 'Error'

    def test_a_host_that_boots_starts_no_guest_of_a_restore(self):
        self.flags(resume_guests_state_on_host_boot=True)
        other = self.boot('db')
        self.orders(*ALL[:2])
        for server in (self.server, other):
            self.domain(server).poweroff()

        self.restart_compute_service('compute1')

        states = {server: self.domain(server).get_power_state(self.driver()._host)
                  for server in (self.server, other)}
        assert states == {self.server: power_state.SHUTDOWN, other: power_state.RUNNING}

    def test_a_host_that_cannot_read_its_orders_starts_no_guest_that_has_the_task(self):
        self.flags(resume_guests_state_on_host_boot=True)
        self.orders(*ALL[:2])
        self.domain().poweroff()
        self.useFixture(fixtures.MonkeyPatch(
            'hotsnap_nova.compute.orders.Orders.under_way', Away(
                lambda _self: {}, OSError('no such disk'))))

        self.restart_compute_service('compute1')

        assert self.domain().get_power_state(self.driver()._host) == power_state.SHUTDOWN
        assert self.state(self.server)[1] == task_states.RESTORING

    def test_a_guest_that_its_owner_took_back_is_given_back_by_a_restart(self):
        self.orders(Step.PREPARE)
        self.manager().withdraw(self.server, 'an administrator reboots it')

        self.restart_compute_service('compute1')

        assert self.state(self.server) == AT_REST

    def test_a_member_evacuated_meanwhile_is_left_to_its_new_host(self):
        """Its host was cut off after the disks were swapped, on shared storage."""
        self.orders(*ALL[:3])
        self.world.kill('web')
        instance = self.instance(self.server)
        instance.host, instance.task_state = 'compute2', None
        instance.save()
        self.engine.calls.clear()

        answer = self.orders(Step.RESUME)

        (fault,) = answer.faults
        assert (fault.member, fault.cause.code) == (self.server, 'withdrawn')
        assert self.world.guest('web')['state'] == 'shut off'
        assert self.state(self.server) == AT_REST

    def evacuating(self, status, task_state):
        """What Nova has on record of a host that was cut off: it is the instance's host still."""
        self.world.kill('web')
        instance = self.instance(self.server)
        instance.task_state = task_state
        instance.save()
        objects.Migration(
            nova_context.get_admin_context(), source_compute='compute1', source_node='compute1',
            instance_uuid=self.server, status=status,
            migration_type=fields.MigrationType.EVACUATION).create()
        self.engine.calls.clear()

    def test_a_member_being_evacuated_is_not_started_where_it_was(self):
        self.orders(*ALL[:3])
        self.evacuating('pre-migrating', None)    # its new host has just started it

        answer = self.orders(Step.RESUME)

        (fault,) = answer.faults
        assert (fault.member, fault.cause.code) == (self.server, 'withdrawn')
        assert self.world.guest('web')['state'] == 'shut off'

    def test_nor_does_an_undo_start_a_member_being_evacuated(self):
        self.orders(*ALL[:3])
        self.evacuating('accepted', task_states.REBUILDING)

        self.orders(Step.UNDO)

        assert self.world.guest('web')['state'] == 'shut off'

    def test_a_member_whose_evacuation_failed_is_nowhere_else(self):
        self.orders(*ALL[:3])
        self.evacuating('failed', None)

        answer = self.orders(Step.RESUME)

        assert not [each for each in answer.faults if each.cause.code == 'withdrawn']

    def test_an_evacuation_that_is_not_on_record_yet_has_its_task(self):
        self.orders(*ALL[:3])
        self.world.kill('web')
        instance = self.instance(self.server)
        instance.task_state = task_states.REBUILDING
        instance.save()

        answer = self.orders(Step.RESUME)

        (fault,) = answer.faults
        assert (fault.member, fault.cause.code) == (self.server, 'withdrawn')

    def test_an_evacuation_of_another_host_takes_nothing_from_this_one(self):
        """It came here by one, and its record stays until that host is back."""
        objects.Migration(
            nova_context.get_admin_context(), source_compute='compute2', source_node='compute2',
            dest_compute='compute1', instance_uuid=self.server, status='done',
            migration_type=fields.MigrationType.EVACUATION).create()

        answer = self.orders(*ALL)

        assert answer.faults == ()
        assert self.state(self.server) == AT_REST

    def test_deleting_a_member_within_a_restore_fails_it_and_not_the_deletion(self):
        other = self.boot('db')
        do = self.restoring(self.snapshot(self.server, other, name='both'))
        begun = threading.Event()

        def delete(_work):
            threading.Thread(target=self.api.delete_server, args=(self.server,)).start()
            # Nova waits for this step, and no longer.
            until(lambda: self.manager()._restores.busy()[0].withdrawn)
            begun.set()
        self.engine.faults['restore_prepare'] = delete

        refused = do(Step.PREPARE)

        assert begun.wait(60)    # which looks now and then
        assert refused.cause.code == 'withdrawn'
        do(Step.UNDO)
        self._wait_until_deleted({'id': self.server})
        assert 'restore_stop' not in self.engine.calls
        assert self.state(other) == AT_REST
        assert self.world.untouched()

    def test_nova_defines_what_a_restored_instance_starts_with(self):
        found = ET.fromstring(self.engine.definitions.xml(self.server))

        assert found.findtext('uuid') == self.server
        assert found.findtext('memory') == str(self.instance(self.server).flavor.memory_mb * 1024)

    def test_what_novas_helpers_raise_is_said_of_the_server(self):
        """After a restore's decision it must not keep other servers."""
        def fail(*_args, **_kwargs):
            raise OSError('RTNETLINK answers: No buffer space')    # no exception of Nova's
        for name, error, does in (
                ('nova.virt.libvirt.blockinfo.get_disk_info', exception.Refused, 'xml'),
                ('nova.virt.libvirt.driver.LibvirtDriver.plug_vifs', exception.HypervisorError,
                 'starting')):
            with fixtures.MonkeyPatch(name, fail), pytest.raises(error) as raised:
                getattr(self.engine.definitions, does)(self.server)
            assert 'RTNETLINK answers: No buffer space' in str(raised.value)

    def test_nova_tells_which_disks_are_cinders_by_its_own_record_of_them(self):
        context = nova_context.get_admin_context()
        connection = json.dumps({'driver_volume_type': 'nfs', 'serial': 'v-1', 'data': {}})
        for more in ({'volume_id': 'v-1', 'device_name': '/dev/vdb',
                      'connection_info': connection},
                     {'volume_id': 'v-2', 'device_name': None, 'connection_info': None}):
            objects.BlockDeviceMapping(
                context, instance_uuid=self.server, source_type='volume',
                destination_type='volume', **more).create()

        found = self.engine.definitions.volumes(self.server)

        assert {(each.id, each.kind, each.serial, each.target) for each in found} == {
            ('v-1', 'nfs', 'v-1', 'vdb'), ('v-2', 'attached', 'v-2', '')}


    def test_nova_tells_what_addresses_its_ports_have(self):
        port = nova_fixtures.NeutronFixture.port_1
        server = self._create_server(name='net', host='compute1', networks=[{'port': port['id']}])

        found = self.engine.definitions.addresses(server['id'])

        assert found == {port['mac_address']: tuple(
            each['ip_address'] for each in port['fixed_ips'])}
        assert self.engine.definitions.addresses(self.server) == {}

    def test_policies_that_set_a_dscp_are_told_of_its_ports(self):
        port = nova_fixtures.NeutronFixture.port_1
        server = self._create_server(name='net', host='compute1', networks=[{'port': port['id']}])
        rules = {'p-1': ['dscp_marking'], 'p-2': ['bandwidth_limit']}
        found = {}

        class Client:
            def show_port(self, port_id):
                assert port_id == port['id']
                return {'port': found}

            def show_qos_policy(self, policy_id):
                return {'policy': {'name': f'name of {policy_id}', 'rules': [
                    {'type': each} for each in rules[policy_id]]}}

        def fail(*_args, **_kwargs):
            raise OSError('no route')
        ask = self.engine.definitions.dscp_policies
        with fixtures.MonkeyPatch('nova.network.neutron.get_client', lambda *_, **__: Client()):
            for own, network, told in (('p-1', None, True), (None, 'p-1', True),
                                       ('p-2', 'p-1', False), (None, None, False)):
                found.update(qos_policy_id=own, qos_network_policy_id=network)
                assert ask(server['id']) == (
                    ((port['mac_address'], 'name of p-1'),) if told else ())
            assert ask(self.server) == ()
        with fixtures.MonkeyPatch('nova.network.neutron.get_client', fail), \
                pytest.raises(exception.HostUnreachable, match='Neutron.*no route'):
            ask(server['id'])

    def test_its_serial_console_is_where_it_was(self):
        """Nova defines none for a guest that has one, and it would lead nowhere."""
        self.flags(enabled=True, group='serial_console')
        runs = self.driver()._host.get_guest(self.instance(self.server)).get_xml_desc()

        found = ET.fromstring(self.engine.definitions.xml(self.server))

        (port,) = found.findall('devices/serial')
        assert port.get('type') == 'tcp'
        assert port.find('source').attrib == ET.fromstring(runs).find(
            "devices/serial[@type='tcp']/source").attrib


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
