# SPDX-License-Identifier: Apache-2.0
"""Two of ours take the same snapshot out of a guest at the same time; the guest lives.

A save that ends meets its discard so, and the guardian of a process that died the next process.
QEMU does not survive it if a device is given the node twice that it has already.
"""

import threading

import pytest

from hotsnap_nova.virt import guest, records
from hotsnap_nova.virt.disks import freezing
from tests.functional.witness import Witness

_TRIES_S = 2.0


@pytest.fixture
def frozen(engine, pair, tmp_path):
    """A guest whose disks pass our filters, the snapshot's tag, and how to give it up."""
    spec = engine.find((pair[0].domain_name,))[0]
    work = records.Work('two-removers', 1, (spec,), 'hold', str(tmp_path), 20_000, 30_000)
    engine.prepare(work)
    engine.record(work)
    engine.release(work)
    yield pair[0], engine.tag_of(work.snapshot_id)
    engine.discard(work.snapshot_id, work.members)


def test_a_second_remover_waits_until_the_first_is_done(frozen, shared_lab):
    running, tag = frozen
    witness = Witness([running])
    monitors = [guest.Guest(guest.connect(shared_lab.uri), running.uuid).monitor
                for _ in range(2)]
    looked, second_done = threading.Event(), threading.Event()
    look = monitors[0].children

    def look_and_dawdle():
        found = look()
        looked.set()
        second_done.wait(_TRIES_S)     # without a lock the second is done by then
        return found
    monitors[0].children = look_and_dawdle

    def second():
        looked.wait()
        freezing.remove(monitors[1], tag, 'second')
        second_done.set()
    other = threading.Thread(target=second)
    other.start()
    freezing.remove(monitors[0], tag, 'first')
    other.join()

    assert second_done.is_set()
    assert freezing.leftovers(monitors[1]) == set()
    assert witness.harmed() == []
