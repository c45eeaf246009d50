# SPDX-License-Identifier: Apache-2.0
"""Of any two definitions that Nova makes for one server, settings decide nothing a guest sees."""

import copy
import xml.etree.ElementTree as ET

import fixtures
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from nova import context as nova_context
from nova import objects
from nova.tests import fixtures as nova_fixtures

from hotsnap_nova.virt.definition import differences, merging
from tests.nova.computes import ComputeTestCase

#: What libvirt makes of a machine type without a version.
VERSIONED = {'pc': 'pc-i440fx-2.11', 'q35': 'pc-q35-2.11'}
#: What a guest sees of itself.
HARDWARE = ('os/type', 'os/smbios', 'os/boot', 'memory', 'vcpu', 'sysinfo', 'features', 'cpu',
            'clock', 'devices/*/address', 'devices/controller', 'devices/disk/target',
            'devices/interface/model', 'devices/serial/target', 'devices/channel/target',
            'devices/video', 'devices/input', 'devices/memballoon[@model]', 'devices/rng[@model]',
            'devices/watchdog[@model]', 'devices/sound')
#: Who it is, and what a host gives it.
TODAYS = ('name', 'uuid', 'metadata', 'cputune', 'devices/graphics', 'devices/disk/source',
          'devices/interface/source', 'devices/interface/target')
ALL = HARDWARE + TODAYS
AS_IT_WAS = {'release': '34.0.0', 'board': 'q35', 'version': '', 'ports': 0, 'serial': False,
             'console': 'vnc', 'cpu': 'host-model', 'video': 'virtio', 'pointer': None,
             'agent': False, 'balloon': 10, 'rng': True, 'watchdog': None, 'caches': [],
             'config_drive': 'iso9660', 'shares': None, 'vcpus': 1, 'memory_mb': 512, 'nics': 1}
SETTINGS = st.fixed_dictionaries({
    'release': st.sampled_from(['34.0.0', '34.0.1-1.el9', '35.0.0']),
    'board': st.sampled_from(['q35', 'q35', 'q35', 'pc']),
    'version': st.sampled_from(['', '-2.10', '-2.11']),
    'ports': st.sampled_from([0, 1, 16]),
    'serial': st.booleans(),
    'console': st.sampled_from(['vnc', 'spice', None]),
    'cpu': st.sampled_from(['none', 'host-model', 'host-passthrough', 'custom']),
    'video': st.sampled_from(['virtio', 'vga', 'cirrus', 'qxl', 'none']),
    'pointer': st.sampled_from([None, 'usbtablet']),
    'agent': st.booleans(),
    'balloon': st.sampled_from([0, 10]),
    'rng': st.booleans(),
    'watchdog': st.sampled_from([None, 'reset', 'poweroff']),
    'caches': st.sampled_from([[], ['file=writeback']]),
    'config_drive': st.sampled_from(['iso9660', 'vfat']),
    'shares': st.sampled_from([None, 2048]),
    'vcpus': st.sampled_from([1, 1, 1, 2]),
    'memory_mb': st.sampled_from([512, 512, 512, 1024]),
    'nics': st.sampled_from([1, 1, 1, 2]),
})


