# SPDX-License-Identifier: Apache-2.0
"""What is deleted stays deleted, in whatever it was interrupted and whoever fails at it."""

import contextlib

import pytest

from hotsnap_nova import exception
from hotsnap_nova.conductor import errands
from hotsnap_nova.protocol import messages
from tests.fakes import cluster as clusters

AWAY = exception.HypervisorError(member='c', reason='libvirt is restarted')


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Hosts that are away are given up soon."""
    monkeypatch.setattr(errands, '_CALL_S', 0.5)
    monkeypatch.setattr(errands, '_ATTEMPT_S', 1.0)


def settle(cluster):
    """Have all that hosts owe be done."""
    def is_done():
        with contextlib.suppress(exception.HotsnapError):
            cluster.snapshots.errands.run()
        return not cluster.database.errands()
    clusters.until(is_done)


def is_gone(cluster):
    return (cluster.database.list() == () and cluster.clean()
            and not any(host.store.list() for host in cluster.hosts.values()))


def test_by_force_nothing_stays_of_what_a_host_has_yet_to_publish(cluster):
    """It has the files of its part, and the other host has published them all."""
    first, second = cluster.hosts.values()
    second.engine.faults['finish'] = AWAY
    snapshot = cluster.snapshots.create(cluster.request())
    clusters.until(lambda: first.store.list() == (snapshot,) and not first.left())
    second.silence()
    row = cluster.database.get(snapshot)
    assert (row.status, row.decision, row.closed) == ('creating', 'finish', False)

    cluster.coordinator('other').begin_delete(row, force=True)
    assert cluster.database.list() == ()
    second.kill()
    second.start()

    settle(cluster)
    assert is_gone(cluster)


@pytest.mark.parametrize('force', [True, False])
def test_a_deletion_that_failed_makes_nothing_available_again(cluster, monkeypatch, force):
    row = cluster.create()
    store = cluster.hosts['h2'].store
    with monkeypatch.context() as broken:
        broken.setattr(store, 'delete', lambda _snapshot: (_ for _ in ()).throw(
            exception.StoreUnavailable(store='/nfs', reason='stale handle')))
        cluster.snapshots.begin_delete(row, force=force)
        heir = cluster.coordinator('heir')
        left = [] if force else ['error_deleting']
        clusters.until(lambda: [each.status for each in heir.list()] == left
                       and any(each.attempts for each in cluster.database.errands('h2')))

        assert heir.recover() == ()
        assert [each.status for each in heir.list()] == left

    settle(cluster)
    assert is_gone(cluster)


def test_a_restore_that_cannot_be_undone_yet_is_not_taken_up_after_its_deletion(cluster):
    row = cluster.create()
    engine = cluster.hosts['h2'].engine
    engine.faults['restore_start'] = engine.faults['restore_undo'] = AWAY
    cluster.snapshots.begin_restore(row, cluster.snapshots.plan_restore(row))
    clusters.until(lambda: 'restore_undo' in engine.calls)

    cluster.snapshots.begin_delete(cluster.database.get(row.id), force=True)

    heir = cluster.coordinator('heir')
    assert heir.recover() == ()
    assert heir.list() == ()
    engine.faults.clear()
    settle(cluster)
    assert is_gone(cluster)


def test_the_end_of_a_snapshot_that_fails_is_in_no_other_snapshots_way(cluster):
    other = cluster.create('other')
    cluster.hosts['h1'].engine.faults['discard'] = AWAY
    kind, detail = errands.of(messages.Discard('gone', 99, 'h1', 'g', (
        messages.Member(cluster.world.spec('a').id, 'a'),)))
    cluster.database.add_errand('gone', 'h1', kind, detail)
    cluster.database.add_errand(other.id, 'h1', errands.DELETE, {})

    with pytest.raises(exception.HotsnapError):
        cluster.snapshots.errands.run()

    assert [each.snapshot_id for each in cluster.database.errands('h1')] == ['gone']
