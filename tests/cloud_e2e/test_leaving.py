# SPDX-License-Identifier: Apache-2.0
"""Back to Nova's own driver: nothing of ours is left in the instances, and Nova starts them."""

import pytest

from tests.cloud import hosts, nova, servers

pytestmark = pytest.mark.timeout(600)


def _use(place, driver):
    for host in place.settings.hosts:
        config = place.settings.host_folder(host) / 'nova.conf'
        words = [f'compute_driver = {driver}' if line.startswith('compute_driver') else line
                 for line in config.read_text().splitlines()]
        config.write_text('\n'.join(words) + '\n')
        hosts.processes(place, host).stop(f'nova-compute-{host}')
        nova.start_compute(place, host)
        hosts.processes(place, host).wait(
            f'nova-compute-{host}', 'not up', lambda host=host: _is_up(place, host))


def _is_up(place, host):
    with place.connect() as connection:
        return any(service.host == host and service.state == 'up'
                   for service in connection.compute.services(binary='nova-compute'))


@pytest.fixture
def stock(place):
    _use(place, 'libvirt.LibvirtDriver')
    yield
    _use(place, 'hotsnap.HotSnapLibvirtDriver')


def test_nova_hard_reboots_members_with_its_own_driver(place, group, stock):
    with place.connect('demo') as connection:
        for server in group:
            connection.compute.reboot_server(server.id, 'HARD')
        for server in group:
            servers.wait_until(connection, connection.compute.get_server(server.id), 'ACTIVE')
    group.forget_boots()
    group.wait_ready()

    for server in group:
        assert 'hotsnap' not in server.domain.XMLDesc()
        left = {path.name for path in server.folder.iterdir()}
        assert left <= {'disk', 'disk.config', 'disk.info', 'console.log', 'kernel', 'ramdisk'}
