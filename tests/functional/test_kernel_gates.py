# SPDX-License-Identifier: Apache-2.0
"""Snapshots of guests whose NICs QEMU's filters refuse: the host kernel keeps packets back."""

import pytest

from tests.functional import devices
from tests.functional.command import until

#: What Nova gives those who ask for hw:vif_multiqueue_enabled.
MULTIQUEUE = "name='qemu' queues='2'"


@pytest.fixture(scope='module')
def pair(shared_lab):
    """Two guests that talk, with two queues each."""
    group = shared_lab.start(2, wait=True, vcpus=2, nic_driver=MULTIQUEUE)
    yield group
    for guest in group:
        guest.domain.destroy()


@pytest.fixture
def user(shared_lab, tmp_path):
    with devices.user_beside(shared_lab, tmp_path) as made:
        yield made


def test_they_are_accepted_and_left_as_they_were(shared_lab, user, pair):
    with devices.left_as_they_were(shared_lab, pair):
        created = user.create('whole', pair, '--gate', 'hold')

        assert created.status == 0, created.errors
        assert user.show('whole')['gate'] == 'hold'
    assert until(lambda: not user.processes()), user.processes()


def test_they_are_free_though_everything_of_ours_was_killed_and_recovered_whole(
        shared_lab, user, pair):
    """The first is past its cut, its gate closed; the second's is armed."""
    words = user.creating('doomed', pair, '--gate', 'hold', '--max-hold-ms', '4000')

    with devices.left_as_they_were(shared_lab, pair) as witness:
        killed = devices.killed_between(user, words)

        assert any(b'gates.holder' in each for each in killed)
        assert any(b'virt.guardian' in each for each in killed)
        # The devices of those who died go with them, a moment later.
        assert until(lambda: not devices.taps(shared_lab, ours=True))
        assert len(devices.at_devices(shared_lab)) == 2
        assert witness.harmed(messages=5) == []
        devices.recover(user)
