# SPDX-License-Identifier: Apache-2.0
"""The real engine's steps of a restore, on guests of real libvirt."""

import pytest

from tests.functional import restoring
from tests.functional.command import until
from tests.unit.restoring import suite


@pytest.fixture(scope='module')
def guests(shared_lab, tmp_path_factory):
    with restoring.Rig(shared_lab, tmp_path_factory.mktemp('restoring')) as made:
        yield made


@pytest.fixture
def rig(guests):
    guests.begin()
    return guests


class TestEngine(suite.RestoreSuite):

    def test_variables_of_the_firmware_are_those_of_the_cut_from_the_resumption_on(self, rig):
        work = suite.through(rig, rig.work('a'), 'start')
        assert rig.nvram('a') == 'own'

        suite.do(rig, work, 'resume')

        assert until(lambda: rig.nvram('a') == 'cut')

    def test_an_undo_leaves_the_variables_of_the_firmware_alone(self, rig):
        work = suite.through(rig, rig.work('a'), 'start')

        suite.do(rig, work, 'undo')

        assert suite.whole(rig, 'a') == suite.OWN
        assert rig.nvram('a') == 'own'
