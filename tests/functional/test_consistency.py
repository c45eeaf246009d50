# SPDX-License-Identifier: Apache-2.0
"""Snapshots of talking guests are consistent with each gate, and without one they are not.

The control goes through the same code with the same delays. Were it to hold,
the other tests here would prove nothing, so that is a failure as well.
"""

import pytest

from tests.lab import WIDE, GuestSpec, Lab, Workload
from tests.rounds import rounds
from tests.rounds.command import Hotsnap

GUESTS = (GuestSpec(), GuestSpec(), WIDE)
ROUNDS = 5
LEAST_BROKEN = 3
MESSAGES = 200
SEED = 'consistency'


@pytest.fixture(scope='module')
def lab(request):
    failed_before = request.session.testsfailed
    with Lab() as lab:
        yield lab
        lab.keep_files = request.session.testsfailed > failed_before


@pytest.fixture
def talking(lab):
    """Rounds on guests of the test's own; they end with it."""
    group = lab.start(list(GUESTS), wait=True, workload=Workload(rate=60))
    yield rounds.Rounds(group, Hotsnap(lab.uri, lab.folder / 'hotsnap'), messages=MESSAGES)
    for guest in group:
        if guest.domain.isActive():
            guest.domain.destroy()


def delays(number):
    return rounds.random_delays(f'{SEED}/{number}', len(GUESTS))


@pytest.mark.slow
@pytest.mark.parametrize('gate', ['hold', 'barrier'])
def test_every_snapshot_is_consistent_however_far_apart_the_cuts(talking, gate):
    for number in range(ROUNDS):
        done = talking.run(gate, delays(number))

        assert done.error == ''
        assert done.shown['gate'] == gate
        assert done.cut == ()
        assert done.after == ()
        assert min(done.messages.values()) >= MESSAGES


@pytest.mark.slow
def test_without_a_gate_the_same_rounds_break(talking):
    good = talking.run('hold', delays(0))
    assert good.consistent

    broken = 0
    for number in range(ROUNDS):
        done = talking.run(rounds.CONTROL, delays(number))
        assert done.error == ''
        broken += not done.consistent
        if not done.consistent:
            talking.mend()

    assert broken >= LEAST_BROKEN
