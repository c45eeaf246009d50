# SPDX-License-Identifier: Apache-2.0
"""Long work is asked for without keeping from its work whoever answers."""

import queue
import sys
import threading
import time
import types

import pytest

from hotsnap_nova import exception
from hotsnap_nova.compute import rpcapi, tasks


def test_only_a_few_questions_wait():
    ends, asked = threading.Event(), threading.Event()
    made = tasks.Tasks(wait_s=30, waiting=1)
    answers = []

    def work(_tell):
        asked.set()
        ends.wait(30)
        return 'it'
    first = threading.Thread(target=lambda: answers.append(made.ask('one', work)))
    first.start()
    assert asked.wait(30)

    began = time.monotonic()
    while made._places._value:
        assert time.monotonic() - began < 30
    second = made.ask('other', work)

    assert time.monotonic() - began < 10
    assert second == {'done': False, 'result': None, 'progress': [0, 0]}
    ends.set()
    first.join()
    assert answers == [{'done': True, 'result': 'it', 'progress': [0, 0]}]


def test_a_host_that_answers_at_once_is_not_asked_all_the_time(monkeypatch):
    states = [{'done': done, 'result': {}, 'progress': [0, 0]} for done in (False, False, True)]

    class Client:
        def call(self, *_args, **_kwargs):
            return states.pop(0)
    slept = []
    monkeypatch.setattr(rpcapi.time, 'sleep', slept.append)
    api = rpcapi.ComputeApi(None)
    api._client = Client()

    api.verify('h1', 'it')

    assert len(slept) == 2
    assert min(slept) > 0.1


def answers_while_it_ends(work):
    """What `ask` says if the work ends before its first line, its second one, and so on."""
    number, lines = 0, [None]
    while number < len(lines):
        goes_on, lines = threading.Event(), []
        made = tasks.Tasks(wait_s=0)

        def end(work=goes_on):
            work.set()
            for thread in threading.enumerate():
                if thread.name == 'hotsnap-task':
                    thread.join(30)

        def trace(frame, event, _arg, at=number, end=end, lines=lines):
            if frame.f_code.co_filename != tasks.__file__:
                return None
            if event == 'line':
                lines.append(frame.f_lineno)
                if len(lines) == at + 1:
                    end()
            return trace

        def waiting(tell, goes_on=goes_on):
            goes_on.wait(30)
            return work(tell)
        made.ask('it', waiting)
        sys.settrace(trace)
        try:
            yield made.ask('it', None)
        except ValueError as exc:
            yield exc
        finally:
            sys.settrace(None)
            end()
        number += 1


def test_work_that_fails_while_it_is_asked_for_is_never_told_as_done():
    def fail(_tell):
        raise ValueError('damaged')

    answers = list(answers_while_it_ends(fail))

    assert any(isinstance(answer, ValueError) for answer in answers)
    assert all(isinstance(answer, ValueError) or not answer['done'] for answer in answers)


def test_a_result_that_comes_while_it_is_asked_for_is_whole():
    answers = list(answers_while_it_ends(lambda _tell: 'it'))

    assert {(answer['done'], answer['result']) for answer in answers} == {
        (False, None), (True, 'it')}


def test_what_is_asked_for_again_begins_anew_once_its_end_was_told():
    made, begun = tasks.Tasks(wait_s=30), []

    def fail(_tell):
        begun.append(None)
        raise ValueError('damaged')
    for _ in range(2):
        with pytest.raises(ValueError, match='damaged'):
            made.ask('it', fail, again=True)

    assert len(begun) == 2


def test_what_never_ends_is_not_begun_for_ever(monkeypatch):
    monkeypatch.setattr(tasks, '_KEPT', 2)
    made, goes_on = tasks.Tasks(wait_s=0), threading.Event()
    for key in 'ab':
        made.ask(key, lambda _tell: goes_on.wait(60))

    with pytest.raises(exception.Unavailable, match='see whether its store hangs'):
        made.ask('c', lambda _tell: None)

    assert made.ask('a', None)['done'] is False
    goes_on.set()


def test_work_ends_that_nobody_asks_for_any_more(monkeypatch):
    clock = types.SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(tasks, 'time', clock)
    made = tasks.Tasks(wait_s=0, abandoned_s=60)
    reads, told, ended = queue.Queue(), queue.Queue(), threading.Event()

    def work(tell):
        try:
            while True:
                tell(reads.get(timeout=30), 2)
                told.put(None)
        finally:
            ended.set()
    made.ask('it', work)
    clock.now = 50.0
    made.ask('it', work)
    clock.now = 100.0
    reads.put(1)
    told.get(timeout=30)    # asked for in time

    clock.now = 111.0
    reads.put(2)

    assert ended.wait(30)
    with pytest.raises(exception.Aborted, match='Nobody asks'):
        made.ask('it', work)
