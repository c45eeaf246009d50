# SPDX-License-Identifier: Apache-2.0
"""The real engine's steps of a restore, on guests of real libvirt."""

import dataclasses
import re
import time

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

    def test_a_guest_that_has_no_agent_runs_and_its_clock_is_said_to_lag_since_the_cut(self, rig):
        work = suite.through(rig, rig.work('a'), 'start')
        (member,) = work.members
        cut_ns = time.time_ns() - 7_200_000_000_000
        work = dataclasses.replace(work, members=(dataclasses.replace(
            member, facts={**member.facts, 'cut_wall_ns': cut_ns}),))

        (told,) = rig.engine.restore_resume(work).warnings

        assert (told.member, told.device, told.refuses) == (member.spec, 'clock', False)
        assert re.fullmatch(r'its clock lags by 2:0\d:\d\d: it has no channel for a guest agent',
                            told.cause)

    def test_an_undo_leaves_the_variables_of_the_firmware_alone(self, rig):
        work = suite.through(rig, rig.work('a'), 'start')

        suite.do(rig, work, 'undo')

        assert suite.whole(rig, 'a') == suite.OWN
        assert rig.nvram('a') == 'own'
