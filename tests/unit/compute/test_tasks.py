# SPDX-License-Identifier: Apache-2.0
"""Long work is asked for without keeping from its work whoever answers."""

import threading
import time

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
