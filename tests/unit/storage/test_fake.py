# SPDX-License-Identifier: Apache-2.0
import pytest

from tests.unit.storage import fake, suite


class TestMemoryStore(suite.StoreSuite):

    @pytest.fixture
    def store(self, tmp_path):
        return fake.MemoryStore(tmp_path)

    def overwrite(self, store, snapshot_id, member, file, content):
        store.published[snapshot_id][1][member, file] = content

    def remove(self, store, snapshot_id, member, file):
        del store.published[snapshot_id][1][member, file]

    def add(self, store, snapshot_id, member, file):
        store.published[snapshot_id][1][member, file] = b'surplus'
