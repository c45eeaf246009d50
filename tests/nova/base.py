# SPDX-License-Identifier: Apache-2.0
"""Nova's API with our filter in its pipeline, and a coordinator without guests."""

import os
import re
import sys

import fixtures
import requests
from nova import rpc as nova_rpc
from nova import test
from nova.tests import fixtures as nova_fixtures

from hotsnap_nova import rpc
from hotsnap_nova.conductor import rpcapi
from tests.fakes.conductor import Conductor

PROJECT = '6f70656e737461636b20342065766572'
OTHER_PROJECT = '616c6c796f7572626173656172656f73'
SNAPSHOTS = '/os-server-group-snapshots'


def paste_with_filter(folder: str) -> str:
    """Path of Nova's own api-paste.ini with our filter, as an operator adds it."""
    with open(os.path.join(sys.prefix, 'etc/nova/api-paste.ini')) as stock:
        text = stock.read()
    text, count = re.subn(r'^(keystone = .* keystonecontext) ', r'\1 hotsnap ', text, flags=re.M)
    assert count == 2, 'the pipelines of v2.1 are not as they were'
    path = os.path.join(folder, 'api-paste.ini')
    with open(path, 'w') as changed:
        changed.write(text + '\n[filter:hotsnap]\n'
                      'paste.filter_factory = hotsnap_nova.api.middleware:factory\n')
    return path


def keep_put_attributes(kind):
    """A `_clear_attrs` for ``kind``: Nova's drops also what pytest put there and takes away."""
    def clear(self):
        put = self.__dict__.pop(self._testMethodName, None)
        kind._clear_attrs(self)
        if put is not None:
            self.__dict__[self._testMethodName] = put
    return clear


class ApiTestCase(test.TestCase):
    """Calls go through all of Nova's pipeline; who calls is in the token.

    :ivar api: a member's client; ``reader``, ``admin``, ``stranger`` (a member of
        another project) and ``nobody`` (no role that counts) likewise
    """

    enforce_new_defaults = True
    paste = staticmethod(paste_with_filter)

    def setUp(self):
        super().setUp()
        self.flags(enforce_new_defaults=self.enforce_new_defaults, group='oslo_policy')
        self.folder = self.useFixture(fixtures.TempDir()).path
        self.flags(api_paste_config=self.paste(self.folder), group='wsgi')
        self.policy = self.useFixture(nova_fixtures.RealPolicyFixture())
        self.useFixture(fixtures.MonkeyPatch(
            'keystonemiddleware.auth_token.filter_factory', lambda *_conf, **_local: Token))
        fixture = self.useFixture(nova_fixtures.OSAPIFixture(stub_keystone=False))
        self.base_url = fixture.base_url
        self.api = Client(self.base_url, 'fake', PROJECT, 'reader,member')
        self.reader = Client(self.base_url, 'reader', PROJECT, 'reader')
        self.admin = Client(self.base_url, 'admin', PROJECT, 'reader,member,admin')
        self.far_admin = Client(self.base_url, 'admin', OTHER_PROJECT, 'reader,member,admin')
        self.stranger = Client(self.base_url, 'stranger', OTHER_PROJECT, 'reader,member')
        self.nobody = Client(self.base_url, 'nobody', PROJECT, 'other')
        self.conductor = Conductor()
        self.server = None
        self.start_conductor()

    _clear_attrs = keep_put_attributes(test.TestCase)

    def start_conductor(self):
        self.server = rpc.open_server(nova_rpc.TRANSPORT, rpcapi.TOPIC, 'conductor-1',
                                      [self.conductor])
        self.server.start()
        self.addCleanup(self.stop_conductor)

    def stop_conductor(self):
        if self.server:
            self.server.stop()
            self.server.wait()
            self.server = None

    def make_group(self, name='web', client=None, members=('web-1', 'web-2')):
        """Id of a server group known to Nova and to the coordinator."""
        client = client or self.api
        group = client.post('/os-server-groups', {'server_group': {
            'name': name, 'policies': ['affinity']}}).json()['server_group']['id']
        self.conductor.add_group(group, name, client.project, members)
        return group

    def make_snapshot(self, group=None, client=None, **wanted):
        """A snapshot that is being made."""
        client = client or self.api
        wanted['server_group_id'] = group or self.make_group(client=client)
        answer = client.post(SNAPSHOTS, {'server_group_snapshot': wanted})
        assert answer.status_code == 202, answer.text
        return answer.json()['server_group_snapshot']

    def make_available(self, **wanted):
        """A snapshot that has been made."""
        made = self.make_snapshot(**wanted)
        self.conductor._created(self.conductor.snapshots[made['id']])
        self.conductor._future.clear()
        return self.conductor.snapshots[made['id']]

    def fault(self, answer, status, name):
        """The message of an answer that is one of Nova's faults."""
        assert answer.status_code == status, answer.text
        assert list(answer.json()) == [name]
        assert answer.json()[name]['code'] == status
        assert 'x-openstack-request-id' in answer.headers
        return answer.json()[name]['message']


class Token:
    """Instead of keystonemiddleware: believes a token of user:project:roles."""

    def __init__(self, application):
        self._application = application

    def __call__(self, environ, start_response):
        user, project, roles = environ['HTTP_X_AUTH_TOKEN'].split(':')
        environ |= {'HTTP_X_USER_ID': user, 'HTTP_X_PROJECT_ID': project, 'HTTP_X_ROLES': roles,
                    'HTTP_X_IDENTITY_STATUS': 'Confirmed'}
        return self._application(environ, start_response)


class Client:
    """One user's plain HTTP."""

    def __init__(self, base_url, user, project, roles):
        self.base_url = base_url
        self.project = project
        self.token = f'{user}:{project}:{roles}'

    def request(self, method, path, body=None, **headers):
        return requests.request(
            method, self.base_url + path, json=body, timeout=60, allow_redirects=False,
            headers={'X-Auth-Token': self.token, 'Accept': 'application/json'} | headers)

    def get(self, path):
        return self.request('GET', path)

    def post(self, path, body):
        return self.request('POST', path, body)

    def put(self, path, body):
        return self.request('PUT', path, body)

    def delete(self, path):
        return self.request('DELETE', path)
