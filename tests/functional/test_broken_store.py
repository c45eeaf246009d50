# SPDX-License-Identifier: Apache-2.0
"""The guest comes first: where snapshots are written may break in any way.

The guests write with fsync and talk meanwhile. Only the snapshot fails, says
why, and leaves nothing; the next one, on a store that works, succeeds.
"""

import contextlib
import os
import signal

import pytest

from tests.functional.brokenstore import BrokenStore
from tests.functional.command import Hotsnap, until
from tests.functional.witness import Witness

MEMORY = 'memory.save'
DISK = 'vda.qcow2'
#: Enough for images to be made and for a guest's memory to be on its way.
SOME_BYTES = 2 << 20


@pytest.fixture
def store(tmp_path):
    with BrokenStore(tmp_path / 'broken') as store:
        yield store


@pytest.fixture
def user(shared_lab, tmp_path, store):
    """A user whose store breaks; whose processes end with the test."""
    user = Hotsnap(shared_lab.uri, tmp_path, store)
    yield user
    store.close()
    for pid in user.processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def assert_only_the_snapshot_failed(user, store, engine, witness, pair):
    assert witness.harmed() == []
    assert engine.survey() == ()
    assert witness.left() == []
    assert until(lambda: not user.processes()), user.processes()
    assert store.contents() == []
    assert user.journal() == []

    store.obey('ok')
    again = user.create('again', pair)

    assert again.status == 0, again.errors
    assert witness.harmed() == []
    assert witness.left() == []


@contextlib.contextmanager
def creating(user, pair, store, fault, file):
    """The command under way, whose store shows the fault in the midst of it.

    For disks that is while the gates are closed: in no part of the image that the
    preparation writes, and before the guests' own writes pass the filters.
    """
    words = user.creating('broken', pair)
    if file != DISK:
        store.obey(fault, file, SOME_BYTES)
        with user.start(*words) as running:
            yield running
        return
    # One thread waits, not the process: with the relay standing too, a guest's write
    # would soon break the snapshot before the store could.
    with user.start(*words, program=('tests.functional.dying', 'held',
                                     str(user.state))) as running:
        assert until((user.state / 'reached').exists)
        store.obey(fault, file)
        (user.state / 'go').touch()
        yield running


@pytest.mark.parametrize('file', [MEMORY, DISK])
@pytest.mark.parametrize(('fault', 'words'), [('full', 'No space left'),
                                              ('failing', 'Input/output error')])
def test_a_target_that_refuses_breaks_the_snapshot_alone(
        fault, words, file, user, store, engine, pair):
    witness = Witness(pair)

    with creating(user, pair, store, fault, file) as running:
        _, errors = running.communicate(timeout=100)

    assert store.faults() > 0
    assert running.returncode == 1
    assert words in errors
    assert errors.count('\n') == 1
    shown = user.show('broken')
    assert shown['status'] == 'error'
    assert words in str(shown)
    assert_only_the_snapshot_failed(user, store, engine, witness, pair)


@pytest.mark.parametrize(('file', 'words'), [(MEMORY, 'nothing could be written for'),
                                             (DISK, DISK.partition('.')[0]), ('*', '')])
def test_a_target_that_hangs_breaks_the_snapshot_alone(
        file, words, user, store, engine, pair):
    witness = Witness(pair)

    with creating(user, pair, store, 'hanging', file) as running:
        assert until(lambda: store.faults() > 0)
        assert until(lambda: not engine.survey()), engine.survey()
        assert witness.harmed() == []
        assert witness.left() == []
        # Who is stuck in the kernel ends when the kernel lets go, not before.
        assert running.poll() is None
        store.obey('ok')
        _, errors = running.communicate(timeout=60)

    assert running.returncode == 1
    assert words in errors
    assert words in str(user.show('broken'))
    assert_only_the_snapshot_failed(user, store, engine, witness, pair)
