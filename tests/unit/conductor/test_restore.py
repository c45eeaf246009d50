# SPDX-License-Identifier: Apache-2.0
"""A group comes back whole, or is left as it was."""

import os
import threading
import time

import pytest

from hotsnap_nova import exception
from hotsnap_nova.compute import locks
from hotsnap_nova.compute import stepwise as restores_here
from hotsnap_nova.conductor import restore as restores
from tests.fakes import cluster as clusters

BEFORE = ('restore_check', 'restore_prepare', 'restore_stop', 'restore_start')


def _guests(cluster):
    return {name: cluster.world.guest(name) for name, _ in cluster.members}


def _steps(cluster):
    return [[call for call in engine.calls if call.startswith('restore_')]
            for engine in cluster.engines()]


def test_all_members_run_on_the_disks_of_the_cut(cluster):
    row = cluster.create()

    cluster.snapshots.restore('nightly')

    guests = _guests(cluster)
    assert {guest['disk'] for guest in guests.values()} == {row.id}
    assert {guest['old_disk'] for guest in guests.values()} == {'own'}
    assert cluster.clean()
    assert cluster.snapshots.get('nightly').status == 'available'


def test_a_killed_group_comes_back(cluster):
    cluster.create()
    with cluster.world.open() as guests:
        for guest in guests.values():
            guest['state'] = 'shut off'

    cluster.snapshots.restore('nightly')

    assert cluster.clean()


def test_each_host_restores_its_own_members_alone_of_a_store_they_share(cluster):
    cluster.create()
    here = {}
    for name, host in cluster.hosts.items():
        def prepare(work, name=name, prepare=host.engine.restore_prepare):
            here[name] = {member.spec.name for member in work.members}
            return prepare(work)
        host.engine.restore_prepare = prepare

    cluster.snapshots.restore('nightly')

    places = {}
    for member, host in cluster.members:
        places.setdefault(host, set()).add(member)
    assert len(places) > 1
    assert here == places


def test_paused_leaves_the_members_at_the_cut(cluster):
    cluster.create()

    cluster.snapshots.restore('nightly', paused=True)

    assert {guest['state'] for guest in _guests(cluster).values()} == {'paused'}
    assert not any('restore_resume' in steps for steps in _steps(cluster))


@pytest.mark.parametrize('step', ['stop', 'start', 'resume'])
def test_no_host_begins_a_step_before_all_have_ended_the_one_before(cluster, step):
    cluster.create()
    order = []
    for name, host in cluster.hosts.items():
        for each in BEFORE + ('restore_resume',):
            host.engine.faults[each] = lambda _work, name=name, each=each: order.append(each)

    cluster.snapshots.restore('nightly')

    before = order[:order.index(f'restore_{step}')]
    assert all(before.count(each) == 2 for each in set(before))


@pytest.mark.parametrize('step', BEFORE)
def test_failure_before_the_decision_puts_the_old_disks_back(cluster, step):
    cluster.create()
    cluster.hosts['h2'].engine.faults[step] = exception.HypervisorError(
        member='c', reason='no')

    with pytest.raises(exception.HypervisorError, match='c: no'):
        cluster.snapshots.restore('nightly')

    assert {guest['disk'] for guest in _guests(cluster).values()} == {'own'}
    assert not any('restore_resume' in steps for steps in _steps(cluster))
    if step in BEFORE[:2]:
        assert cluster.clean()
    assert not any(host.left() for host in cluster.hosts.values())
    assert cluster.snapshots.get('nightly').status == 'available'


@pytest.mark.parametrize('file', ['memory.save', 'vda.qcow2', 'manifest.json'])
def test_damage_is_found_before_anything_is_stopped(cluster, file):
    row = cluster.create()
    member = cluster.world.spec('c')
    place = f'{cluster.folder}/store/{row.id}'
    path = f'{place}/{file}' if file == 'manifest.json' else f'{place}/{member.id}/{file}'
    with open(path, 'r+b') as content:
        content.write(b'?')

    with pytest.raises((exception.SnapshotDamaged, exception.ManifestDamaged)):
        cluster.snapshots.restore('nightly')

    assert not any('restore_stop' in steps for steps in _steps(cluster))
    assert cluster.clean()


def test_a_member_in_another_snapshot_is_not_restored(cluster):
    cluster.create()
    cluster.hosts['h1'].engine.save_s = 2.0
    second = cluster.snapshots.create(cluster.request('two', members=(('a', 'h1'),)))
    clusters.until(lambda: 'saving' in cluster.hosts['h1'].phases())

    with pytest.raises(exception.GuestBusy, match='a'):
        cluster.snapshots.restore('nightly')

    assert not any('restore_stop' in steps for steps in _steps(cluster))
    cluster.snapshots.wait(second)
    assert cluster.snapshots.get('two').status == 'available'
    assert cluster.clean()


