# SPDX-License-Identifier: Apache-2.0
"""What a host has said is so after a loss of power, too: on a disk that forgets all else."""

import os

import pytest

from hotsnap_nova.compute import journal, locks, orders
from hotsnap_nova.protocol import durable, messages
from hotsnap_nova.protocol.restore import durable as restores
from hotsnap_nova.protocol.restore import messages as orders_messages
from hotsnap_nova.storage import local
from tests.fakes import cluster as clusters
from tests.fakes import power
from tests.unit.storage import samples

MEMBER = messages.Member('a', 'a')
WORK = messages.Work('g', (MEMBER,), messages.Gate.HOLD, 100, 150)
PART = durable.Part('s1', 1, durable.Phase.SAVED, WORK)
ROW = durable.Decided('g', MEMBER, 1, 's1', durable.Decision.FINISH)
ORDER = restores.RestorePart('r1', orders_messages.Share('s1', (MEMBER,)),
                             orders_messages.Step.PREPARE)
END = restores.RestoreEnded('r1', orders_messages.Step.UNDO)


@pytest.fixture
def disk(tmp_path, monkeypatch):
    os.makedirs(tmp_path / 'state' / 'locks')
    made = power.Disk(tmp_path / 'state', monkeypatch)
    yield made
    made.close()


def open_journal(tmp_path):
    return journal.Journal(f'{tmp_path}/state', locks.Locks(f'{tmp_path}/state/locks'))


def open_orders(tmp_path):
    return orders.Orders(f'{tmp_path}/state', locks.Locks(f'{tmp_path}/state/locks'))


def test_a_part_survives(tmp_path, disk):
    open_journal(tmp_path).write(PART)

    disk.lose_power()

    assert open_journal(tmp_path).adopt() == (PART,)


def test_a_part_that_grew_is_never_half(tmp_path, disk):
    kept = open_journal(tmp_path)
    kept.write(durable.Part('s1', 1, durable.Phase.PREPARING, WORK))
    kept.write(PART)

    disk.lose_power()

    assert open_journal(tmp_path).adopt() == (PART,)


def test_a_decision_survives_and_its_part_does_not(tmp_path, disk):
    kept = open_journal(tmp_path)
    kept.write(PART)
    kept.forget('s1', [ROW])

    disk.lose_power()

    kept = open_journal(tmp_path)
    assert (kept.adopt(), kept.decided()) == ((), (ROW,))


def test_an_order_survives_with_what_was_kept_of_its_members(tmp_path, disk):
    kept = open_orders(tmp_path)
    kept.write(ORDER)
    kept.keep('r1', [{'id': 'a'}])

    disk.lose_power()

    kept = open_orders(tmp_path)
    assert (kept.adopt(), kept.kept('r1')) == ((ORDER,), [{'id': 'a'}])


def test_the_end_of_a_restore_survives_and_its_order_does_not(tmp_path, disk):
    kept = open_orders(tmp_path)
    kept.write(ORDER)
    kept.end(END)

    disk.lose_power()

    kept = open_orders(tmp_path)
    assert (kept.adopt(), kept.ended()) == ((), (END,))


def test_what_was_published_survives(tmp_path, disk):
    store = local.LocalStore(f'{tmp_path}/state/store')
    samples.publish(store)

    disk.lose_power()

    local.LocalStore(store.root).verify(samples.SNAPSHOT)


def test_what_was_deleted_does_not_come_back(tmp_path, disk):
    store = local.LocalStore(f'{tmp_path}/state/store')
    samples.publish(store)
    store.delete(samples.SNAPSHOT)

    disk.lose_power()

    assert local.LocalStore(store.root).list() == ()


def test_a_host_that_said_saved_publishes_after_a_loss_of_power(tmp_path, monkeypatch):
    with clusters.Cluster(tmp_path, {'h1': 'a', 'h2': 'b'}) as cluster:
        host = cluster.hosts['h1']
        host.kill()
        host.store = local.LocalStore(f'{tmp_path}/store-h1')
        host.start()
        disks = [power.Disk(tmp_path / name, monkeypatch) for name in ('state-h1', 'store-h1')]
        cluster.hosts['h2'].engine.save_s = 3
        snapshot = cluster.snapshots.create(cluster.request())
        clusters.until(lambda: 'saved' in host.phases())

        host.kill()
        for disk in disks:
            disk.lose_power()
            disk.close()
        host.start()

        assert cluster.snapshots.wait(snapshot, 60)
        assert cluster.snapshots.get(snapshot).status == 'available'
        host.store.verify(snapshot)
