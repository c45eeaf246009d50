# SPDX-License-Identifier: Apache-2.0
"""A host's participant ends when it is told to, whatever its store does."""

import threading
import time

import pytest

from hotsnap_nova.compute import participants
from hotsnap_nova.protocol import commands, messages
from hotsnap_nova.storage import local
from tests.fakes.engine import Engine, World


@pytest.fixture
def saving(tmp_path):
    """A participant that saves a guest, and what lets the store go on."""
    goes_on, begun = threading.Event(), threading.Event()
    world = World(tmp_path / 'world.json')
    guest = world.add('a')
    member = messages.Member(guest.id, guest.name)
    engine = Engine(world)

    def hang(_work):
        begun.set()
        goes_on.wait(60)
    engine.faults['save'] = hang
    made = participants.Participants('h1', engine, local.LocalStore(f'{tmp_path}/store'),
                                     f'{tmp_path}/state')
    made.start()
    made._claims.lock('s', (member,))
    work = messages.Work('g', (member,), messages.Gate.HOLD, 500, 150)
    save = commands.SaveMembers('s', 1, work)
    made._saves.begin(save, made._work(save))
    assert begun.wait(30)
    yield made, f'domain-{guest.id}', goes_on
    goes_on.set()
    made.close()


def test_a_store_that_hangs_does_not_keep_the_service_from_ending(saving, monkeypatch):
    made, lock, _ = saving
    monkeypatch.setattr(participants, '_CLOSE_S', 0.2, raising=False)

    began = time.monotonic()
    made.close()

    assert time.monotonic() - began < 10
    assert made.domain_locks.holds(lock)    # the save may still write


def test_a_save_that_ends_in_time_is_waited_for(saving):
    made, lock, goes_on = saving
    (thread,) = made._saves._threads.values()
    threading.Timer(0.3, goes_on.set).start()

    made.close()

    assert not thread.is_alive()
    assert not made.domain_locks.holds(lock)


def test_a_discard_that_hangs_does_not_keep_the_service_from_ending(saving, monkeypatch):
    made, lock, goes_on = saving
    monkeypatch.setattr(participants, '_CLOSE_S', 0.2)
    goes_on.set()
    monkeypatch.setattr(made._runner, 'close', lambda timeout_s: timeout_s > 1)

    made.close()

    assert made.domain_locks.holds(lock)    # what hangs may still work on the guest
