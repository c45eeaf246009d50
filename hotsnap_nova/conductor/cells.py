# SPDX-License-Identifier: Apache-2.0
"""What the coordinator asks of Nova: groups, servers and hosts over all cells.

The only module of the coordinator that imports Nova.
"""

import functools
import threading

from nova import context as nova_context
from nova import exception as nova_exception
from nova import objects, rpc, servicegroup
from oslo_db import exception as db_exception

from hotsnap_nova import exception
from hotsnap_nova.conductor import membership, rpcapi

_AWAY = (db_exception.DBError, nova_exception.CellTimeout)


def _asks(method):
    """Have it raise `NovaUnavailable` where a database of Nova's is away."""
    @functools.wraps(method)
    def call(*args, **kwargs):
        try:
            return method(*args, **kwargs)
        except _AWAY as exc:
            lines = str(exc).splitlines() or [type(exc).__name__]
            raise exception.NovaUnavailable(reason=lines[0].rstrip('.')) from exc
    return call


class Cells:
    """Nova's databases and transports, read as an admin: callers were authorised before.

    :raises NovaUnavailable: from each method
    """

    def __init__(self):
        objects.register_all()
        self._servicegroup = servicegroup.API()
        self._transports: dict[str, tuple[str, object]] = {}    # by host: of which cell, and it
        self._mutex = threading.Lock()

    @_asks
    def group(self, group_id: str) -> membership.Group:
        """A group and its servers.

        :raises GroupNotFound:
        """
        context = nova_context.get_admin_context()
        try:
            found = objects.InstanceGroup.get_by_uuid(context, group_id)
        except nova_exception.InstanceGroupNotFound as exc:
            raise rpcapi.GroupNotFound(group=group_id) from exc
        servers = self.servers(found.members)
        return membership.Group(found.uuid, found.name, found.project_id, tuple(
            servers[each] for each in found.members if each in servers))

    @_asks
    def servers(self, ids) -> dict[str, membership.Server]:
        """Those that exist, by id: a group goes on listing deleted ones."""
        context = nova_context.get_admin_context()
        by_cell, cells, found = {}, {}, {}
        for mapping in objects.InstanceMappingList.get_by_instance_uuids(context, list(ids)):
            cell = mapping.cell_mapping
            if cell is None:
                found[mapping.instance_uuid] = membership.Server(
                    mapping.instance_uuid, mapping.instance_uuid, '', '', 'building', None,
                    mapping.project_id)
            else:
                cells[cell.uuid] = cell
                by_cell.setdefault(cell.uuid, []).append(mapping.instance_uuid)
        for cell, here in by_cell.items():
            with nova_context.target_cell(context, cells[cell]) as targeted:
                found |= {each.uuid: _server(each) for each in objects.InstanceList.get_by_filters(
                    targeted, {'uuid': here, 'deleted': False}, expected_attrs=[])}
        return found

    @_asks
    def states(self, hosts) -> dict[str, str]:
        """UP, DOWN, FENCED or GONE of each host's nova-compute."""
        return {host: self._state(host) for host in set(hosts)}

    @_asks
    def hosts(self) -> tuple[str, ...]:
        """All hosts of all cells."""
        context = nova_context.get_admin_context()
        cells = {each.host: each.cell_mapping.uuid
                 for each in objects.HostMappingList.get_all(context)}
        with self._mutex:    # one may have been mapped to another cell meanwhile
            self._transports = {host: known for host, known in self._transports.items()
                                if cells.get(host) == known[0]}
        return tuple(sorted(cells))

    @_asks
    def transport_of(self, host: str):
        """The transport of a host's cell, as of the last look at `hosts`.

        :raises HostUnreachable: Nova knows no such host
        """
        with self._mutex:
            if host not in self._transports:
                cell, context = self._targeted(host)
                self._transports[host] = cell, context.mq_connection or rpc.TRANSPORT
            return self._transports[host][1]

    def _state(self, host):
        try:
            _, context = self._targeted(host)
        except exception.HostUnreachable:
            return membership.DOWN if _has_traces(host) else membership.GONE
        try:
            service = objects.Service.get_by_compute_host(context, host)
        except nova_exception.ComputeHostNotFound:
            return membership.DOWN
        if service.forced_down:
            return membership.FENCED
        return membership.UP if self._servicegroup.service_is_up(service) else membership.DOWN

    def _targeted(self, host):
        """The id of the host's cell, and a context whose database and messages are the cell's."""
        context = nova_context.get_admin_context()
        try:
            mapping = objects.HostMapping.get_by_host(context, host)
        except nova_exception.HostMappingNotFound as exc:
            raise exception.HostUnreachable(host=host, reason='Nova knows no such host') from exc
        nova_context.set_target_cell(context, mapping.cell_mapping)
        return mapping.cell_mapping.uuid, context


def _has_traces(host):
    """Whether any cell knows the host, or may: its mapping may be away for a moment only."""
    found = nova_context.scatter_gather_skip_cell0(
        nova_context.get_admin_context(), _traces, host)
    return any(each is not False for each in found.values())


def _traces(context, host):
    for find in (objects.Service.get_by_compute_host, objects.ComputeNodeList.get_all_by_host):
        try:
            if find(context, host):
                return True
        except nova_exception.ComputeHostNotFound:
            pass
    return False


def _server(instance):
    return membership.Server(
        instance.uuid, instance.display_name or instance.uuid, instance.name,
        instance.host or '', instance.vm_state or 'building', instance.task_state,
        instance.project_id, (instance.locked_by or '') if instance.locked else None)
