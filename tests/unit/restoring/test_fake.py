# SPDX-License-Identifier: Apache-2.0
import pytest

from tests.unit.restoring import fake, suite


class TestFakeEngine(suite.RestoreSuite):

    @pytest.fixture
    def rig(self, tmp_path):
        return fake.Rig(tmp_path / 'world.json')