def test_an_unwanted_restore_is_undone(cluster):
    cluster.create()
    asked = []

    def is_unwanted():
        asked.append(cluster.world.guest('a')['state'])
        return asked[-1] == 'shut off'

    with pytest.raises(exception.Aborted):
        cluster.snapshots.restore('nightly', is_unwanted=is_unwanted)

    assert {guest['disk'] for guest in _guests(cluster).values()} == {'own'}
    assert not any('restore_resume' in steps for steps in _steps(cluster))


@pytest.mark.parametrize(('dies_at', 'disk'), [
    *((step.removeprefix('restore_'), 'own') for step in BEFORE[1:]), ('resume', 'snapshot'),
    ('finish', 'snapshot')])
def test_a_restore_whose_coordinator_died_is_ended_by_the_next(cluster, dies_at, disk,
                                                               monkeypatch):
    row = cluster.create()
    real = restores.Restore._do

    def do(self, step, *args, **more):
        done = real(self, step, *args, **more)
        if step == dies_at:
            monkeypatch.setattr(restores.Restore, '_do', lambda *args, **more: ({}, {}))
            monkeypatch.setattr(restores.Restore, '_end', lambda *args: None)
            raise KeyboardInterrupt
        return done
    monkeypatch.setattr(restores.Restore, '_do', do)
    end = restores.Restore._end
    with pytest.raises(KeyboardInterrupt):
        cluster.snapshots.restore('nightly')
    monkeypatch.setattr(restores.Restore, '_do', real)
    monkeypatch.setattr(restores.Restore, '_end', end)
    assert cluster.snapshots.get('nightly').status == 'restoring'
    for host in cluster.hosts.values():
        host.kill()
        host.start()
    heir = cluster.coordinator('heir', is_dead=lambda owner: owner == 'first')

    assert heir.recover() == (row.id,)

    expected = {'own': 'own', 'snapshot': row.id}[disk]
    assert {guest['disk'] for guest in _guests(cluster).values()} == {expected}
    assert heir.get('nightly').status == 'available'
    assert not any(host.left() for host in cluster.hosts.values())
    if disk == 'snapshot':
        assert {guest['state'] for guest in _guests(cluster).values()} == {'running'}


def test_a_long_step_keeps_its_lease(cluster):
    cluster.create()
    mine = cluster.coordinator('mine', lease_s=1.0)
    heirs = []

    def slow(_work):
        ends = time.monotonic() + 2.5
        while time.monotonic() < ends:
            heirs.append(cluster.coordinator('heir').recover())
            time.sleep(0.05)
    cluster.hosts['h1'].engine.faults['restore_prepare'] = slow

    mine.restore('nightly')

    assert set(heirs) == {()}
    assert cluster.clean()


def test_a_restore_that_was_taken_over_is_not_undone_twice(cluster):
    row = cluster.create()
    mine = cluster.coordinator('mine', lease_s=1.0)

    def stolen(_work):
        assert cluster.database.take_lease(row.id, 'heir', 3600, force=True)
        time.sleep(1.0)
    cluster.hosts['h1'].engine.faults['restore_stop'] = stolen

    with pytest.raises(exception.LeaseHeld):
        mine.restore('nightly')

    assert not any('restore_undo' in steps for steps in _steps(cluster))
    assert cluster.snapshots.get('nightly').status == 'restoring'


def test_a_live_restore_is_not_undone_by_another_process(cluster):
    row = cluster.create()
    first = clusters.Host('h1', cluster.folder, cluster.transport, cluster.world)
    first.manager_only()
    seen = []

    def meddle(_work):
        state = f'{cluster.folder}/state-h1'
        other = restores_here.Restores(first.name, first.engine, first.store, state,
                                       locks.Locks(f'{state}/locks'))
        with pytest.raises(exception.GuestBusy):
            other.do('undo', row.id, 'any', False, lambda *done: None)
        seen.append(first.engine.calls)
    cluster.hosts['h1'].engine.faults['restore_start'] = meddle

    cluster.snapshots.restore('nightly')

    assert 'restore_undo' not in seen[0]
    assert cluster.clean()


def test_what_an_undo_could_not_undo_is_told(cluster):
    cluster.create()
    # Somebody starts it on the disk of the cut, which is in its place by now.
    cluster.hosts['h2'].engine.faults['load'] = cluster.world.boot

    with pytest.raises(exception.RestoreNotUndone) as told:
        cluster.snapshots.restore('nightly')

    assert 'c was left as it is: it runs on the disk of the cut' in str(told.value)
    assert 'already active' in str(told.value)
    assert not cluster.world.misplaced()
    assert cluster.snapshots.get('nightly').status == 'available'


