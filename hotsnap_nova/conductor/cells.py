# SPDX-License-Identifier: Apache-2.0
"""What the coordinator asks of Nova: groups, servers and hosts over all cells.

The only module of the coordinator that imports Nova.
"""

import contextlib
import threading

from nova import context as nova_context
from nova import exception as nova_exception
from nova import objects, rpc, servicegroup

from hotsnap_nova import exception
from hotsnap_nova.conductor import membership, rpcapi

_COMPUTE = 'nova-compute'


class Cells:
    """Nova's databases and transports, read as an admin: callers were authorised before."""

    def __init__(self):
        objects.register_all()
        self._servicegroup = servicegroup.API()
        self._transports: dict = {}
        self._mutex = threading.Lock()

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

    def states(self, hosts) -> dict[str, str]:
        """UP, DOWN or FENCED of each host's nova-compute."""
        return {host: self._state(host) for host in set(hosts)}

    def hosts(self) -> tuple[str, ...]:
        """All hosts of all cells."""
        context = nova_context.get_admin_context()
        return tuple(sorted(each.host for each in objects.HostMappingList.get_all(context)))

    def transport_of(self, host: str):
        """The transport of a host's cell.

        :raises HostUnreachable: Nova knows no such host
        """
        with self._mutex:
            if host not in self._transports:
                self._transports[host] = self._targeted(host).mq_connection or rpc.TRANSPORT
            return self._transports[host]

    def _state(self, host):
        with contextlib.suppress(exception.HostUnreachable, nova_exception.ComputeHostNotFound):
            service = objects.Service.get_by_compute_host(self._targeted(host), host)
            if service.forced_down:
                return membership.FENCED
            if self._servicegroup.service_is_up(service):
                return membership.UP
        return membership.DOWN

    def _targeted(self, host):
        """A context whose database and messages are those of the host's cell."""
        context = nova_context.get_admin_context()
        try:
            mapping = objects.HostMapping.get_by_host(context, host)
        except nova_exception.HostMappingNotFound as exc:
            raise exception.HostUnreachable(host=host, reason='Nova knows no such host') from exc
        nova_context.set_target_cell(context, mapping.cell_mapping)
        return context


def _server(instance):
    return membership.Server(
        instance.uuid, instance.display_name or instance.uuid, instance.name,
        instance.host or '', instance.vm_state or 'building', instance.task_state,
        instance.project_id)
