# SPDX-License-Identifier: Apache-2.0
"""What Nova's own databases say of hosts, and when one of them is away."""

import sqlite3
import uuid

import oslo_messaging as messaging
from nova import context as nova_context
from nova import objects, rpc
from oslo_config import cfg
from oslo_db import exception as db_exception

from hotsnap_nova import exception
from hotsnap_nova.api import faults
from hotsnap_nova.conductor import cells, membership
from tests.nova import cloud


class HostsTest(cloud.CloudTestCase):

    def setUp(self):
        super().setUp()
        self.cells = cells.Cells()

    def state(self, host):
        return self.cells.states([host])[host]

    def mapping(self, host='h2'):
        return objects.HostMapping.get_by_host(self.context, host)

    def forget(self, *kinds, host='h2'):
        """Remove what Nova has of a host."""
        with nova_context.target_cell(self.context, self.cell) as targeted:
            if 'mapping' in kinds:
                self.mapping(host).destroy()
            if 'node' in kinds:
                for node in objects.ComputeNodeList.get_all_by_host(targeted, host):
                    node.destroy()
            if 'service' in kinds:    # and the node with it
                objects.Service.get_by_compute_host(targeted, host).destroy()

    def test_a_host_is_gone_once_nova_has_no_trace_of_it_left(self):
        assert self.state('h2') == membership.UP

        self.forget('mapping')    # as before `discover_hosts` finds it again
        assert self.state('h2') == membership.DOWN
        self.forget('node')
        assert self.state('h2') == membership.DOWN
        self.forget('service')

        assert self.state('h2') == membership.GONE
        assert self.state('h1') == membership.UP

    def test_a_host_whose_node_alone_is_left_is_not_gone(self):
        self.forget('mapping', 'service')
        self.add_node('h2')

        assert self.state('h2') == membership.DOWN

    def test_a_host_is_not_gone_where_a_cell_cannot_say_so(self):
        self.forget('mapping', 'service')

        def away(*_args, **_kwargs):
            raise db_exception.DBConnectionError(sqlite3.OperationalError('away'))
        self.stub_out('nova.objects.Service.get_by_compute_host', away)

        assert self.state('h2') == membership.DOWN

    def test_messages_to_a_host_that_was_mapped_to_another_cell_go_there(self):
        before = self.cells.transport_of('h2')
        other = objects.CellMapping(
            self.context, uuid=str(uuid.uuid4()), name='other',
            transport_url='fake://other/', database_connection=self.cell.database_connection)
        other.create()
        real = rpc.create_transport    # Nova's tests have one for all
        there = messaging.get_rpc_transport(cfg.CONF, 'fake://other/')
        # Before the host is there: Nova keeps a cell's first transport, and the coordinator
        # beside this test asks for it at a time of its own.
        self.stub_out('nova.rpc.create_transport',
                      lambda url: there if 'other' in url else real(url))
        mapping = self.mapping()
        mapping.cell_mapping = other
        mapping.save()

        assert set(self.cells.hosts()) == {'h1', 'h2'}

        assert self.cells.transport_of('h2') is there
        assert self.cells.transport_of('h1') is before

    def test_a_cell_whose_database_is_away_is_no_bug(self):
        group = self.make_group()
        made = self.make_available(group)

        def away(*_args, **_kwargs):
            raise db_exception.DBConnectionError(
                sqlite3.OperationalError("Can't connect to MySQL server on 'cell1'"))
        self.stub_out('nova.objects.InstanceList.get_by_filters', away)

        for answer in (self.create(group), self.act(made['id'], restore=None)):
            assert answer.status_code == 503, answer.text
            assert answer.headers[faults.CODE_HEADER] == exception.NovaUnavailable.code
            assert "Can't connect" in answer.text
        assert self.world.untouched()
