# SPDX-License-Identifier: Apache-2.0
"""A verification's end is told once, by whoever the row belongs to."""

import pathlib
import threading

import blake3
import pytest

from hotsnap_nova import exception
from hotsnap_nova.conductor import snapshots
from hotsnap_nova.storage import base
from hotsnap_nova.storage import manifest as manifests
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


def rewritten(host, row, change):
    """Somebody else who can write to a host's store changes a manifest, and its digest."""
    path = pathlib.Path(f'{host.store.root}/{row.id}/{base.MANIFEST}')
    told = manifests.load(path.read_bytes(), row.id)
    change(told, path.parent)
    path.write_bytes(manifests.dump(told))


def with_another_disk(told, folder):
    """A disk of another content, whose digest is in the manifest."""
    member = told['members'][0]
    content = b'mine'
    (folder / member['id'] / 'vda.qcow2').write_bytes(content)
    for file in member['files']:
        if file['name'] == 'vda.qcow2':
            file |= {'size_bytes': len(content), 'blake3': blake3.blake3(content).hexdigest()}


def without_a_member(told, folder):
    """As though its files had never been there."""
    lost = told['members'].pop(0)
    if 'kept_here' in told:
        told['kept_here'].remove(lost['id'])
    for file in (folder / lost['id']).iterdir():
        file.unlink()
    (folder / lost['id']).rmdir()


FORGED = [(with_another_disk, 'not said when the snapshot was made'),
          (without_a_member, 'its store does not name it')]


@pytest.mark.parametrize(('forge', 'reason'), FORGED, ids=['content', 'member'])
def test_digests_and_members_are_the_databases_and_not_what_a_store_says(cluster, forge, reason):
    row = cluster.create()
    rewritten(cluster.hosts['h1'], row, forge)

    with pytest.raises(exception.SnapshotDamaged, match=reason):
        cluster.snapshots.verify('nightly')

    cluster.snapshots.begin_verify(cluster.database.get(row.id), 'req-1')
    assert cluster.snapshots.wait(row.id, 60)
    action = cluster.database.get(row.id).last_action
    assert (action['status'], action['error']['code']) == ('failed', 'snapshot_damaged')


def test_where_the_database_has_no_digests_the_manifests_are_believed(cluster):
    row = cluster.create()
    cluster.database.update_members(row.id, {each.member_id: {'detail': {}}
                                             for each in row.members})
    rewritten(cluster.hosts['h1'], row, with_another_disk)

    assert cluster.snapshots.verify('nightly')['files'] == 9
