# SPDX-License-Identifier: Apache-2.0
"""A guest's device in a network of its own, and who keeps its packets back."""

import pytest

from hotsnap_nova.virt.gates import holder
from tests.functional import wires


@pytest.fixture(params=wires.KINDS)
def wire(request):
    with wires.own_network():
        made = wires.KINDS[request.param]()
        yield made
        made.close()


@pytest.fixture
def keeper(wire):
    started = holder.Holder()
    yield started
    started.close()
