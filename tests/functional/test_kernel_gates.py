# SPDX-License-Identifier: Apache-2.0
"""Snapshots of guests whose NICs QEMU's filters refuse: the host kernel keeps packets back."""

import contextlib
import os
import pathlib
import signal

import pytest

from tests.functional.command import Hotsnap, stands_still, until
from tests.functional.witness import Witness

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
    """Where the guests' devices are, as a compute host's service is."""
    made = Hotsnap(shared_lab.uri, tmp_path, enter=(
        'nsenter', f'--net=/proc/{shared_lab._home.init_pid}/ns/net', '--'))
    yield made
    for pid in made.processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def in_kernel(lab):
    """What there is of ours at the guests' devices, and which devices are ours."""
    taps = [line.split(':')[1].strip() for line in lab.run_inside(
        'ip', '-o', 'link', 'show', 'type', 'tun').splitlines()]
    ours = [name for name in taps if name.startswith('hsg')]
    return ours + [
        line for name in taps if name not in ours for line in lab.run_inside(
            'tc', 'filter', 'show', 'dev', name, 'ingress').splitlines() if 'hotsnap' in line]


def test_they_are_accepted_and_left_as_they_were(shared_lab, user, pair):
    witness = Witness(pair)
    before = shared_lab.run_inside('tc', 'qdisc', 'show')

    created = user.create('whole', pair, '--gate', 'hold')

    assert created.status == 0, created.errors
    assert user.show('whole')['gate'] == 'hold'
    assert in_kernel(shared_lab) == []
    assert shared_lab.run_inside('tc', 'qdisc', 'show') == before
    assert witness.left() == []
    assert witness.harmed() == []
    assert until(lambda: not user.processes()), user.processes()


def test_they_are_free_though_everything_of_ours_was_killed_and_recovered_whole(
        shared_lab, user, pair):
    """The first is past its cut, its gate closed; the second's is armed."""
    witness = Witness(pair)
    before = shared_lab.run_inside('tc', 'qdisc', 'show')
    words = user.creating('doomed', pair, '--gate', 'hold', '--max-hold-ms', '4000')

    with user.start(*words, program=('tests.functional.dying', 'between', 'SIGSTOP')) as running:
        assert until(lambda: stands_still(running.pid), 120)
        ours = {pid: pathlib.Path(f'/proc/{pid}/cmdline').read_bytes()
                for pid in user.processes()}
        for pid in ours:
            os.kill(pid, signal.SIGKILL)
        running.wait(30)

    assert any(b'gates.holder' in words for words in ours.values())
    assert any(b'virt.guardian' in words for words in ours.values())
    # The devices of those who died go with them, a moment later.
    assert until(lambda: not any(name.startswith('hsg') for name in in_kernel(shared_lab)))
    assert len(in_kernel(shared_lab)) == 2
    assert witness.harmed(messages=5) == []

    recovered = user.run('recover', '-f', 'json')

    assert recovered.status == 0, recovered.errors
    assert in_kernel(shared_lab) == []
    assert shared_lab.run_inside('tc', 'qdisc', 'show') == before
    assert witness.left() == []
    assert witness.harmed() == []
