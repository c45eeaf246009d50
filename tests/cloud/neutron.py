# SPDX-License-Identifier: Apache-2.0
"""Neutron: one flat network over macvtap, with a mechanism driver of ours and no agents.

Nova 34 refuses ports of Linux bridges, and Open vSwitch may have no kernel
module. Security groups are not enforced.
"""

import pathlib
import shutil

from tests.cloud import files
from tests.cloud.services import Cloud

_DRIVER = pathlib.Path(__file__).with_name('macvtap_ports.py')
_ENTRY_POINT = ('[neutron.ml2.mechanism_drivers]\n'
                'macvtap_ports = macvtap_ports:MacvtapPorts\n')
PHYSICAL_NETWORK = 'wire'


def prepare(cloud: Cloud) -> None:
    """Configuration, database, and the driver as an installed package."""
    settings = cloud.settings
    etc = settings.etc('neutron')
    (settings.folder / 'neutron').mkdir()
    config = files.write_ini(
        etc / 'neutron.conf',
        DEFAULT={'core_plugin': 'ml2', 'service_plugins': '', 'auth_strategy': 'keystone',
                 'transport_url': settings.broker_url,
                 'notify_nova_on_port_status_changes': True,
                 'notify_nova_on_port_data_changes': True,
                 'api_paste_config': etc / 'api-paste.ini',
                 'state_path': settings.folder / 'neutron',
                 'rpc_workers': 1, 'rpc_state_report_workers': 0, 'api_workers': 1},
        database={'connection': settings.database_url('neutron')},
        keystone_authtoken=cloud.token_check('neutron'),
        nova=cloud.credentials('nova'),
        placement=cloud.credentials('placement'),
        oslo_concurrency={'lock_path': settings.folder / 'lock'},
        ml2={'type_drivers': 'flat', 'project_network_types': '',
             'mechanism_drivers': 'macvtap_ports', 'extension_drivers': 'port_security'},
        ml2_type_flat={'flat_networks': PHYSICAL_NETWORK},
        securitygroup={'enable_security_group': True, 'firewall_driver': 'noop'})
    shutil.copy(files.packaged('neutron/api-paste.ini'), etc)
    _install_driver(_driver_folder(cloud))
    cloud.processes.run('neutron-db-sync', files.program('neutron-db-manage'),
                        '--config-file', config, 'upgrade', 'heads', **_environment(cloud))


def start(cloud: Cloud) -> None:
    config = cloud.settings.etc('neutron') / 'neutron.conf'
    for name in ('neutron-rpc-server', 'neutron-periodic-workers'):
        cloud.processes.start(name, files.program(name), '--config-file', config,
                              **_environment(cloud))
    cloud.start_api('neutron', 'neutron.wsgi.api:application', **_environment(cloud),
                    OS_NEUTRON_CONFIG_DIR=str(cloud.settings.etc('neutron')),
                    OS_NEUTRON_CONFIG_FILES='neutron.conf')


def _driver_folder(cloud: Cloud) -> pathlib.Path:
    return cloud.settings.folder / 'python'


def _environment(cloud: Cloud) -> dict[str, str]:
    return {'PYTHONPATH': str(_driver_folder(cloud))}


def _install_driver(folder: pathlib.Path) -> None:
    information = folder / 'macvtap_ports-1.dist-info'
    information.mkdir(parents=True)
    shutil.copy(_DRIVER, folder)
    (information / 'METADATA').write_text('Metadata-Version: 2.1\nName: macvtap-ports\n'
                                          'Version: 1\n')
    (information / 'entry_points.txt').write_text(_ENTRY_POINT)
