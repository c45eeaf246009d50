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
#: Enough for a guest's memory to be on its way, and for an image's own tables.
SOME_BYTES = 2 << 20
#: Bytes of a disk's image that are there before the first copied cluster.
IMAGE_BYTES = 512 << 10
REASONS = {'full': 'No space left', 'failing': 'Input/output error',
           'hanging': r''}


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


@pytest.mark.parametrize('file', [MEMORY, DISK])
@pytest.mark.parametrize(('fault', 'words'), [('full', 'No space left'),
                                              ('failing', 'Input/output error')])
def test_a_target_that_refuses_breaks_the_snapshot_alone(
        fault, words, file, user, store, engine, pair):
    witness = Witness(pair)
    store.obey(fault, file, SOME_BYTES if file == MEMORY else IMAGE_BYTES)

    outcome = user.create('broken', pair)

    assert store.faults() > 0
    assert outcome.status == 1
    assert words in outcome.errors
    assert outcome.errors.count('\n') == 1
    shown = user.show('broken')
    assert shown['status'] == 'error'
    assert words in str(shown)
    assert_only_the_snapshot_failed(user, store, engine, witness, pair)


@pytest.mark.parametrize('file', [MEMORY, DISK])
def test_a_target_that_hangs_breaks_the_snapshot_alone(file, user, store, engine, pair):
    witness = Witness(pair)
    store.obey('hanging', file, SOME_BYTES if file == MEMORY else IMAGE_BYTES)

    with user.start(*user.creating('broken', pair)) as running:
        line = running.stderr.readline()

        assert 'Snapshot broken failed' in line
        assert store.faults() > 0
        assert engine.survey() == ()
        assert witness.harmed() == []
        assert user.show('broken')['status'] == 'error'
        store.obey('ok')     # who is stuck in the kernel ends when the kernel lets it
        assert running.wait(30) == 1
    assert_only_the_snapshot_failed(user, store, engine, witness, pair)
