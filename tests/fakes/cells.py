# SPDX-License-Identifier: Apache-2.0
"""Nova as the coordinator sees it, without Nova: groups of the guests of a `cluster.Cluster`."""

import dataclasses

from hotsnap_nova.conductor import membership, rpcapi


class Cells:
    """Stands in for `conductor.cells.Cells`.

    :ivar groups: id → names of guests; the tests' to change
    :ivar down: host → state, where it is not up
    """

    def __init__(self, cluster):
        self._cluster = cluster
        self.groups = {'g': [name for name, _ in cluster.members]}
        self.changes = {}
        self.down = {}

    def group(self, group_id):
        if group_id not in self.groups:
            raise rpcapi.GroupNotFound(group=group_id)
        found = [self._server(name) for name in self.groups[group_id]]
        return membership.Group(group_id, f'group {group_id}', 'p', tuple(
            each for each in found if each))

    def servers(self, ids):
        wanted = set(ids)
        found = [self._server(name) for name, _ in self._cluster.members]
        return {each.id: each for each in found if each and each.id in wanted}

    def states(self, hosts):
        known = self._cluster.hosts
        return {host: self.down.get(host, membership.UP if host in known else membership.GONE)
                for host in hosts}

    def hosts(self):
        return tuple(self._cluster.hosts)

    def transport_of(self, _host):
        return self._cluster.transport

    def _server(self, name):
        changes = self.changes.get(name, {})
        if changes is None:    # deleted
            return None
        host = dict(self._cluster.members)[name]
        return dataclasses.replace(membership.Server(
            self._cluster.world.spec(name).id, name, f'domain-{name}', host, 'active', None, 'p'),
            **changes)
