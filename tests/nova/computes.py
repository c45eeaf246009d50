# SPDX-License-Identifier: Apache-2.0
"""nova-computes with our driver on Nova's fake libvirt, and guests of a fake engine."""

import os
import sys
import uuid

import fixtures
from nova import context as nova_context
from nova import objects
from nova import rpc as nova_rpc
from nova.tests.functional.libvirt import base

from hotsnap_nova import conf
from hotsnap_nova.compute import rpcapi
from hotsnap_nova.conductor import requests, snapshots
from hotsnap_nova.db import api as db_api
from tests.fakes.engine import Engine, World
from tests.nova.base import keep_put_attributes

CALLER = {'user_id': 'alice', 'project_id': 'web-shop', 'request_id': f'req-{uuid.uuid4()}'}


class ComputeTestCase(base.ServersTestBase):
    """Servers that Nova runs on its fake libvirt, and our engine in a world of its own.

    :ivar world: see `tests.fakes.engine`
    :ivar engines: by host, in the order they were opened
    """

    api_major_version = 'v2.1'
    microversion = 'latest'

    def setUp(self):
        self.folder = self.useFixture(fixtures.TempDir()).path
        self.flags(api_paste_config=os.path.join(sys.prefix, 'etc/nova/api-paste.ini'),
                   group='wsgi')
        super().setUp()
        conf.register(base.CONF)
        for name, value in (('store_path', 'store'), ('state_path', 'state'),
                            ('lock_path', 'locks')):
            self.flags(**{name: f'{self.folder}/{value}'}, group='hotsnap')
        self.world = World(f'{self.folder}/world.json')
        self.engines = []
        self.useFixture(fixtures.MonkeyPatch('hotsnap_nova.virt.host.Engine', self._open_engine))
        database = db_api.Database(f'sqlite:///{self.folder}/hotsnap.db')
        self.addCleanup(database.close)
        database.upgrade()
        self.compute_api = rpcapi.ComputeApi(nova_rpc.TRANSPORT)
        self.snapshots = snapshots.Snapshots(database, self.compute_api, 'conductor-1')
        self.addCleanup(self.snapshots.close)

    _clear_attrs = keep_put_attributes(base.ServersTestBase)

    def _setup_compute_service(self):
        self.flags(compute_driver='hotsnap.HotSnapLibvirtDriver')

    def _open_engine(self, _uri, _keep_hours):
        engine = Engine(self.world)
        engine.save_s = 0.0
        self.engines.append(engine)
        return engine

    @property
    def engine(self):
        return self.engines[-1]

    def driver(self, host='compute1'):
        return self.computes[host].driver

    def manager(self, host='compute1'):
        return self.driver(host)._participation._manager

    def boot(self, name, host='compute1'):
        """Id of a server that runs, also for our engine."""
        server = self._create_server(name=name, host=host, networks='none')
        self.world.add(name, uuid_=server['id'])
        return server['id']

    def request(self, *servers, **more):
        members = tuple((server, self.instance(server).host) for server in servers)
        return requests.CreateRequest(**{
            'name': 'nightly', 'members': members, 'max_hold_ms': 5000, 'gate': 'hold', **more})

    def snapshot(self, *servers, **more):
        """The row of a snapshot that has ended."""
        snapshot = self.snapshots.create(self.request(*servers, **more))
        assert self.snapshots.wait(snapshot, timeout_s=60)
        return self.snapshots.get(snapshot)

    def instance(self, server):
        return objects.Instance.get_by_uuid(
            nova_context.get_admin_context(), server, expected_attrs=['flavor'])

    def state(self, server):
        found = self.instance(server)
        return found.vm_state, found.task_state

    def action(self, server):
        """The instance action that CALLER's request made, and its only event."""
        context = nova_context.get_admin_context()
        action = objects.InstanceAction.get_by_request_id(context, server, CALLER['request_id'])
        (event,) = objects.InstanceActionEventList.get_by_action(context, action.id)
        return action, event

    def during(self, step, look):
        """What ``look()`` gives while the engine is at ``step``."""
        seen = []
        self.engine.faults[step] = lambda _about: seen.append(look())
        return seen
