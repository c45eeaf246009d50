# SPDX-License-Identifier: Apache-2.0
"""A restore that keeps the present first: both, or nothing but perhaps the snapshot."""

import threading

import pytest

from hotsnap_nova import exception
from hotsnap_nova.conductor import errands, keeping, rows
from hotsnap_nova.protocol import messages
from hotsnap_nova.protocol.restore import messages as restores
from tests.fakes import cluster as clusters


class Gate:
    """Where a host's engine stands at a method until it is let go on."""

    def __init__(self, engine, method):
        self.reached, goes_on = threading.Event(), threading.Event()
        self.open = goes_on.set

        def stand(_about):
            self.reached.set()
            assert goes_on.wait(60)
        engine.faults[method] = stand


def begin(cluster, row, coordinator=None, name='before'):
    """Have a restore go on that keeps the present first; the id of that snapshot."""
    coordinator = coordinator or cluster.snapshots
    return coordinator.begin_restore_keeping(
        row, coordinator.plan_restore(row), cluster.request(name),
        look_again=lambda: errands.must_not_be_owed(cluster.database, row))


def restore(cluster, name='nightly', keep='before', **more):
    cluster.snapshots.restore(name, present=cluster.request(keep), **more)


def disks(cluster):
    return {cluster.world.guest(name)['disk'] for name, _ in cluster.members}


def was_touched(cluster):
    """Whether any host came as far as to prepare a restore."""
    return any('restore_prepare' in engine.calls for engine in cluster.engines())


def test_a_restore_that_was_a_mistake_is_undone_by_the_snapshot_that_it_made_first(cluster):
    nightly = cluster.create()

    restore(cluster)

    assert disks(cluster) == {nightly.id}
    before, done = cluster.snapshots.get('before'), cluster.snapshots.get('nightly').last_action
    assert (before.status, before.group_id) == ('available', nightly.group_id)
    assert (done['status'], done['result']) == ('done', {'kept_present': before.id})
    cluster.snapshots.restore('before')
    assert disks(cluster) == {before.id}
    assert cluster.clean()


def test_nothing_is_prepared_before_the_present_is_kept(cluster):
    cluster.create()
    status = []
    for host in cluster.hosts.values():
        host.engine.faults['restore_prepare'] = lambda _work: status.append(
            cluster.snapshots.get('before').status)

    restore(cluster)

    assert status == ['available', 'available']


@pytest.mark.parametrize('method', ['record', 'save'])
def test_where_the_present_cannot_be_kept_nothing_is_restored(cluster, method):
    cluster.create()
    cluster.hosts['h2'].engine.faults[method] = exception.TargetFailed(
        member=cluster.world.spec('c'), device='vda', reason='the store is full')

    with pytest.raises(keeping.PresentNotKept, match='the store is full') as told:
        restore(cluster)

    assert told.value.kwargs['member'] == cluster.world.spec('c').id
    assert not was_touched(cluster)
    assert cluster.snapshots.get('before').status == 'error'
    assert cluster.clean()


@pytest.mark.parametrize('ill', [
    lambda cluster: cluster.create('before'),    # the name is taken
    lambda cluster: cluster.world.kill('c')])    # what does not run has no memory to keep
def test_what_can_be_refused_is_refused_at_once_and_the_row_is_as_it_was(cluster, ill):
    nightly = cluster.create()
    ill(cluster)

    with pytest.raises((exception.NameTaken, exception.GuestNotRunning)):
        restore(cluster)

    found = cluster.database.get(nightly.id)
    assert (found.last_action or None, found.action_status, found.lease_owner) == (None,) * 3
    assert not was_touched(cluster)


def test_who_asks_a_second_time_meanwhile_is_told_that_it_is_busy(cluster):
    row = cluster.create()
    stands = Gate(cluster.hosts['h1'].engine, 'save')
    begin(cluster, row)
    assert stands.reached.wait(60)

    with pytest.raises(exception.SnapshotBusy, match='busy'):
        cluster.snapshots.restore('nightly')
    with pytest.raises(exception.StaleGeneration):
        begin(cluster, row, name='another')

    stands.open()
    assert cluster.snapshots.wait(row.id, 60)
    assert disks(cluster) == {row.id}
    assert [each.name for each in cluster.database.list()] == ['before', 'nightly']


@pytest.mark.parametrize('by', ['mine', 'other'])
def test_an_abort_while_the_present_is_kept_ends_both(cluster, by):
    row = cluster.create()
    stands = Gate(cluster.hosts['h1'].engine, 'save')
    begin(cluster, row)
    assert stands.reached.wait(60)

    (cluster.snapshots if by == 'mine' else cluster.coordinator(by)).abort(row.id, 'its user')

    clusters.until(lambda: cluster.database.get(row.id).action_status == 'failed')
    assert cluster.database.get(row.id).last_action['error']['code'] == 'aborted'
    stands.open()
    clusters.until(lambda: cluster.snapshots.get('before').closed)
    assert cluster.snapshots.get('before').status == 'error'
    assert cluster.snapshots.wait(row.id, 60)
    assert not was_touched(cluster)
    assert cluster.clean()


