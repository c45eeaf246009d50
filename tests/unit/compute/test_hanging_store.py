# SPDX-License-Identifier: Apache-2.0
"""A store that hangs keeps no guest, whatever is asked of it."""

import threading

import pytest

from hotsnap_nova import exception
from hotsnap_nova.compute import background, manager
from hotsnap_nova.protocol import commands
from hotsnap_nova.storage import digest
from tests.fakes import cluster as clusters


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    monkeypatch.setattr(background, '_PATIENCE_S', 0.1)
    monkeypatch.setattr(manager, '_SWEEP_S', 0.1)
    with clusters.Cluster(tmp_path, {'h1': 'a'}) as made:
        yield made


@pytest.fixture
def host(cluster):
    return cluster.hosts['h1']


@pytest.fixture
def hang(host):
    """Has a method of the store hang; what is returned lets it go on, as the test's end does."""
    goes_on = []

    def hang(method):
        real, event = getattr(host.store, method), threading.Event()
        setattr(host.store, method, lambda *args: (event.wait(60), real(*args))[1])
        goes_on.append(event)
        return event
    yield hang
    for event in goes_on:
        event.set()


def is_free(cluster, host):
    claimed = host.manager.holds(cluster.world.spec('a').id)
    return not claimed and not cluster.world.guest('a')['left']


def saving(cluster, host):
    snapshot = cluster.snapshots.create(cluster.request())
    clusters.until(lambda: 'saving' in host.phases())
    return snapshot


def test_a_guest_is_free_while_the_files_of_its_snapshot_cannot_be_removed(cluster, host, hang):
    host.engine.save_s = 30
    goes_on = hang('discard')
    snapshot = saving(cluster, host)

    cluster.snapshots.abort(snapshot, 'its user')

    clusters.until(lambda: is_free(cluster, host))
    assert host.phases() == {'discarding'}
    assert not cluster.snapshots.wait(snapshot, 0)    # it is asked for until it is done
    goes_on.set()
    assert cluster.snapshots.wait(snapshot, 30)
    assert cluster.clean()


def test_a_guest_is_free_while_its_snapshot_cannot_be_published(cluster, host, hang):
    goes_on = hang('publish')
    snapshot = cluster.snapshots.create(cluster.request())

    clusters.until(lambda: 'finishing' in host.phases())
    clusters.until(lambda: is_free(cluster, host))

    goes_on.set()
    assert cluster.snapshots.wait(snapshot, 30)
    assert cluster.snapshots.get(snapshot).status == 'available'


def test_what_is_discarded_is_read_no_further(cluster, host, monkeypatch):
    """With a limit, the digest of a large disk takes hours."""
    begun, ends, given_up = threading.Event(), threading.Event(), []

    def digest_for_ever(_fd, on_bytes, _reading):
        begun.set()
        while not ends.wait(0.01):
            try:
                on_bytes(1)
            except exception.Aborted:
                given_up.append(True)
                raise
    monkeypatch.setattr(digest, 'file_digest', digest_for_ever)
    snapshot = cluster.snapshots.create(cluster.request())
    assert begun.wait(30)

    cluster.snapshots.abort(snapshot, 'its user')

    assert cluster.snapshots.wait(snapshot, 60)
    ends.set()
    assert given_up
    assert cluster.clean()


def test_a_guests_owner_does_not_wait_for_files_to_be_removed(cluster, host, hang):
    host.engine.save_s = 30
    hang('discard')
    snapshot = saving(cluster, host)
    cluster.snapshots.abort(snapshot, 'its user')
    clusters.until(lambda: is_free(cluster, host))

    withdrawing = threading.Thread(
        target=host.manager.withdraw, args=(cluster.world.spec('a').id, 'it is rebooted'))
    withdrawing.start()
    withdrawing.join(10)

    assert not withdrawing.is_alive()


def test_nothing_is_claimed_for_a_snapshot_that_the_store_cannot_begin(cluster, host, hang):
    hang('begin')
    cluster.snapshots.create(cluster.request())

    clusters.until(lambda: 'preparing' in host.phases())

    assert is_free(cluster, host)


def test_a_host_starts_although_what_is_left_cannot_be_removed(cluster, host, hang):
    host.engine.save_s = 30
    saving(cluster, host)
    cluster.snapshots.leave()
    host.kill()
    hang('discard')

    starting = threading.Thread(target=host.start)
    starting.start()
    starting.join(30)

    assert not starting.is_alive()
    assert is_free(cluster, host)


def test_a_host_that_starts_ends_a_restore_although_its_store_hangs(cluster, host, hang):
    row = cluster.create()
    host.die_at('let_run')
    cluster.snapshots.begin_restore(row, cluster.snapshots.plan_restore(row))
    clusters.until(lambda: cluster.world.guest('a')['resumed'])
    host.kill()
    assert cluster.world.guest('a')['state'] == 'paused'
    goes_on = hang('drafts')

    host.start()

    assert cluster.snapshots.wait(row.id, 60)
    assert cluster.world.guest('a')['state'] == 'running'
    goes_on.set()
    clusters.until(cluster.clean)


def test_a_save_that_begins_while_it_is_discarded_leaves_nothing(cluster, host):
    participants = host.manager._participants
    begins, goes_on, ended = threading.Event(), threading.Event(), threading.Event()
    real = participants._save

    def save(command):
        begins.set()
        goes_on.wait(60)
        try:
            return real(command)
        finally:
            ended.set()
    participants._runner._executors[commands.SaveMembers] = save
    snapshot = cluster.snapshots.create(cluster.request())
    assert begins.wait(30)
    cluster.snapshots.abort(snapshot, 'its user')
    assert cluster.snapshots.wait(snapshot, 30)

    goes_on.set()

    assert ended.wait(30)
    assert 'save' not in host.engine.calls
    assert cluster.clean()
    assert not participants._works
