# SPDX-License-Identifier: Apache-2.0
import pytest

from tests.fakes import cluster as clusters


@pytest.fixture
def cluster(tmp_path):
    """Two hosts with three guests; at the end nothing of ours may be left in any."""
    with clusters.Cluster(tmp_path, {'h1': 'ab', 'h2': 'c'}) as made:
        yield made
