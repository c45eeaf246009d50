# SPDX-License-Identifier: Apache-2.0
"""Nova: API, conductor, scheduler, and a compute service a host."""

import datetime
import signal
import sys

from tests.cloud import database, files, hosts, ours
from tests.cloud.processes import CloudError
from tests.cloud.services import Cloud
from tests.lab.guest import wait_for

_PRIVILEGED = ('nova_sys_admin', 'vif_plug_ovs_privileged', 'vif_plug_linux_bridge_privileged',
               'privsep_osbrick')
_UP_S = 300
CONTROL_SERVICES = ('nova-conductor', 'nova-scheduler')


def prepare(cloud: Cloud) -> None:
    """Configuration, databases and one cell."""
    settings = cloud.settings
    etc = settings.etc('nova')
    sections = {
        'DEFAULT': {
            'my_ip': '127.0.0.1', 'transport_url': settings.broker_url, 'use_stderr': True,
            'state_path': settings.folder / 'nova', 'report_interval': 10,
            # The little guests do not hear the power button.
            'shutdown_timeout': 2,
            # To another host it would want ssh.
            'allow_resize_to_same_host': True},
        'api_database': {'connection': settings.database_url('nova_api')},
        'database': {'connection': settings.database_url('nova')},
        'api': {'auth_strategy': 'keystone'},
        'wsgi': {'api_paste_config': etc / 'api-paste.ini'},
        'keystone_authtoken': cloud.token_check('nova'),
        'service_user': {'send_service_user_token': True} | cloud.credentials('nova'),
        'placement': cloud.credentials('placement'),
        'neutron': cloud.credentials('neutron'),
        'glance': cloud.credentials('glance'),
        'oslo_concurrency': {'lock_path': settings.folder / 'lock'},
        'conductor': {'workers': 1},
        'scheduler': {'workers': 1},
        'vnc': {'enabled': False},
        'notifications': {'notification_format': 'both'},
    }
    files.write_ini(_config(cloud), **sections)
    configure_api(cloud, settings.stock)
    for name, words in (
            ('api-db-sync', ('api_db', 'sync')),
            ('map-cell0', ('cell_v2', 'map_cell0', '--database_connection',
                           settings.database_url('nova_cell0'))),
            ('db-sync', ('db', 'sync')),
            ('create-cell', ('cell_v2', 'create_cell', '--name', 'cell1'))):
        manage(cloud, name, *words)


def start(cloud: Cloud) -> None:
    """API, conductor and scheduler."""
    for name in CONTROL_SERVICES:
        cloud.processes.start(name, files.program(name), '--config-file', _config(cloud))
    start_api(cloud)


def configure_api(cloud: Cloud, stock: bool) -> None:
    """What the API's pipelines are made of: as Nova comes, or with our filter in them."""
    paste = files.packaged('nova/api-paste.ini').read_text()
    (cloud.settings.etc('nova') / 'api-paste.ini').write_text(
        paste if stock else ours.with_filter(paste))


def start_api(cloud: Cloud, home: str = sys.prefix) -> None:
    cloud.start_api('nova', 'nova.wsgi.osapi_compute:application', home,
                    OS_NOVA_CONFIG_DIR=str(cloud.settings.etc('nova')))


def prepare_host(cloud: Cloud, host: str) -> None:
    """One compute host's configuration and folders."""
    for name in ('nova/instances', 'lock'):
        (cloud.settings.host_folder(host) / name).mkdir(parents=True)
    configure_host(cloud, host, cloud.settings.stock)


