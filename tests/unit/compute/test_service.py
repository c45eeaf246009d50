# SPDX-License-Identifier: Apache-2.0
"""What a host's configuration comes to."""

import types

import pytest
from oslo_config import cfg

from hotsnap_nova import conf
from hotsnap_nova.compute import service
from hotsnap_nova.storage import digest
from hotsnap_nova.virt import records


@pytest.fixture
def manager(tmp_path):
    """Of a configuration; its engine does nothing."""
    def manager(options):
        config = cfg.ConfigOpts()
        conf.register(config)
        config([], default_config_files=[], default_config_dirs=[])
        for name, value in {'store_path': f'{tmp_path}/store', 'state_path': str(tmp_path),
                            'lock_path': f'{tmp_path}/locks', **options}.items():
            config.set_override(name, value, group=conf.GROUP)
        return service.open_manager(
            config.hotsnap, lambda _uri, _hours: types.SimpleNamespace(drop_expired=None), 'h1')
    return manager


@pytest.mark.parametrize(('options', 'limit_bytes_s', 'direct'), [
    ({}, 0, False), ({'io_limit_mib_s': 20, 'direct_io': True}, 20 << 20, True)])
def test_how_gently_disks_are_copied_and_digests_computed_is_an_option(
        manager, options, limit_bytes_s, direct):
    made = manager(options)

    assert made.engine.effort == records.Effort(limit_bytes_s, direct)
    assert made.store.reading == digest.Reading(limit_bytes_s, direct)


@pytest.mark.parametrize(('options', 'tries', 'reserve_bytes'), [
    ({}, True, 512 << 20), ({'trial_load': False, 'trial_reserve_mib': 0}, False, 0)])
def test_members_are_loaded_on_trial_unless_that_is_not_wanted(
        manager, options, tries, reserve_bytes):
    engine = manager(options).engine

    assert (engine.tries_loads, engine.trial_reserve_bytes) == (tries, reserve_bytes)
