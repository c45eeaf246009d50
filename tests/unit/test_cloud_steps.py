# SPDX-License-Identifier: Apache-2.0
"""The cloud's steps run in an order that serves each, and stop at the first failure."""

import threading

import pytest

from tests.cloud import steps


def test_a_step_begins_after_all_it_needs():
    order = []

    steps.run([steps.Step('roof', lambda: order.append('roof'), ('wall', 'floor')),
               steps.Step('wall', lambda: order.append('wall'), ('floor',)),
               steps.Step('floor', lambda: order.append('floor'))], say=lambda _text: None)

    assert order == ['floor', 'wall', 'roof']


def test_steps_that_need_nothing_run_side_by_side():
    meeting = threading.Barrier(2, timeout=30)

    steps.run([steps.Step('one', meeting.wait), steps.Step('other', meeting.wait)],
              say=lambda _text: None)


def test_nothing_begins_after_a_failure_and_it_is_raised():
    begun = []

    def fail():
        raise OSError('no floor')
    with pytest.raises(OSError, match='no floor'):
        steps.run([steps.Step('floor', fail),
                   steps.Step('wall', lambda: begun.append('wall'), ('floor',))],
                  say=lambda _text: None)

    assert begun == []


@pytest.mark.parametrize('needs', [('wall',), ('nowhere',)])
def test_a_step_that_can_never_begin_is_a_mistake(needs):
    with pytest.raises(ValueError, match='wall'):
        steps.run([steps.Step('wall', lambda: None, needs)], say=lambda _text: None)


def test_each_step_is_told_with_its_time():
    said = []

    steps.run([steps.Step('floor', lambda: None)], said.append)

    assert len(said) == 1
    assert 'floor (0.0 s)' in said[0]
