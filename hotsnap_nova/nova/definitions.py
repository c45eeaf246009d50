# SPDX-License-Identifier: Apache-2.0
"""Nova defines what a restored instance starts with, as for a hard reboot."""

import json
import xml.etree.ElementTree as ET

from nova import conf as nova_conf
from nova import context as nova_context
from nova import exception as nova_exception
from nova import objects
from nova.network import neutron
from nova.virt import driver as virt_driver
from nova.virt.libvirt import blockinfo

from hotsnap_nova import exception
from hotsnap_nova.nova import instances
from hotsnap_nova.virt import definitions

CONF = nova_conf.CONF

_ATTRIBUTES = ['system_metadata', 'metadata', 'flavor', 'info_cache', 'numa_topology',
               'pci_devices', 'pci_requests', 'device_metadata', 'resources', 'trusted_certs',
               'vcpu_model', 'migration_context']
#: Of a port; disks have a serial number without attributes.
_SERIAL = '<serial '


class Definitions(definitions.Definitions):
    """Asks the driver.

    :param driver: Nova's `LibvirtDriver` of this host
    """

    def __init__(self, driver):
        self._driver = driver

    def xml(self, member_id):
        context, instance = _instance(member_id)
        with instances.asking(instance.display_name):
            mappings = objects.BlockDeviceMappingList.get_by_instance_uuid(context, instance.uuid)
        try:
            devices = virt_driver.get_block_device_info(instance, mappings)
            disks = blockinfo.get_disk_info(CONF.libvirt.virt_type, instance,
                                            instance.image_meta, devices)
            xml = self._driver._get_guest_xml(
                context, instance, instance.get_network_info(), disks, instance.image_meta,
                block_device_info=devices,
                old_guest=self._driver._get_existing_guest_config(instance))
            return xml if _SERIAL in xml else self._with_serial_consoles(xml, instance)
        except Exception as exc:    # of Nova, os-vif, privsep, a program that they run
            raise exception.Refused(
                member=instances.spec(instance), device='guest',
                cause=f'Nova cannot define it here: {_said(exc)}',
                remedy='see what changed since the snapshot') from exc

    def volumes(self, member_id):
        with instances.asking(member_id):
            mappings = objects.BlockDeviceMappingList.get_by_instance_uuid(
                nova_context.get_admin_context(), member_id)
        return tuple(map(_volume, (each for each in mappings if each.is_volume)))

    def addresses(self, member_id):
        _context, instance = _instance(member_id)
        return {vif['address'].lower(): tuple(ip['address'] for ip in vif.fixed_ips())
                for vif in instance.get_network_info() if vif['address']}

    def dscp_policies(self, member_id):
        context, instance = _instance(member_id)
        ports = {vif['id']: vif['address'].lower() for vif in instance.get_network_info()
                 if vif['address']}
        try:
            client = neutron.get_client(context, admin=True)
            return tuple((mac, policy) for port, mac in ports.items()
                         for policy in _dscp_policies(client, port))
        except Exception as exc:    # of Nova, neutronclient, keystoneauth
            raise exception.HostUnreachable(host='Neutron', reason=_said(exc)) from exc

    def _with_serial_consoles(self, xml, instance):
        """Nova takes a guest that has some for one that migrates here, and defines none.

        They are its own, at the addresses that Nova holds for it.
        """
        try:
            guest = self._driver._host.get_guest(instance)
        except nova_exception.InstanceNotFound:
            return xml
        there = ET.fromstring(  # noqa: S314 - libvirt's own words
            guest.get_xml_desc(dump_inactive=True)).findall("./devices/serial[@type='tcp']")
        before, end, after = xml.rpartition('</devices>')
        consoles = ''.join(ET.tostring(each, encoding='unicode') for each in there)
        return f'{before}{consoles}{end}{after}'

    def stopped(self, member_id):
        _context, instance = _instance(member_id)
        self._driver._unplug_vifs(instance, instance.get_network_info(), ignore_errors=True)

    def starting(self, member_id):
        _context, instance = _instance(member_id)
        try:
            self._driver.plug_vifs(instance, instance.get_network_info())
        except Exception as exc:    # of Nova, os-vif, privsep, a program that they run
            raise exception.HypervisorError(
                member=instances.spec(instance),
                reason=f'its ports cannot be plugged: {_said(exc)}') from exc


def _said(exc):
    """In one line."""
    said = exc.format_message() if isinstance(exc, nova_exception.NovaException) else str(exc)
    return ' '.join(said.split()) or type(exc).__name__


def _dscp_policies(client, port):
    """Names of those that mark; a port's own policy, or its network's."""
    found = client.show_port(port)['port']
    # As Neutron has it: that of the network counts for ports without one.
    if policy_id := found.get('qos_policy_id') or found.get('qos_network_policy_id'):
        policy = client.show_qos_policy(policy_id)['policy']
        if any(rule['type'] == 'dscp_marking' for rule in policy['rules']):
            yield policy['name']


def _volume(mapping):
    """One that is being attached has no device and no connection yet."""
    connection = json.loads(mapping.connection_info or '{}')
    return definitions.Volume(
        id=mapping.volume_id or '', kind=connection.get('driver_volume_type', 'attached'),
        serial=connection.get('serial') or mapping.volume_id or '',
        target=(mapping.device_name or '').rpartition('/')[2])


def _instance(member_id):
    context = nova_context.get_admin_context()
    try:
        with instances.asking(member_id):
            return context, objects.Instance.get_by_uuid(context, member_id,
                                                         expected_attrs=_ATTRIBUTES)
    except nova_exception.InstanceNotFound as exc:
        raise exception.MemberNotFound(member=member_id) from exc
