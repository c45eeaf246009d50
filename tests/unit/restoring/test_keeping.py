# SPDX-License-Identifier: Apache-2.0
"""What is found of restores that have ended goes when it is old; disks: functional/parts."""

import os
import time

import pytest

from hotsnap_nova.virt import domain
from hotsnap_nova.virt.restore import keeping, parts


class Keeper(keeping.Keeper):
    """Of one domain, `a`, with a disk in a folder."""

    def __init__(self, folder):
        self._folder = folder

    def _definitions(self):
        yield domain.DomainXml(
            '<domain><uuid>a</uuid><devices><disk type="file" device="disk"><driver type="raw"/>'
            f'<source file="{self._folder}/disk.raw"/><target dev="vda"/></disk></devices>'
            '</domain>')


@pytest.fixture
def leave(tmp_path):
    (tmp_path / 'disk.raw').touch()

    def leave(name, age_hours=25.0):
        path = tmp_path / name
        path.write_text('running')
        when = time.time() - age_hours * 3600
        os.utime(path, (when, when))
        return str(path)
    return leave


def test_marks_stay_for_they_may_be_on_record_elsewhere(tmp_path, leave):
    marks = {os.path.basename(leave(f'a.hotsnap-{what}-r1', age_hours=1000))
             for what in (parts.STOPPED, parts.LOADED, parts.RESUMED)}

    assert Keeper(tmp_path).drop_expired() == ()

    assert set(os.listdir(tmp_path)) == {'disk.raw', *marks}


def test_what_a_load_on_trial_left_goes_after_a_day(tmp_path, leave):
    old = leave('a.hotsnap-trial-disk-vda-r1'), leave('a.hotsnap-trial-memory-r1')
    kept = [leave('a.hotsnap-trial-memory-r2', age_hours=23), leave('b.hotsnap-trial-memory-r1')]

    assert Keeper(tmp_path).drop_expired() == old

    assert sorted(os.listdir(tmp_path)) == sorted(
        ['disk.raw', *(os.path.basename(path) for path in kept)])


@pytest.mark.parametrize('what', parts.MADE_AGAIN)
def test_what_is_there_again_of_an_ended_restore_goes_after_a_day(tmp_path, leave, what):
    old = leave(f'a.hotsnap-{what}-r1'), leave(f'a.hotsnap-{what}-r2.new')
    kept = [leave(f'a.hotsnap-{what}-r3', age_hours=23), leave(f'a.hotsnap-{what}-r4'),
            leave(f'a.hotsnap-{what}-r4.new'), leave(f'b.hotsnap-{what}-r1')]

    assert Keeper(tmp_path).drop_expired(frozenset({'r4'})) == old

    assert sorted(os.listdir(tmp_path)) == sorted(
        ['disk.raw', *(os.path.basename(path) for path in kept)])
