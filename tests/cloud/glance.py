# SPDX-License-Identifier: Apache-2.0
"""Glance, with images as files."""

import shutil

from tests.cloud import files
from tests.cloud.services import Cloud


def prepare(cloud: Cloud) -> None:
    """Configuration and database."""
    settings = cloud.settings
    etc = settings.etc('glance')
    stores = settings.folder / 'glance'
    for name in ('images', 'staging', 'tasks'):
        (stores / name).mkdir(parents=True)
    config = files.write_ini(
        etc / 'glance-api.conf',
        DEFAULT={'enabled_backends': 'files:file', 'use_stderr': True},
        database={'connection': settings.database_url('glance')},
        glance_store={'default_backend': 'files'},
        files={'filesystem_store_datadir': stores / 'images'},
        os_glance_staging_store={'filesystem_store_datadir': stores / 'staging'},
        os_glance_tasks_store={'filesystem_store_datadir': stores / 'tasks'},
        keystone_authtoken=cloud.token_check('glance'),
        paste_deploy={'flavor': 'keystone', 'config_file': etc / 'glance-api-paste.ini'},
        oslo_concurrency={'lock_path': settings.folder / 'lock'})
    shutil.copy(files.packaged('glance/glance-api-paste.ini'), etc)
    cloud.processes.run('glance-db-sync', files.program('glance-manage'),
                        '--config-file', config, 'db_sync')


def start(cloud: Cloud) -> None:
    cloud.start_api('glance', 'glance.wsgi.api:application',
                    OS_GLANCE_CONFIG_DIR=str(cloud.settings.etc('glance')))
