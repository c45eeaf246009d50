# SPDX-License-Identifier: Apache-2.0
"""A verification's end is told once, by whoever the row belongs to."""

import threading

import pytest

from hotsnap_nova import exception
from hotsnap_nova.conductor import snapshots
from tests.fakes import cluster as clusters


class Meddled:
    """A coordinator's database, of which methods can be away."""

    def __init__(self, real):
        self._real, self.away = real, set()

    def __getattr__(self, name):
        real = getattr(self._real, name)

        def call(*args, **kwargs):
            if name in self.away:
                raise exception.DatabaseUnavailable(reason='gone away')
            return real(*args, **kwargs)
        call.__name__ = name
        return call


@pytest.fixture
def database(cluster):
    return Meddled(cluster.database)


@pytest.fixture
def mine(cluster, database):
    return snapshots.Snapshots(database, cluster.compute, 'mine')


class Standing:
    """The first verification of h1 stands until it is let go on, and finds damage."""

    def __init__(self, store, monkeypatch):
        self.reached, self.goes_on, real = threading.Event(), threading.Event(), store.verify

        def verify(snapshot, *args):
            if self.reached.is_set():
                return real(snapshot, *args)
            self.reached.set()
            self.goes_on.wait(60)
            raise exception.SnapshotDamaged(
                snapshot=snapshot, member='a', file='vda.qcow2', reason='it is another')
        monkeypatch.setattr(store, 'verify', verify)


@pytest.fixture
def standing(cluster, monkeypatch):
    made = Standing(cluster.hosts['h1'].store, monkeypatch)
    yield made
    made.goes_on.set()


def test_who_stood_still_says_nothing_of_what_is_anothers_by_now(
        cluster, database, mine, standing):
    row = cluster.create()
    mine.begin_verify(row, 'req-1')
    assert standing.reached.wait(60)
    database.away |= {'renew_lease', 'abort_requested'}    # it hears of no take-over
    heir = cluster.coordinator('heir', is_dead=lambda owner: owner.startswith('mine/'))
    assert heir.recover() == (row.id,)
    given_up = cluster.database.get(row.id)
    assert given_up.last_action['error']['code'] == 'aborted'
    heir.begin_verify(given_up, 'req-2')
    assert heir.wait(row.id, 60)

    standing.goes_on.set()

    assert mine.wait(row.id, 60)
    action = cluster.database.get(row.id).last_action
    assert (action['request_id'], action['status'], action['error']) == ('req-2', 'done', None)


def test_a_verdict_outlives_a_database_that_is_away_for_a_moment(
        cluster, database, mine, standing):
    row = cluster.create()
    mine.begin_verify(row, 'req-1')
    database.away.add('compare_and_swap')
    standing.goes_on.set()
    assert not mine.wait(row.id, 1.5)

    database.away.clear()

    assert mine.wait(row.id, 60)
    action = cluster.database.get(row.id).last_action
    assert (action['request_id'], action['error']['code']) == ('req-1', 'snapshot_damaged')
    assert cluster.database.get(row.id).lease_owner is None


def test_an_abort_ends_a_verification_that_hangs(cluster, mine, standing):
    row = cluster.create()
    mine.begin_verify(row, 'req-1')
    assert standing.reached.wait(60)

    cluster.coordinator('other').abort(row.id, 'its user')

    assert mine.wait(row.id, 30)
    clusters.until(lambda: cluster.database.get(row.id).action_status == 'failed')
    assert cluster.database.get(row.id).last_action['error']['code'] == 'aborted'
