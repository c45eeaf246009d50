# SPDX-License-Identifier: Apache-2.0
"""Placement."""

from tests.cloud import files
from tests.cloud.services import Cloud


def prepare(cloud: Cloud) -> None:
    """Configuration and database."""
    config = files.write_ini(
        cloud.settings.etc('placement') / 'placement.conf',
        DEFAULT={'use_stderr': True},
        api={'auth_strategy': 'keystone'},
        placement_database={'connection': cloud.settings.database_url('placement')},
        keystone_authtoken=cloud.token_check('placement'))
    cloud.processes.run('placement-db-sync', files.program('placement-manage'),
                        '--config-file', config, 'db', 'sync')


def start(cloud: Cloud) -> None:
    cloud.start_api('placement', 'placement.wsgi.api:application',
                    OS_PLACEMENT_CONFIG_DIR=str(cloud.settings.etc('placement')))