def configure_host(cloud: Cloud, host: str, stock: bool, home: str = sys.prefix) -> None:
    """One compute host's configuration.

    :param home: where its nova-compute and what that starts are installed
    """
    folder = cloud.settings.host_folder(host)
    config = folder / 'nova.conf'
    helper = f'{files.program("privsep-helper", home)} --config-file {_config(cloud)} ' \
             f'--config-file {config}'
    sections = {
        'DEFAULT': {
            'host': host, 'state_path': folder / 'nova',
            'instances_path': folder / 'nova/instances',
            'compute_driver': 'libvirt.LibvirtDriver', 'force_config_drive': True,
            'reserved_host_memory_mb': 0, 'graceful_shutdown_timeout': 10,
            'initial_cpu_allocation_ratio': 16.0},
        'oslo_concurrency': {'lock_path': folder / 'lock'},
        'libvirt': {'virt_type': 'qemu', 'cpu_mode': 'host-model', 'images_type': 'default',
                    'hw_machine_type': 'x86_64=q35', 'num_pcie_ports': 16,
                    **({'connection_uri': hosts.tcp_uri(cloud)} if hosts.is_remote(cloud, host)
                       else {})},
        'serial_console': {'enabled': True, 'port_range': cloud.settings.console_ports(host)},
        **{name: {'helper_command': helper} for name in _PRIVILEGED},
    }
    if not stock:
        for section, options in ours.host_sections(cloud, host).items():
            sections.setdefault(section, {}).update(options)
    files.write_ini(config, **sections)


def start_compute(cloud: Cloud, host: str, home: str = sys.prefix) -> None:
    """The host's compute service; it need not be ready when this returns."""
    hosts.processes(cloud, host).start(compute(host), *compute_command(cloud, host, home))


def compute_command(cloud: Cloud, host: str, home: str = sys.prefix) -> list:
    """What starts the host's compute service."""
    return [files.program('nova-compute', home), '--config-file', _config(cloud),
            '--config-file', cloud.settings.host_folder(host) / 'nova.conf']


def compute(host: str) -> str:
    """What the host's supervisor calls its compute service."""
    return f'nova-compute-{host}'


def restart_compute(cloud: Cloud, host: str, number: int = signal.SIGTERM,
                    home: str = sys.prefix) -> None:
    """End the host's compute service by a signal, start it, return when it has said it lives.

    :raises CloudError: it ends, or says nothing
    """
    processes = hosts.processes(cloud, host)
    processes.stop(compute(host), number)
    since = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    start_compute(cloud, host, home)

    def reported() -> bool:
        rows = database.query(cloud, 'nova', 'SELECT last_seen_up FROM services WHERE deleted = 0 '
                              f"AND `binary` = 'nova-compute' AND host = '{host}'")
        return bool(rows and rows[0][0] and rows[0][0] > since)
    processes.wait(compute(host), 'no sign of life', reported)


def wait_for_computes(cloud: Cloud) -> None:
    """Return when every host can be scheduled to.

    :raises CloudError: a service has ended
    """
    for host in cloud.settings.hosts:
        hosts.processes(cloud, host).wait(
            compute(host), 'not registered', lambda host=host: host in _registered(cloud))
    manage(cloud, 'discover-hosts', 'cell_v2', 'discover_hosts')
    with cloud.connect() as connection:
        unlike = [f'{service.binary} on {service.host} is {service.state}'
                  for service in connection.compute.services() if service.state != 'up']
    if unlike:
        raise CloudError(f'{"; ".join(unlike)}; see {cloud.settings.logs}')


def wait_until_up(cloud: Cloud) -> None:
    """Return when Nova holds all of its services to be up; not who was silent for a while."""
    with cloud.connect() as admin:
        wait_for(lambda: {service.state for service in admin.compute.services()} == {'up'},
                 _UP_S, 'all of Nova to be up')


def manage(cloud: Cloud, name: str, *words) -> None:
    """nova-manage, its output in the log of this name."""
    cloud.processes.run(f'nova-{name}', files.program('nova-manage'),
                        '--config-file', _config(cloud), *words)


def _config(cloud: Cloud):
    return cloud.settings.etc('nova') / 'nova.conf'


def _registered(cloud: Cloud) -> set[str]:
    return {host for (host,) in database.query(
        cloud, 'nova', 'SELECT host FROM compute_nodes WHERE deleted = 0')}
