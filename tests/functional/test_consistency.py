# SPDX-License-Identifier: Apache-2.0
"""Snapshots of talking guests are consistent with each gate, and without one they are not.

The control goes through the same code with the same delays. Were it to hold,
the other tests here would prove nothing, so that is a failure as well.
"""

import pytest

from tests.lab import WIDE, GuestSpec, Lab, load
from tests.rounds import rounds
from tests.rounds.command import Hotsnap

GUESTS = (GuestSpec(), GuestSpec(), WIDE)
ROUNDS = 3
CONTROL_ROUNDS = 5
LEAST_BROKEN = 3
RATE = 20
# At the least rate that a slow machine may need these take 6 s.
MESSAGES = 30
SEED = 'consistency'


@pytest.fixture(scope='module')
def group_rounds(request):
    """Rounds on one group of guests, of which one was good."""
    failed_before = request.session.testsfailed
    with Lab() as lab:
        group, _load = load.start_within(lab, list(GUESTS), RATE)
        made = rounds.Rounds(group, Hotsnap(lab.uri, lab.folder / 'hotsnap', enter=lab.enter),
                             messages=MESSAGES)
        first = made.run('barrier')
        assert first.consistent, (first.error, first.cut, first.after)
        yield made
        lab.keep_files = request.session.testsfailed > failed_before


@pytest.fixture
def talking(request, group_rounds):
    """The rounds, with sound guests whatever the test before did to them."""
    failed_before = request.session.testsfailed
    yield group_rounds
    if request.session.testsfailed > failed_before:
        group_rounds.mend()


def delays(number):
    return rounds.random_delays(f'{SEED}/{number}', len(GUESTS))


@pytest.mark.timeout(900)
@pytest.mark.slow
@pytest.mark.parametrize('gate', ['hold', 'barrier', rounds.MARKER])
def test_every_snapshot_is_consistent_however_far_apart_the_cuts(talking, gate):
    """With marks some of the cuts were asked for by packets."""
    asked = 0

    for number in range(ROUNDS):
        done = talking.run(gate, delays(number))

        assert done.error == ''
        assert done.shown['gate'] == gate
        assert done.cut == ()
        assert done.after == ()
        assert min(done.messages.values()) >= MESSAGES
        asked += done.asked

    assert (asked > 0) is (gate == rounds.MARKER)


# A round whose connections merely stand still is broken only when all patience is spent.
@pytest.mark.timeout(900)
@pytest.mark.slow
def test_without_a_gate_most_of_the_same_rounds_break(talking):
    broken = 0

    for number in range(CONTROL_ROUNDS):
        done = talking.run(rounds.CONTROL, delays(number))
        assert done.error == ''
        broken += not done.consistent
        if not done.consistent:
            talking.mend()
        if broken == LEAST_BROKEN:
            break

    assert broken == LEAST_BROKEN
