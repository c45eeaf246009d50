# SPDX-License-Identifier: Apache-2.0
"""hotsnap_nova in the cloud, as doc/ tells operators to install it."""

import pathlib
import re

from tests.cloud import files, hosts
from tests.cloud.processes import CloudError
from tests.cloud.services import Cloud

CONDUCTOR = 'nova-hotsnap-conductor'
_PIPELINE = re.compile(r'^(keystone = .* keystonecontext) ', flags=re.MULTILINE)
_FILTER = '''
[filter:hotsnap]
paste.filter_factory = hotsnap_nova.api.middleware:factory
'''
_PIPELINES = 2


def host_sections(cloud: Cloud, host: str) -> dict[str, dict]:
    """What nova.conf of one compute host has more of."""
    folder = cloud.settings.host_folder(host)
    local = {'local_uri': 'qemu:///system'} if hosts.is_remote(cloud, host) else {}
    return {'DEFAULT': {'compute_driver': 'hotsnap.HotSnapLibvirtDriver'},
            'hotsnap': {'store_path': cloud.settings.folder / 'snapshots',
                        'state_path': folder / 'hotsnap',
                        'lock_path': folder / 'run/hotsnap', **local}}


def with_filter(paste: str) -> str:
    """Nova's api-paste.ini with our filter in both pipelines of v2.1."""
    changed, count = _PIPELINE.subn(r'\1 hotsnap ', paste)
    if count != _PIPELINES:
        raise CloudError("the pipelines in Nova's api-paste.ini are not as they were")
    return changed + _FILTER


def prepare(cloud: Cloud) -> None:
    """The conductor's configuration, and its database."""
    files.write_ini(
        _config(cloud),
        hotsnap={'database_connection': cloud.settings.database_url('hotsnap'),
                 # Two processors emulate all guests and run all services: such a machine
                 # cannot keep the default limits, and consistency does not rest on them.
                 'max_pause_ms': 2000, 'max_hold_ms': 2000,
                 'silence_timeout_s': 60})
    cloud.processes.run('hotsnap-db-sync', files.program('nova-hotsnap-manage'),
                        *_config_words(cloud), 'db', 'sync')


def start(cloud: Cloud) -> None:
    """Our service beside Nova's."""
    cloud.processes.start(CONDUCTOR, *command(cloud))


def command(cloud: Cloud) -> list:
    """What starts it."""
    return [files.program(CONDUCTOR), *_config_words(cloud)]


def _config(cloud: Cloud) -> pathlib.Path:
    return cloud.settings.etc('nova') / 'hotsnap-conductor.conf'


def _config_words(cloud: Cloud) -> list:
    """Computes do not read the second: it holds the database's password."""
    return ['--config-file', cloud.settings.etc('nova') / 'nova.conf',
            '--config-file', _config(cloud)]
