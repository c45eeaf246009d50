# SPDX-License-Identifier: Apache-2.0
"""Whatever is wrong with us, Nova's own routes answer as ever."""

import sys
import uuid
from unittest import mock

from oslo_serialization import jsonutils

from hotsnap_nova.api import faults, middleware
from hotsnap_nova.conductor import rpcapi
from tests.nova import base
from tests.nova.base import SNAPSHOTS


class BrokenImportTest(base.ApiTestCase):

    def break_import(self):
        for name in [each for each in sys.modules if each.startswith('hotsnap_nova.api.')
                     and each != 'hotsnap_nova.api.middleware']:
            self.addCleanup(sys.modules.__setitem__, name, sys.modules.pop(name))
        import hotsnap_nova.api
        for name in ('router', 'snapshots'):
            vars(hotsnap_nova.api).pop(name, None)
        broken = mock.patch.dict(sys.modules, {'hotsnap_nova.api.snapshots': None})
        broken.start()
        return broken.stop

    def test_an_import_error_is_503_on_our_routes_alone_and_ends_with_its_cause(self):
        repair = self.break_import()
        group = str(uuid.uuid4())

        ours = [self.api.get(SNAPSHOTS), self.api.get(f'/{base.PROJECT}{SNAPSHOTS}/detail'),
                self.api.post(f'/os-server-groups/{group}/snapshot-check', {})]
        novas = [self.api.get('/os-server-groups'), self.api.get('/flavors'),
                 self.api.get('/servers'), self.api.get('/')]
        repair()
        repaired = self.api.get(SNAPSHOTS)

        for answer in ours:
            message = self.fault(answer, 503, 'serviceUnavailable')
            assert message == 'Snapshots of server groups are not available.'
        assert [each.status_code for each in novas] == [200] * 4
        assert repaired.status_code == 200


class DeadCoordinatorTest(base.ApiTestCase):

    def test_a_dead_coordinator_is_503_on_our_routes_alone(self):
        group = self.make_group()
        self.stop_conductor()
        for timeout in ('_SHORT_S', 'HOSTS_S'):
            patched = mock.patch.object(rpcapi, timeout, 0.2)
            patched.start()
            self.addCleanup(patched.stop)

        ours = [self.api.get(SNAPSHOTS), self.api.get(f'{SNAPSHOTS}/{uuid.uuid4()}'),
                self.api.post(SNAPSHOTS, {'server_group_snapshot': {'server_group_id': group}}),
                self.api.post(f'/os-server-groups/{group}/snapshot-check',
                              {'snapshot_check': None})]

        away = 'The service for snapshots of server groups does not answer.'
        doubt = ' It may still do what was asked for: look at the snapshots.'
        for answer, more in zip(ours, ('', '', doubt, ''), strict=True):
            message = self.fault(answer, 503, 'serviceUnavailable')
            assert message == away + more
            assert answer.headers[faults.CODE_HEADER] == 'unavailable'
        assert self.api.get('/os-server-groups').status_code == 200

    def test_a_coordinator_that_returns_is_heard_at_once(self):
        self.stop_conductor()
        with mock.patch.object(rpcapi, '_SHORT_S', 0.2):
            away = self.api.get(SNAPSHOTS)
        self.start_conductor()

        assert (away.status_code, self.api.get(SNAPSHOTS).status_code) == (503, 200)


class PassingThroughTest(base.ApiTestCase):

    def test_what_is_not_ours_reaches_nova_untouched(self):
        seen = []

        def nova(environ, start_response):
            seen.append(dict(environ))
            start_response('200 OK', [])
            return [b'nova']
        application = middleware.factory({})(nova)

        for path in ('/servers/os-server-group-snapshots', '/os-server-groups',
                     '/os-server-groups/x', '/os-server-groups/x/snapshot-checks',
                     '/os-server-group-snapshots2', '/zzz/os-server-group-snapshots', '', '/'):
            environ = {'PATH_INFO': path, 'REQUEST_METHOD': 'GET'}
            assert application(dict(environ), lambda *_: None) == [b'nova']
            assert seen[-1] == environ

    def test_our_paths_with_verbs_that_are_not_ours_get_novas_404(self):
        assert self.api.request('PATCH', SNAPSHOTS).status_code == 404
        assert self.api.delete(SNAPSHOTS).status_code == 404
        assert self.api.get(f'{SNAPSHOTS}/a/b/c').status_code == 404

    def test_another_projects_id_in_the_url_is_400(self):
        answer = self.api.get(f'/{base.OTHER_PROJECT}{SNAPSHOTS}')

        self.fault(answer, 400, 'badRequest')

    def test_novas_microversions_are_obeyed_and_not_ours(self):
        header = 'OpenStack-API-Version'

        newest = self.api.request('GET', SNAPSHOTS, **{header: 'compute latest'})
        unknown = self.api.request('GET', SNAPSHOTS, **{header: 'compute 2.9999'})
        oldest = self.api.request('GET', SNAPSHOTS)

        assert (newest.status_code, unknown.status_code) == (200, 406)
        assert newest.json() == oldest.json()

    def test_a_wrong_content_type_is_415_and_bad_json_400(self):
        url = self.base_url + SNAPSHOTS
        import requests
        headers = {'X-Auth-Token': self.api.token}

        form = requests.post(url, data='a=b', timeout=60, headers=headers | {
            'Content-Type': 'application/x-www-form-urlencoded'})
        broken = requests.post(url, data='{', timeout=60, headers=headers | {
            'Content-Type': 'application/json'})

        assert (form.status_code, broken.status_code) == (415, 400)

    def test_the_context_that_the_coordinator_hears_is_the_callers(self):
        answer = self.api.get(SNAPSHOTS)

        context = self.conductor.contexts[-1]
        assert context['request_id'] == answer.headers['x-openstack-request-id']
        assert (context['user_id'], context['project_id'], context['is_admin']) == (
            'fake', base.PROJECT, False)
        assert jsonutils.loads(jsonutils.dumps(context)) == context
