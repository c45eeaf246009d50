# SPDX-License-Identifier: Apache-2.0
"""What a host's configuration comes to."""

import types

import pytest
from oslo_config import cfg

from hotsnap_nova import conf
from hotsnap_nova.compute import service
from hotsnap_nova.storage import digest
from hotsnap_nova.virt import records


@pytest.mark.parametrize(('options', 'limit_bytes_s', 'direct'), [
    ({}, 0, False), ({'io_limit_mib_s': 20, 'direct_io': True}, 20 << 20, True)])
def test_how_gently_disks_are_copied_and_digests_computed_is_an_option(
        tmp_path, options, limit_bytes_s, direct):
    config = cfg.ConfigOpts()
    conf.register(config)
    config([], default_config_files=[], default_config_dirs=[])
    for name, value in {'store_path': f'{tmp_path}/store', 'state_path': str(tmp_path),
                        'lock_path': f'{tmp_path}/locks', **options}.items():
        config.set_override(name, value, group=conf.GROUP)

    manager = service.open_manager(
        config.hotsnap, lambda _uri, _hours: types.SimpleNamespace(drop_expired=None), 'h1')

    assert manager.engine.effort == records.Effort(limit_bytes_s, direct)
    assert manager.store.reading == digest.Reading(limit_bytes_s, direct)
