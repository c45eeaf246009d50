# SPDX-License-Identifier: Apache-2.0
"""Nova's API and databases, our coordinator for real, and hosts whose guests are a file's rows."""

import datetime
import time
import uuid

from nova import context as nova_context
from nova import objects
from nova import rpc as nova_rpc
from nova.conf import CONF

from hotsnap_nova import conf
from hotsnap_nova.conductor import cells, service
from hotsnap_nova.db import api
from tests.fakes import cluster
from tests.fakes.engine import World
from tests.nova import base
from tests.nova.base import SNAPSHOTS

HOSTS = ('h1', 'h2')


def long_ago():
    """When a service was seen that is down now."""
    return datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)


class CloudTestCase(base.ApiTestCase):
    """As `base.ApiTestCase`, with nothing of ours faked but QEMU.

    :ivar world: all guests; ``hosts`` their participants, ``service`` the coordinator
    """

    def setUp(self):
        conf.register(CONF)
        super().setUp()

    def start_conductor(self):
        self.flags(group='hotsnap', max_hold_ms=20_000, max_pause_ms=5000, service_interval_s=1,
                   host_interval_s=5, database_connection=f'sqlite:///{self.folder}/hotsnap.db',
                   lease_s=5)
        self.context = nova_context.get_admin_context()
        self.world = World(f'{self.folder}/world.json')
        self.cell = objects.CellMappingList.get_all(self.context)[-1]
        self.hosts = {}
        for name in HOSTS:
            self.start_host(name)
        database = api.Database(CONF.hotsnap.database_connection)
        database.upgrade()
        database.close()
        self.service = service.Service(CONF.hotsnap, 'conductor-1', nova_rpc.TRANSPORT,
                                       cells.Cells())
        self.service.start()
        self.addCleanup(self.service.stop)

    def start_host(self, name):
        host = self.hosts[name] = cluster.Host(
            name, self.folder, nova_rpc.TRANSPORT, self.world)
        host.start()
        self.addCleanup(host.stop)
        objects.HostMapping(self.context, host=name, cell_mapping=self.cell).create()
        with nova_context.target_cell(self.context, self.cell) as targeted:
            objects.Service(targeted, host=name, binary='nova-compute', topic='compute',
                            report_count=1).create()
        self.add_node(name)

    def add_node(self, host):
        with nova_context.target_cell(self.context, self.cell) as targeted:
            objects.ComputeNode(
                targeted, host=host, hypervisor_hostname=host, vcpus=1, memory_mb=1, local_gb=1,
                vcpus_used=0, memory_mb_used=0, local_gb_used=0, hypervisor_type='QEMU',
                hypervisor_version=1, cpu_info='', uuid=str(uuid.uuid4()),
                service_id=None).create()

    def set_service(self, host, **values):
        """Change Nova's row of a host's nova-compute."""
        with nova_context.target_cell(self.context, self.cell) as targeted:
            found = objects.Service.get_by_host_and_binary(targeted, host, 'nova-compute')
            for key, value in values.items():
                setattr(found, key, value)
            found.save()

    def boot(self, name, host, group=None, project=base.PROJECT):
        """A running server, in a group where one is given."""
        spec = self.world.add(name)
        with nova_context.target_cell(self.context, self.cell) as targeted:
            objects.Instance(
                targeted, uuid=spec.id, display_name=name, host=host,
                vm_state='active', task_state=None, power_state=1, project_id=project,
                user_id='fake', flavor=objects.Flavor(
                    id=1, name='f', memory_mb=1, vcpus=1, root_gb=0, ephemeral_gb=0,
                    flavorid='1', swap=0, rxtx_factor=1.0, vcpu_weight=1, disabled=False,
                    is_public=True, extra_specs={}),
                system_metadata={}).create()
        objects.InstanceMapping(
            self.context, instance_uuid=spec.id, cell_mapping=self.cell, project_id=project,
            user_id='fake', queued_for_delete=False).create()
        if group:
            objects.InstanceGroup.add_members(self.context, group, [spec.id])
        return spec.id

    def change(self, server, **values):
        """Change Nova's row of a server; ``deleted``: it is deleted."""
        with nova_context.target_cell(self.context, self.cell) as targeted:
            instance = objects.Instance.get_by_uuid(targeted, server)
            if values.pop('deleted', False):
                instance.destroy()
                return
            for key, value in values.items():
                setattr(instance, key, value)
            instance.save()

    def make_group(self, name='web', client=None, members=(('web-1', 'h1'), ('web-2', 'h2'))):
        client = client or self.api
        group = client.post('/os-server-groups', {'server_group': {
            'name': name, 'policies': ['anti-affinity']}}).json()['server_group']['id']
        for member, host in members:
            self.boot(member, host, group, client.project)
        return group

    def create(self, group, client=None, **wanted):
        return (client or self.api).post(SNAPSHOTS, {'server_group_snapshot': {
            'server_group_id': group, **wanted}})

    def show(self, snapshot, client=None):
        """What the API shows; None: it is gone."""
        answer = (client or self.admin).get(f'{SNAPSHOTS}/{snapshot}')
        if answer.status_code == 404:
            return None
        assert answer.status_code == 200, answer.text
        return answer.json()['server_group_snapshot']

    def until(self, snapshot, true, timeout_s=60):
        """What is shown once ``true`` of it."""
        ends = time.monotonic() + timeout_s
        while True:
            shown = self.show(snapshot)
            if true(shown):
                return shown
            assert time.monotonic() < ends, shown
            time.sleep(0.1)

    def make_available(self, group=None, **wanted):
        """What is shown of a snapshot that has been made."""
        answer = self.create(group or self.make_group(), **wanted)
        assert answer.status_code == 202, answer.text
        made = self.until(answer.json()['server_group_snapshot']['id'],
                          lambda shown: shown['status'] != 'creating')
        assert made['status'] == 'available', made
        return made

    def act(self, snapshot, client=None, **action):
        return (client or self.api).post(f'{SNAPSHOTS}/{snapshot}/action', action)

    def acted(self, snapshot):
        """What is shown once the last action is over."""
        return self.until(snapshot, lambda shown: shown['status'] != 'restoring'
                          and shown['last_action']['status'] != 'running')