class TestPairs(ComputeTestCase):
    def setUp(self):
        super().setUp()
        self.start_compute('compute1')
        network = nova_fixtures.NeutronFixture.network_1['id']
        self.server = self._create_server(
            host='compute1', networks=[{'uuid': network}, {'uuid': network}])['id']

    @settings(max_examples=40, deadline=None, database=None, derandomize=True,
              suppress_health_check=list(HealthCheck))
    @given(before=SETTINGS, now=SETTINGS)
    @example(before=AS_IT_WAS, now=AS_IT_WAS)
    @example(before={**AS_IT_WAS, 'console': 'spice', 'video': 'qxl'}, now=AS_IT_WAS)
    def test_what_settings_change_is_the_cuts_and_what_people_change_is_refused(
            self, before, now):
        cut, today = worded(self.definition(before), before), self.definition(now)

        told = {device for device, _cause, _remedy in differences.differences(cut, today)}

        assert told == self.changed_on_purpose(before, now)
        merged = merging.merged(cut, today)
        assert parts(merging.merged(cut, merged), ALL) == parts(merged, ALL)
        if not told:
            assert parts(merged, HARDWARE) == parts(cut, HARDWARE)
            assert parts(merged, TODAYS) == parts(today, TODAYS)

    def definition(self, wanted):
        """As Nova makes it for a hard reboot, under these settings."""
        self.useFixture(fixtures.MonkeyPatch(
            'nova.version.version_string_with_package', lambda: wanted['release']))
        self.flags(num_pcie_ports=wanted['ports'], cpu_mode=wanted['cpu'],
                   cpu_models=['Haswell'] if wanted['cpu'] == 'custom' else [],
                   mem_stats_period_seconds=wanted['balloon'],
                   disk_cachemodes=wanted['caches'], group='libvirt')
        self.flags(enabled=wanted['serial'], group='serial_console')
        for console in ('vnc', 'spice'):
            self.flags(enabled=wanted['console'] == console, group=console)
        self.flags(config_drive_format=wanted['config_drive'])
        instance = self.instance_with(wanted)
        network_info = instance.info_cache.network_info
        instance.info_cache.network_info = type(network_info)(network_info[:wanted['nics']])
        self.useFixture(fixtures.MonkeyPatch(
            'hotsnap_nova.nova.definitions._instance',
            lambda _id: (nova_context.get_admin_context(), instance)))
        return self.engine.definitions.xml(self.server)

    def instance_with(self, wanted):
        instance = objects.Instance.get_by_uuid(
            nova_context.get_admin_context(), self.server, expected_attrs=[
                'system_metadata', 'metadata', 'flavor', 'info_cache', 'numa_topology',
                'pci_devices', 'pci_requests', 'device_metadata', 'resources', 'trusted_certs',
                'vcpu_model', 'migration_context'])
        properties = {
            'machine_type': machine(wanted), 'video_model': wanted['video'],
            'pointer_model': wanted['pointer'], 'watchdog_action': wanted['watchdog'],
            'qemu_guest_agent': 'yes' if wanted['agent'] else None,
            'rng_model': 'virtio' if wanted['rng'] else None}
        for name, value in properties.items():
            instance.system_metadata.pop(f'image_hw_{name}', None)
            if value:
                instance.system_metadata[f'image_hw_{name}'] = value
        instance.flavor.vcpus = wanted['vcpus']
        instance.flavor.memory_mb = wanted['memory_mb']
        instance.flavor.extra_specs = {
            'hw_rng:allowed': str(wanted['rng']), 'hw_video:ram_max_mb': '64',
            **({'quota:cpu_shares': str(wanted['shares'])} if wanted['shares'] else {})}
        instance.config_drive = 'True'
        return instance

    def changed_on_purpose(self, before, now):
        """What people call what of these a flavor, a port or an image changes."""
        macs = [port['address'] for port in self.instance_ports()]
        first, last = sorted((before['nics'], now['nics']))
        return {name for name, key in (('vcpus', 'vcpus'), ('memory', 'memory_mb'),
                                       ('machine', 'board')) if before[key] != now[key]
                } | set(macs[first:last])

    def instance_ports(self):
        return objects.Instance.get_by_uuid(
            nova_context.get_admin_context(), self.server,
            expected_attrs=['info_cache']).info_cache.network_info


def machine(wanted):
    return (VERSIONED[wanted['board']].rpartition('-')[0] + wanted['version']
            if wanted['version'] else wanted['board'])


def worded(xml, wanted):
    """As libvirt tells of it when it runs: numbers, places, versions, the CPU it got."""
    root = ET.fromstring(xml)
    kind = root.find('os/type')
    kind.set('machine', VERSIONED.get(kind.get('machine'), kind.get('machine')))
    root.find('memory').set('unit', 'KiB')
    if wanted['cpu'] == 'host-model':
        root.remove(root.find('cpu'))
        root.append(ET.fromstring("<cpu mode='custom' match='exact'><model>EPYC</model>"
                                  "<feature policy='disable' name='x2apic'/></cpu>"))
    numbers = {}
    for place, device in enumerate(root.findall('devices/*')):
        if device.tag == 'controller':
            number = numbers[device.get('type')] = numbers.get(device.get('type'), -1) + 1
            device.set('index', str(number))
        if device.tag in ('controller', 'disk', 'interface', 'video', 'memballoon', 'rng'):
            device.append(ET.Element('address', {'type': 'pci', 'slot': hex(place)}))
    return ET.tostring(root, encoding='unicode')


def parts(xml, paths):
    """What a definition has at these paths, in one form."""
    root = copy.deepcopy(ET.fromstring(xml))
    for memory in root.findall('memory'):
        memory.attrib.pop('unit', None)
    return {path: [ET.canonicalize(ET.tostring(each, encoding='unicode'), strip_text=True,
                                   exclude_tags=['stats', 'backend'],
                                   exclude_attrs=['placement', 'cpuset', 'action'])
                   for each in root.findall(path)] for path in paths}
