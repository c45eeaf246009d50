# SPDX-License-Identifier: Apache-2.0
"""What hosts owe: in nobody else's way, whatever it is and whoever hangs."""

import threading

import pytest

from hotsnap_nova import exception
from hotsnap_nova.conductor import deletion, errands
from tests.fakes import cluster as clusters


class Compute:
    """Hosts, of which some hang in each deletion until they may go on."""

    def __init__(self, hanging):
        self.hanging, self.goes_on, self.done = hanging, threading.Semaphore(0), threading.Event()

    def delete(self, host, _snapshot, _timeout_s):
        if host not in self.hanging:
            self.done.set()
            return
        assert self.goes_on.acquire(timeout=60)
        raise exception.HypervisorError(member='a', reason='the store hangs')


def test_a_host_waits_for_one_errand_of_others_and_not_for_all_they_owe(cluster):
    hanging = [f'hangs{number}' for number in range(4)]
    for number in range(20):
        for host in hanging:
            cluster.database.add_errand(f's{number}', host, errands.DELETE, {})
    cluster.database.add_errand('s', 'well', errands.DELETE, {})
    compute = Compute(hanging)
    doing = errands.Errands(cluster.database, compute, 'me')

    doing.begin([*hanging, 'well'])
    compute.goes_on.release(errands._AT_ONCE)    # one errand of each thread

    assert compute.done.wait(60)
    compute.goes_on.release(100)
    doing.close(60)


@pytest.mark.parametrize('detail', [{'v': 2}, {'v': 1, 'kind': 'Later'}, [], {
    'v': 1, 'kind': []}])
def test_an_errand_of_another_version_is_in_the_way_of_its_own_snapshot_alone(cluster, detail):
    row = cluster.create()
    cluster.database.add_errand('another', 'h1', errands.ORDER, detail)
    cluster.snapshots.restore('nightly')

    cluster.database.add_errand(row.id, 'h1', errands.ORDER, detail)

    with pytest.raises(exception.SnapshotBusy, match='h1 has yet to do what this version does'):
        cluster.snapshots.restore('nightly')


def test_a_deletion_that_hangs_is_begun_once_however_often_it_is_asked_for(
        cluster, monkeypatch):
    row, goes_on, begun = cluster.create(), threading.Event(), []
    store = cluster.hosts['h1'].store
    real = store.delete
    monkeypatch.setattr(store, 'delete', lambda snapshot: (
        begun.append(snapshot), goes_on.wait(60), real(snapshot)))
    monkeypatch.setattr(errands, '_ATTEMPT_S', 0.2)
    cluster.database.add_errand(row.id, 'h1', errands.DELETE, {})

    for _ in range(3):
        with pytest.raises(exception.HostUnreachable, match='not done yet'):
            cluster.snapshots.errands.run()

    assert begun == [row.id]
    goes_on.set()
    clusters.until(lambda: store.list() == ())
    cluster.snapshots.errands.run()
    assert cluster.database.errands() == ()


@pytest.fixture
def lone(tmp_path):
    """Of one host: no other is slow while this one is waited for."""
    with clusters.Cluster(tmp_path, {'h2': 'a'}) as made:
        yield made


def test_a_deletion_that_hangs_for_long_is_shown_with_its_reason(lone, monkeypatch):
    row, goes_on = lone.create(), threading.Event()
    store = lone.hosts['h2'].store
    real = store.delete
    monkeypatch.setattr(store, 'delete', lambda snapshot: (goes_on.wait(60), real(snapshot)))
    monkeypatch.setattr(errands, '_ATTEMPT_S', 0.1)
    deletion.begin(lone.database, row)
    seen = []

    for patience in (5, 0):
        monkeypatch.setattr(errands, '_PATIENT_ATTEMPTS', patience)
        with pytest.raises(exception.HostUnreachable, match='h2.*see whether its store hangs'):
            lone.snapshots.errands.run()
        seen.append(lone.database.get(row.id))

    assert [each.status for each in seen] == ['deleting', 'error_deleting']
    assert 'see whether its store hangs' in seen[1].error_message
    assert seen[1].error_host == 'h2'
    goes_on.set()