def test_what_is_being_restored_cannot_be_deleted(cluster):
    row = cluster.create()
    cluster.database.compare_and_swap(row.id, row.generation, status='restoring')

    with pytest.raises(exception.SnapshotBusy):
        cluster.snapshots.delete('nightly')


@pytest.fixture
def first(cluster):
    """Does steps of a restore on the first host, whose guests are a and b."""
    row = cluster.create()
    return lambda *steps: [cluster.compute.restore('h1', step, row.id, 'restore-1', False)
                           for step in steps]


def test_what_was_undone_goes_no_further_whoever_orders_it(cluster, first):
    first('prepare', 'undo')

    for step in ('prepare', 'stop', 'start'):
        with pytest.raises(exception.Aborted):
            first(step)

    assert cluster.clean()


def test_a_guest_that_its_owner_took_back_is_not_started(cluster, first):
    first('prepare', 'stop')

    cluster.hosts['h1'].manager.withdraw(cluster.world.spec('a').id, 'it is deleted')

    with pytest.raises(exception.Aborted):
        first('start')
    first('undo')
    assert cluster.world.guest('a')['state'] == 'shut off'


def test_an_owner_waits_for_the_step_that_is_at_work_on_its_guest(cluster, first):
    first('prepare', 'stop')
    host, order, begun = cluster.hosts['h1'], [], threading.Event()

    def start(_work):
        begun.set()
        time.sleep(0.3)
        order.append('started')
    host.engine.faults['restore_start'] = start
    starting = threading.Thread(target=first, args=('start',))
    starting.start()
    assert begun.wait(30)

    host.manager.withdraw(cluster.world.spec('a').id, 'it is deleted')
    order.append('withdrawn')

    starting.join()
    assert order == ['started', 'withdrawn']
    first('undo')


def test_a_group_does_not_wait_for_another_that_is_prepared(cluster):
    cluster.create('one', members=(('a', 'h1'),))
    cluster.create('other', members=(('b', 'h1'),))
    other = cluster.snapshots.get('other')
    begun, goes_on = threading.Event(), threading.Event()

    def prepare(_work):
        begun.set()
        assert goes_on.wait(30)
    cluster.hosts['h1'].engine.faults['restore_prepare'] = prepare
    preparing = threading.Thread(target=cluster.compute.restore, args=(
        'h1', 'prepare', other.id, 'restore-2', False))
    preparing.start()
    assert begun.wait(30)
    del cluster.hosts['h1'].engine.faults['restore_prepare']

    cluster.snapshots.restore('one')

    goes_on.set()
    preparing.join()
    cluster.compute.restore('h1', 'undo', other.id, 'restore-2', False)
    assert cluster.clean()


@pytest.mark.parametrize(('begun', 'end', 'disk'), [
    (('prepare', 'stop'), ('undo',), 'own'),
    (('prepare', 'stop', 'start'), ('undo',), 'own'),
    (('prepare', 'stop', 'start'), ('resume', 'finish'), 'snapshot'),
    ((), ('undo',), 'own')])
def test_a_restarted_host_ends_a_restore_whose_manifest_is_gone(cluster, first, begun, end, disk):
    first(*begun)
    host = cluster.hosts['h1']
    host.kill()
    snapshot = cluster.snapshots.get('nightly').id
    host.store.delete(snapshot)    # as another host does, of a store they share
    host.start()

    first(*end)
    first(end[-1])    # the answer was lost

    expected = {'own': 'own', 'snapshot': snapshot}[disk]
    assert cluster.world.guest('a')['disk'] == expected
    assert not cluster.world.guest('a')['left']
    assert not host.left()


def test_the_order_of_a_restore_is_as_it_was_after_a_restart(cluster, first):
    first('prepare')
    host = cluster.hosts['h1']
    order = host.manager.stepwise._works['restore-1']

    host.kill()
    host.start()

    kept = host.manager.stepwise._orders
    assert kept.read('restore-1') == order
    assert kept.read('../restores/restore-1') is None
    path = f'{host.folder}/state-h1/restores-by-step/restore-1.json'
    assert os.stat(path).st_mode & 0o777 == 0o600
    first('undo')


@pytest.mark.parametrize('end', [('resume', 'finish'), ('undo',)])
def test_members_do_not_wait_for_one_that_was_deleted(cluster, first, end):
    first('prepare', 'stop', 'start')
    with cluster.world.open() as guests:
        del guests['a']

    first(*end)

    assert cluster.world.guest('b')['state'] == 'running'
    assert not cluster.hosts['h1'].left()