def test_an_abort_while_hosts_are_asked_once_more_ends_it_at_once(cluster):
    row = cluster.create()
    asked = Gate(cluster.hosts['h1'].engine, 'restore_check')
    begin(cluster, row)
    assert asked.reached.wait(60)

    cluster.snapshots.abort(row.id, 'its user')

    clusters.until(lambda: cluster.database.get(row.id).action_status == 'failed')
    asked.open()
    assert cluster.snapshots.wait(row.id, 60)
    assert cluster.database.get(row.id).status == rows.AVAILABLE
    assert cluster.snapshots.get('before').status == 'available'    # there it is: it stays
    assert not was_touched(cluster)


def test_what_stands_in_the_way_by_then_is_told_and_the_snapshot_stays(cluster):
    row = cluster.create()
    cluster.hosts['h2'].engine.faults['restore_check'] = exception.Refused(
        member=cluster.world.spec('c'), device='vda', cause='it grew', remedy='shrink it')
    begin(cluster, row)

    assert cluster.snapshots.wait(row.id, 60)

    action = cluster.database.get(row.id).last_action
    assert (action['status'], action['error']['code']) == ('failed', 'refused')
    assert cluster.database.get(action['result']['kept_present']).status == 'available'
    assert not was_touched(cluster)


def test_a_host_that_owes_the_end_of_another_restore_by_then_is_given_no_other(cluster):
    row, other = cluster.create(), cluster.create('other')
    stands = Gate(cluster.hosts['h1'].engine, 'save')
    begin(cluster, row)
    assert stands.reached.wait(60)
    planned = cluster.snapshots.plan_restore(other)
    cluster.database.add_errand(other.id, 'h2', *errands.of(restores.Order(
        planned.restore, 'h2', restores.Step.UNDO, dict(planned.hosts)['h2'])))

    stands.open()

    assert cluster.snapshots.wait(row.id, 60)
    error = cluster.database.get(row.id).last_action['error']
    assert (error['code'], error['host']) == ('snapshot_busy', 'h2')
    assert cluster.snapshots.get('before').status == 'available'
    assert not was_touched(cluster)


def test_a_present_that_a_host_has_yet_to_publish_is_not_kept_yet(cluster):
    row = cluster.create()
    stands = Gate(cluster.hosts['h1'].engine, 'save')
    kept = begin(cluster, row)
    assert stands.reached.wait(60)
    cluster.database.add_errand(kept, 'removed', *errands.of(messages.Finish(kept, 2, 'removed')))

    stands.open()

    assert cluster.snapshots.wait(row.id, 60)
    error = cluster.database.get(row.id).last_action['error']
    assert (error['code'], error['host']) == ('snapshot_busy', 'removed')
    assert not was_touched(cluster)


def test_where_the_coordinator_dies_meanwhile_nothing_is_restored(cluster):
    dying = cluster.coordinator('dying')
    row = cluster.create()
    stands = Gate(cluster.hosts['h1'].engine, 'save')
    begin(cluster, row, dying)
    assert stands.reached.wait(60)
    dying.leave()

    heir = cluster.coordinator('heir', is_dead=lambda owner: owner.startswith('dying/'))
    heir.recover()

    stands.open()
    clusters.until(lambda: cluster.snapshots.get('before').closed)
    action = cluster.database.get(row.id).last_action
    assert (action['status'], action['error']['code']) == ('failed', 'aborted')
    assert action['result']['kept_present'] == cluster.snapshots.get('before').id
    assert not was_touched(cluster)
    heir.close()
    cluster.snapshots.restore('nightly')
    assert disks(cluster) == {row.id}


@pytest.mark.parametrize('which', ['nightly', 'before'])
def test_where_either_is_deleted_by_force_meanwhile_nothing_is_restored(cluster, which):
    row = cluster.create()
    stands = Gate(cluster.hosts['h1'].engine, 'save')
    begin(cluster, row)
    assert stands.reached.wait(60)

    cluster.snapshots.begin_delete(cluster.snapshots.get(which), force=True)

    stands.open()
    assert cluster.snapshots.wait(row.id, 60)
    clusters.until(lambda: not cluster.database.errands() or cluster.snapshots.errands.run())
    assert not was_touched(cluster)
    left, = cluster.database.list()
    if which == 'before':
        assert left.last_action['error']['code'] == 'present_not_kept'
    else:
        clusters.until(lambda: cluster.database.get(left.id).status == 'available')


def test_a_database_that_is_away_for_a_moment_costs_a_moment(cluster, monkeypatch):
    row = cluster.create()
    stands = Gate(cluster.hosts['h1'].engine, 'save')
    kept = begin(cluster, row)
    assert stands.reached.wait(60)
    real, away = cluster.database.get, iter((True, True))

    def get(name):
        if name == kept and next(away, False):
            raise exception.DatabaseUnavailable(reason='gone away')
        return real(name)
    monkeypatch.setattr(cluster.database, 'get', get)

    stands.open()

    assert cluster.snapshots.wait(row.id, 60)
    assert next(away, None) is None
    assert disks(cluster) == {row.id}
