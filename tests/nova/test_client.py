# SPDX-License-Identifier: Apache-2.0
"""The client for programs, over a real openstacksdk connection."""

import re
import uuid

import fixtures
import openstack
import pytest
from keystoneauth1 import adapter, session, token_endpoint
from keystoneauth1 import exceptions as keystone_exceptions
from openstack import exceptions

from hotsnap_nova import client, exception
from hotsnap_nova.client import records
from tests.nova import base


class ClientTest(base.ApiTestCase):

    def client(self, user=None):
        connection = openstack.connect(
            auth_type='admin_token', load_yaml_config=False, load_envvars=False,
            auth={'endpoint': self.base_url, 'token': (user or self.api).token})
        self.addCleanup(connection.close)
        return client.Client(connection.compute, poll_s=0)

    def test_a_snapshot_made_waited_for_restored_verified_and_deleted(self):
        group = self.make_group('shop')
        snapshots, phases = self.client(), []

        made = snapshots.create(group, name='nightly', properties={'a': '1'})
        available = snapshots.wait_until_made(
            made.id, watch=lambda each: phases.append(each.phase))
        snapshots.restore(made.id)
        restored = snapshots.wait_until_acted(made.id)
        snapshots.verify(made.id)
        verified = snapshots.wait_until_acted(made.id)
        snapshots.delete(made.id)
        snapshots.wait_until_deleted(made.id)

        assert (made.status, available.status, made.properties) == (
            'creating', 'available', {'a': '1'})
        assert phases == ['prepare', 'record', 'release', 'save', 'finish', '']
        assert (available.members[0].pause_ms, available.size_bytes) == (12.25, 2 << 20)
        assert (restored.last_action.name, restored.last_action.status) == ('restore', 'done')
        assert verified.last_action.result == {'files': 6, 'size_bytes': 1 << 30}
        assert list(snapshots.list()) == []

    def test_errors_are_openstacksdks_with_our_code(self):
        group = self.make_group()
        snapshots = self.client()
        for ours, theirs in (
                (exception.EmptyGroup(), exceptions.BadRequestException),
                (exception.GuestBusy(member='web', reason='a migration'),
                 exceptions.ConflictException),
                (exception.StoreUnavailable(store='local', reason='full'),
                 exceptions.HttpException)):
            self.conductor.faults['create'] = ours

            with pytest.raises(theirs, match=str(ours)) as caught:
                snapshots.create(group)

            assert client.error_code(caught.value) == ours.code
            assert caught.value.status_code == ours.http_status

    def test_errors_that_are_not_ours_have_no_code(self):
        with pytest.raises(exceptions.ForbiddenException) as caught:
            list(self.client(self.nobody).list())

        assert client.error_code(caught.value) is None
        assert client.error_code(ValueError()) is None

    def test_waiting_ends_with_the_time_it_was_given(self):
        made = self.make_snapshot()

        with pytest.raises(exceptions.ResourceTimeout, match='still busy'):
            self.client().wait_until_made(made['id'], timeout_s=0)

    def test_waiting_gives_up_on_a_service_that_stays_away(self):
        made = self.make_snapshot()
        self.conductor.faults['get'] = exception.Unavailable()

        with pytest.raises(exceptions.HttpException):
            self.client().wait_until_made(made['id'])

        assert len(self.conductor.calls) > 10

    def test_waiting_outlives_an_api_that_restarts(self):
        made = self.make_snapshot()
        snapshots = self.client()
        send, lost = openstack.proxy.Proxy.request, iter([1, 1, 1])

        def request(*args, **kwargs):
            if next(lost, None):
                raise keystone_exceptions.ConnectFailure('refused')
            return send(*args, **kwargs)
        self.useFixture(fixtures.MonkeyPatch('openstack.proxy.Proxy.request', request))

        assert snapshots.wait_until_made(made['id']).status == 'available'

    def test_waiting_does_not_go_on_after_an_error_that_stays(self):
        made = self.make_snapshot()
        self.conductor.calls.clear()

        with pytest.raises(exceptions.ForbiddenException):
            self.client(self.nobody).wait_until_made(made['id'])

        assert len(self.conductor.calls) == 1

    def test_waiting_for_one_that_somebody_deleted_says_so(self):
        made = self.make_snapshot()
        del self.conductor.snapshots[made['id']]

        with pytest.raises(exceptions.ResourceFailure, match='was deleted'):
            self.client().wait_until_made(made['id'])

    def test_find_knows_names_ids_and_what_is_ambiguous(self):
        one = self.make_available(name='one')
        self.make_available(name='twin')
        self.make_available(name='twin')
        snapshots = self.client()

        assert snapshots.find('one').id == snapshots.find(one['id']).id == one['id']
        with pytest.raises(exceptions.DuplicateResource, match='use an ID'):
            snapshots.find('twin')
        with pytest.raises(exceptions.NotFoundException):
            snapshots.find('a/b?c#d')

    def test_find_takes_any_name_though_it_look_like_a_route_or_an_id(self):
        names = ('detail', 'version', '..', str(uuid.uuid4()))
        for name in names:
            self.make_available(name=name)
        snapshots = self.client()

        assert tuple(snapshots.find(name).name for name in names) == names

    def test_a_cloud_without_our_routes_is_told_so(self):
        self.useFixture(fixtures.MonkeyPatch(
            'hotsnap_nova.api.middleware._OURS', re.compile('nothing')))
        snapshots = self.client()

        for call in (lambda: list(snapshots.list()), lambda: snapshots.find('nightly'),
                     lambda: snapshots.wait_until_made(str(uuid.uuid4()))):
            with pytest.raises(exceptions.EndpointNotFound, match='This cloud has no snapshots'):
                call()

    def test_check_is_typed(self):
        verdict = self.client().check(self.make_group(), gate='hold')

        assert (verdict.possible, verdict.gates) == (True, ('barrier',))
        assert verdict.restorable
        assert verdict.findings[0].remedy == 'take it off vhost'
        assert verdict.findings[0].rules_out == ('hold',)
        assert self.conductor.calls[-1] == ('check', {'gate': 'hold', 'disk': 'backup'})

    def test_a_plain_keystoneauth_adapter_does_as_well(self):
        auth = token_endpoint.Token(self.base_url, self.api.token)
        plain = adapter.Adapter(session.Session(auth), service_type='compute')
        self.make_available(name='nightly')

        assert [each.name for each in client.Client(plain).list(detailed=True)] == ['nightly']

    def test_fields_of_a_newer_service_are_passed_over(self):
        found = records.snapshot({
            'id': '1', 'name': 'n', 'status': 'available', 'phase': '', 'server_group_id': 'g',
            'server_group_name': 'g', 'created_at': 'now', 'colour': 'red',
            'members': [{'server_id': 's', 'name': 'web', 'mood': 'good'}]})

        assert found.members[0].name == 'web'

    def test_bytes_that_are_not_known_yet_count_as_none_done(self):
        found = records.snapshot({
            'id': '1', 'name': 'n', 'status': 'creating', 'phase': 'save', 'server_group_id': 'g',
            'server_group_name': 'g', 'created_at': 'now',
            'members': [{'server_id': 's', 'name': 'web', 'pause_ms': None, 'done_bytes': None,
                         'total_bytes': None}]})

        assert (found.members[0].done_bytes, found.members[0].total_bytes) == (0, 0)
        assert found.members[0].pause_ms is None
