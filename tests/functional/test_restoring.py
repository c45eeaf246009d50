# SPDX-License-Identifier: Apache-2.0
"""The real engine's steps of a restore, on guests of real libvirt."""

import pytest

from tests.functional import restoring
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
    pass
