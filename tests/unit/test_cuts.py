# SPDX-License-Identifier: Apache-2.0
"""Who is cut when: in its turn, or at once where a mark asks for it, and once in any case."""

import os
import threading
import types

import pytest

from hotsnap_nova.virt import cuts

_PATIENCE_S = 20


class Failed(Exception):
    pass


class Member:
    def __init__(self, name):
        self.guest = types.SimpleNamespace(uuid=name)
        self.asks = os.eventfd(0, os.EFD_NONBLOCK)

    def ask(self):
        os.eventfd_write(self.asks, 1)


@pytest.fixture
def members():
    made = [Member(name) for name in 'ab']
    descriptors = [each.asks for each in made]
    yield made
    for each in descriptors:
        os.close(each)


class Cutting:
    """What was cut, in order, and whether a mark asked for it."""

    def __init__(self, fails=''):
        self.done, self._fails = [], fails
        self.each = {name: threading.Event() for name in 'ab'}

    def __call__(self, member, asked_by_mark):
        name = member.guest.uuid
        self.done.append((name, asked_by_mark))
        self.each[name].set()
        if name in self._fails:
            raise Failed(name)


def test_who_is_not_asked_for_is_cut_in_turn(members):
    cutting = Cutting()

    with cuts.Cuts(members, cutting) as taken:
        for each in members:
            taken.take(each)

    assert cutting.done == [('a', False), ('b', False)]


def test_whom_a_mark_asks_for_is_cut_at_once_and_not_again_in_its_turn(members):
    a, b = members
    cutting = Cutting()

    with cuts.Cuts(members, cutting) as taken:
        b.ask()
        assert cutting.each['b'].wait(_PATIENCE_S)
        taken.take(a)
        taken.take(b)

    assert cutting.done == [('b', True), ('a', False)]


def test_a_mark_that_came_before_is_answered_when_the_word_to_record_comes(members):
    members[1].ask()
    cutting = Cutting()

    with cuts.Cuts(members, cutting):
        assert cutting.each['b'].wait(_PATIENCE_S)

    assert cutting.done == [('b', True)]


def test_a_cut_that_a_mark_asked_for_and_that_failed_is_told_in_its_turn(members):
    cutting = Cutting(fails='b')

    with cuts.Cuts(members, cutting) as taken:
        members[1].ask()
        assert cutting.each['b'].wait(_PATIENCE_S)
        with pytest.raises(Failed, match='b'):
            taken.take(members[1])

    assert cutting.done == [('b', True)]


def test_at_its_end_nobody_waits_for_marks_though_a_cut_has_failed(members):
    with pytest.raises(Failed), cuts.Cuts(members, Cutting(fails='a')) as taken:
        taken.take(members[0])

    assert not [each for each in threading.enumerate() if each.name.startswith('hotsnap-cut')]


def test_gates_that_ask_for_nothing_have_nobody_wait(members):
    for each in members:
        each.asks = None
    cutting = Cutting()

    with cuts.Cuts(members, cutting) as taken:
        waiting = [each for each in threading.enumerate() if each.name.startswith('hotsnap-cut')]
        taken.take(members[0])

    assert waiting == []
    assert cutting.done == [('a', False)]
