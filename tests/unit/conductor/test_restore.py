# SPDX-License-Identifier: Apache-2.0
"""A group comes back whole, or is left as it was, whoever dies, stands still or is away."""

import json
import pathlib
import threading
import time

import blake3
import pytest

from hotsnap_nova import exception
from hotsnap_nova.compute import restores, rpcapi
from hotsnap_nova.conductor import restorations, snapshots
from hotsnap_nova.protocol.restore import durable, messages
from hotsnap_nova.storage import base
from hotsnap_nova.storage import manifest as manifests
from tests.fakes import cluster as clusters

BEFORE = ('restore_check', 'restore_prepare', 'restore_stop', 'restore_start')


class Meddled:
    """A coordinator's database, of which ``replaced`` methods are the test's."""

    def __init__(self, real, **replaced):
        self._real = real
        self.__dict__ |= replaced

    def __getattr__(self, name):
        return getattr(self._real, name)


class Gate:
    """Where a host's engine stands until it is let go on."""

    def __init__(self, engine, step):
        self.reached, self._goes_on = threading.Event(), threading.Event()
        engine.faults[step] = self._stand
        self.open = self._goes_on.set

    def _stand(self, _work):
        self.reached.set()
        assert self._goes_on.wait(60)

    def wait(self):
        assert self.reached.wait(60)


def resolution_of(values):
    """What a write decides of a restore, or None."""
    return json.loads(values.get('restore') or '{}').get('resolution')


def begin(coordinator, name='nightly'):
    """Have a restore go on; the snapshot's id."""
    found = coordinator.get(name)
    coordinator.begin_restore(found, coordinator.plan_restore(found))
    return found.id


def disks(cluster):
    return {cluster.world.guest(name)['disk'] for name, _ in cluster.members}


def states(cluster):
    return {cluster.world.guest(name)['state'] for name, _ in cluster.members}


def steps(cluster):
    return [[call for call in engine.calls if call.startswith('restore_')]
            for engine in cluster.engines()]


def is_over(cluster, name='nightly'):
    """Nothing is left on any host, and the snapshot can be used again."""
    found = cluster.database.get(name)
    snapshots.must_be_available(found)
    return (found.restore is None and found.lease_owner is None
            and not any(host.left() for host in cluster.hosts.values()))


# -- as it should be ------------------------------------------------------------------------------


def test_all_members_run_on_the_disks_of_the_cut(cluster):
    row = cluster.create()

    cluster.snapshots.restore('nightly')

    guests = [cluster.world.guest(name) for name in 'abc']
    assert {guest['disk'] for guest in guests} == {row.id}
    assert {guest['old_disk'] for guest in guests} == {'own'}
    assert cluster.clean()
    assert is_over(cluster)


def warn(cluster):
    """Have the check warn of one member, and two steps of another; the devices, in that order."""
    cluster.hosts['h1'].engine.warns = {'restore_check': {'a': [('vda', 'it has grown', '')]}}
    cluster.hosts['h2'].engine.warns = {
        'restore_start': {'c': [('guest', 'no trial load', 'make room')]},
        'restore_resume': {'c': [('clock', 'it lags', 'have it set')]}}
    return ['vda', 'guest', 'clock']


@pytest.mark.parametrize('present', [None, 'before'], ids=['plain', 'keeping the present'])
def test_what_a_check_and_steps_warn_of_is_the_answer_and_stays_in_the_row(cluster, present):
    cluster.create()
    devices = warn(cluster)

    told = cluster.snapshots.restore('nightly', present=present and cluster.request(present))

    action = cluster.snapshots.get('nightly').last_action
    assert [each['device'] for each in told] == devices
    assert [(each['name'], each['host']) for each in told] == [('a', 'h1'), *[('c', 'h2')] * 2]
    assert (action['status'], action['result']['warnings']) == ('done', list(told))


def test_what_is_warned_of_is_told_where_a_member_was_left_and_not_of_what_was_undone(cluster):
    cluster.create()
    devices = warn(cluster)
    engine = cluster.hosts['h1'].engine
    results = {}
    for step, fault in (
            ('restore_stop', exception.HypervisorError(member='a', reason='it hangs')),
            ('let_run', lambda name: name == 'a' and cluster.world.kill('a'))):
        engine.faults = {step: fault}
        with pytest.raises(exception.HotsnapError):
            cluster.snapshots.restore('nightly')
        results[step] = cluster.snapshots.get('nightly').last_action['result']

    assert results['restore_stop'] is None
    assert [each['device'] for each in results['let_run']['warnings']] == devices


def rewritten(host, snapshot, change):
    """Another host, which can write to the store, too, changes a manifest and its digest."""
    path = pathlib.Path(f'{host.store.root}/{snapshot}/{base.MANIFEST}')
    told = manifests.load(path.read_bytes(), snapshot)
    change(told['members'][0])
    path.write_bytes(manifests.dump(told))


def with_another_disk(host, row, member):
    """Something else in its place, and its digest in the manifest."""
    path = pathlib.Path(f'{host.store.root}/{row.id}/{member["id"]}/vda.qcow2')
    content = b'mine' * (path.stat().st_size // 4 + 1)
    path.write_bytes(content)
    for file in member['files']:
        if file['name'] == path.name:
            file |= {'size_bytes': len(content), 'blake3': blake3.blake3(content).hexdigest()}


@pytest.mark.parametrize('change', [
    lambda _host, _row, member: member.update(machine='another'),
    lambda _host, _row, member: member['disks'][0].update(path='/etc/shadow'),
    lambda _host, _row, member: member['disks'].clear(),
    with_another_disk,
], ids=['machine', 'path', 'disks', 'content'])
def test_what_a_store_says_is_held_against_what_was_told_when_it_was_made(cluster, change):
    row = cluster.create()
    host = cluster.hosts['h1']
    rewritten(host, row.id, lambda member: change(host, row, member))

    with pytest.raises(exception.SnapshotDamaged, match='not said when the snapshot was made'):
        cluster.snapshots.restore('nightly')

    assert disks(cluster) == {'own'}
    assert is_over(cluster)


def test_a_manifest_that_changes_while_files_are_proved_is_not_looked_at_again(tmp_path):
    with clusters.Cluster(tmp_path, {'h1': 'ab'}) as cluster:
        row = cluster.create()
        host = cluster.hosts['h1']
        verify = host.store.verify

        def verify_what_just_changed(*asked):
            rewritten(host, row.id, lambda member: with_another_disk(host, row, member))
            return verify(*asked)
        host.store.verify = verify_what_just_changed

        with pytest.raises(exception.SnapshotDamaged):
            cluster.snapshots.restore('nightly')

        assert disks(cluster) == {'own'}


def test_a_row_of_old_that_keeps_nothing_of_its_members_is_believed_by_its_store(cluster):
    row = cluster.create()
    cluster.database.update_members(row.id, {each.member_id: {'detail': {}}
                                             for each in row.members})

    cluster.snapshots.restore('nightly')

    assert disks(cluster) == {row.id}


def test_a_killed_group_comes_back(cluster):
    cluster.create()
    cluster.world.kill()

    cluster.snapshots.restore('nightly')

    assert cluster.clean()


def test_each_host_restores_its_own_members_alone_of_a_store_they_share(cluster):
    cluster.create()
    here = {}
    for name, host in cluster.hosts.items():
        host.engine.faults['restore_prepare'] = lambda work, name=name: here.update(
            {name: {member.spec.name for member in work.members}})

    cluster.snapshots.restore('nightly')

    assert here == {'h1': {'a', 'b'}, 'h2': {'c'}}


def test_paused_leaves_the_members_at_the_cut(cluster):
    row = cluster.create()

    cluster.snapshots.restore('nightly', paused=True)

    assert (states(cluster), disks(cluster)) == ({'paused'}, {row.id})
    assert is_over(cluster)


@pytest.mark.parametrize('step', ['stop', 'start', 'resume'])
def test_no_host_begins_a_step_before_all_have_ended_the_one_before(cluster, step):
    cluster.create()
    order = []
    for host in cluster.hosts.values():
        for each in (*BEFORE, 'restore_resume'):
            host.engine.faults[each] = lambda _work, each=each: order.append(each)

    cluster.snapshots.restore('nightly')

    before = order[:order.index(f'restore_{step}')]
    assert all(before.count(each) == 2 for each in set(before))


def test_the_row_and_who_watches_are_told_each_step(cluster):
    cluster.create()
    shown = []

    cluster.snapshots.restore('nightly', watcher=lambda event: shown.append(
        (event['phase'], cluster.database.get('nightly').phase)))

    # Who ended it tells so last, when whoever waits may know already.
    clusters.until(lambda: shown[-1][0] == 'closed')
    phases = [phase for phase, _ in shown]
    assert list(dict.fromkeys(phases)) == ['prepare', 'stop', 'start', 'resume', 'closed']
    assert all(phase == in_row for phase, in_row in shown)


# -- given up before the decision -----------------------------------------------------------------


@pytest.mark.parametrize('step', BEFORE)
def test_failure_before_the_decision_puts_the_old_disks_back(cluster, step):
    cluster.create()
    cluster.hosts['h2'].engine.faults[step] = exception.HypervisorError(
        member='c', reason='no')

    with pytest.raises(exception.HypervisorError, match='c: no'):
        cluster.snapshots.restore('nightly')

    assert disks(cluster) == {'own'}
    assert not any('restore_resume' in done for done in steps(cluster))
    if step in BEFORE[:2]:
        assert cluster.clean()
    assert is_over(cluster)


@pytest.mark.parametrize('file', ['memory.save', 'vda.qcow2', 'manifest.json'])
def test_damage_is_found_before_anything_is_stopped(cluster, file):
    row = cluster.create()
    place = f'{cluster.folder}/store/{row.id}'
    member = cluster.world.spec('c').id
    path = f'{place}/{file}' if file == 'manifest.json' else f'{place}/{member}/{file}'
    with open(path, 'r+b') as content:
        content.write(b'?')

    with pytest.raises((exception.SnapshotDamaged, exception.ManifestDamaged)):
        cluster.snapshots.restore('nightly')

    assert not any('restore_stop' in done for done in steps(cluster))
    assert cluster.clean()


def test_a_member_in_another_snapshot_is_not_restored(cluster):
    cluster.create()
    cluster.hosts['h1'].engine.save_s = 2.0
    second = cluster.snapshots.create(cluster.request('two', members=(('a', 'h1'),)))
    clusters.until(lambda: 'saving' in cluster.hosts['h1'].phases())

    with pytest.raises(exception.GuestBusy, match='a'):
        cluster.snapshots.restore('nightly')

    assert not any('restore_stop' in done for done in steps(cluster))
    cluster.snapshots.wait(second)
    assert cluster.snapshots.get('two').status == 'available'
    assert cluster.clean()


def test_an_unwanted_restore_is_undone(cluster):
    cluster.create()
    stands = Gate(cluster.hosts['h1'].engine, 'restore_start')

    with pytest.raises(exception.Aborted):
        cluster.snapshots.restore(
            'nightly', is_unwanted=stands.reached.is_set,
            watcher=lambda event: event['phase'] == 'undo' and stands.open())

    assert disks(cluster) == {'own'}
    assert not any('restore_resume' in done for done in steps(cluster))
    assert is_over(cluster)


@pytest.mark.parametrize('step', BEFORE[1:])
def test_an_abort_reaches_a_restore_that_any_coordinator_is_at(cluster, step):
    """Also where a host's store or hypervisor hangs: nobody waits for it."""
    cluster.create()
    stands = Gate(cluster.hosts['h1'].engine, step)
    snapshot = begin(cluster.snapshots)
    stands.wait()

    began = time.monotonic()
    cluster.coordinator('other').abort(snapshot, 'its user')
    assert time.monotonic() - began < 5

    clusters.until(lambda: cluster.database.get(snapshot).phase == 'undo')
    stands.open()
    assert cluster.snapshots.wait(snapshot, 60)
    action = cluster.database.get(snapshot).last_action
    assert (action['status'], action['error']['code']) == ('failed', 'aborted')
    assert (disks(cluster), is_over(cluster)) == ({'own'}, True)


def test_what_is_decided_cannot_be_aborted(cluster):
    row = cluster.create()
    stands = Gate(cluster.hosts['h1'].engine, 'restore_resume')
    snapshot = begin(cluster.snapshots)
    stands.wait()

    with pytest.raises(exception.SnapshotBusy, match='decided that its members run'):
        cluster.snapshots.abort(snapshot, 'its user')

    stands.open()
    assert cluster.snapshots.wait(snapshot, 60)
    assert (disks(cluster), is_over(cluster)) == ({row.id}, True)


@pytest.mark.parametrize('step', BEFORE[1:])
def test_a_deletion_by_force_waits_for_no_host_that_hangs(cluster, step):
    row = cluster.create()
    stands = Gate(cluster.hosts['h1'].engine, step)
    begin(cluster.snapshots)
    stands.wait()
    other = cluster.coordinator('other')

    began = time.monotonic()
    other.begin_delete(other.get(row.id), force=True)
    assert time.monotonic() - began < 5

    assert cluster.database.list() == ()
    stands.open()
    assert cluster.snapshots.wait(row.id, 60)
    clusters.until(lambda: not cluster.database.errands() or other.errands.run())
    assert disks(cluster) == {'own'}
    assert cluster.hosts['h1'].store.list() == ()
    assert not any(host.left() for host in cluster.hosts.values())


def test_what_an_undo_could_not_undo_is_told(cluster):
    cluster.create()
    # Somebody starts it on the disk of the cut, which is in its place by now.
    cluster.hosts['h2'].engine.faults['load'] = cluster.world.boot

    with pytest.raises(exception.RestoreNotUndone) as told:
        cluster.snapshots.restore('nightly')

    assert 'disk is the disk of the cut and old-' in str(told.value)
    assert 'already active' in str(told.value)
    assert not cluster.world.misplaced()
    assert is_over(cluster)


def test_what_is_being_restored_cannot_be_deleted(cluster):
    row = cluster.create()
    cluster.database.compare_and_swap(row.id, row.generation, status='restoring')

    with pytest.raises(exception.SnapshotBusy):
        cluster.snapshots.delete('nightly')


# -- forward after the decision -------------------------------------------------------------------


def test_a_guest_that_dies_between_its_start_and_the_decision_is_started_again(cluster):
    row = cluster.create()
    cluster.hosts['h2'].engine.faults['restore_resume'] = lambda _work: (
        cluster.world.kill('c'), cluster.hosts['h2'].engine.faults.clear())

    cluster.snapshots.restore('nightly')

    assert (states(cluster), disks(cluster)) == ({'running'}, {row.id})
    assert is_over(cluster)


def test_a_member_that_cannot_run_is_named_and_keeps_no_other(cluster):
    row = cluster.create()

    def die(_work):
        cluster.world.kill('c')
        cluster.hosts['h2'].engine.faults['load'] = exception.HypervisorError(
            member='c', reason='no memory is left')
    cluster.hosts['h2'].engine.faults['restore_resume'] = die

    with pytest.raises(exception.RestoreIncomplete) as told:
        cluster.snapshots.restore('nightly')

    member = cluster.world.spec('c').id
    assert 'c: ' in str(told.value)
    assert 'no memory is left' in str(told.value)
    assert told.value.kwargs['member'] == member
    assert [cluster.world.guest(name)['state'] for name in 'abc'] == [
        'running', 'running', 'shut off']
    assert (disks(cluster), is_over(cluster)) == ({row.id}, True)
    cluster.hosts['h2'].engine.faults.clear()
    cluster.snapshots.restore('nightly')    # no claim is left
    assert states(cluster) == {'running'}


def test_a_member_that_died_after_it_was_let_run_is_named_by_the_end(cluster):
    row = cluster.create()
    cluster.hosts['h2'].engine.faults['restore_finish'] = lambda _work: cluster.world.kill('c')

    with pytest.raises(exception.RestoreIncomplete, match='Member c .*after it was') as told:
        cluster.snapshots.restore('nightly')

    assert told.value.kwargs['member'] == cluster.world.spec('c').id
    assert [cluster.world.guest(name)['state'] for name in 'abc'] == [
        'running', 'running', 'shut off']
    assert (disks(cluster), is_over(cluster)) == ({row.id}, True)


@pytest.mark.parametrize('step', ['stop', 'start', 'resume'])
def test_a_libvirt_that_is_away_for_a_moment_costs_a_moment(cluster, step):
    row = cluster.create()
    engine = cluster.hosts['h1'].engine
    failing = iter([True, True, False])

    def away(_work):
        if next(failing, False):
            raise exception.HostUnreachable(host='qemu:///system', reason='it restarts')
    engine.faults[f'restore_{step}'] = away

    cluster.snapshots.restore('nightly')

    assert (states(cluster), disks(cluster)) == ({'running'}, {row.id})


def test_patience_begins_when_it_is_noticed_that_there_is_no_answer(cluster, monkeypatch):
    row = cluster.create()
    monkeypatch.setattr(restores, '_PATIENCE_S', 0.2)
    calls = []

    def waits_in_vain(_work):
        calls.append(1)
        if len(calls) == 1:
            time.sleep(2 * restores._PATIENCE_S)
            raise exception.HostUnreachable(host='nova-conductor', reason='no answer')
    cluster.hosts['h1'].engine.faults['restore_start'] = waits_in_vain

    cluster.snapshots.restore('nightly')

    assert (states(cluster), disks(cluster)) == ({'running'}, {row.id})


def test_a_libvirt_that_stays_away_gives_up_a_restore_before_its_decision(cluster, monkeypatch):
    cluster.create()
    monkeypatch.setattr(restores, '_PATIENCE_S', 1.5)
    cluster.hosts['h1'].engine.faults['restore_stop'] = exception.HostUnreachable(
        host='qemu:///system', reason='connection refused')

    with pytest.raises(exception.HostUnreachable, match='connection refused'):
        cluster.snapshots.restore('nightly')

    assert cluster.hosts['h1'].engine.calls.count('restore_stop') > 1
    assert (disks(cluster), is_over(cluster)) == ({'own'}, True)


def test_an_abort_does_not_wait_for_a_libvirt_that_is_away(cluster):
    cluster.create()
    tried = threading.Event()

    def away(_work):
        tried.set()
        raise exception.HostUnreachable(host='qemu:///system', reason='connection refused')
    cluster.hosts['h1'].engine.faults['restore_stop'] = away

    with pytest.raises(exception.Aborted):
        cluster.snapshots.restore('nightly', is_unwanted=tried.is_set)

    assert is_over(cluster)


@pytest.mark.parametrize(('state', 'step'), [
    ('paused', 'resume'), ('shut off', 'resume'), ('paused', 'undo')])
def test_what_has_ended_touches_no_guest_any_more(cluster, state, step):
    """The answer was lost; meanwhile its owner has paused or stopped a guest."""
    found = cluster.create()
    planned = cluster.snapshots.plan_restore(found)
    cluster.snapshots.begin_restore(found, planned)
    cluster.snapshots.wait(found.id)
    assert is_over(cluster)
    with cluster.world.open() as guests:
        guests['a'].update(state=state)

    answer = cluster.compute.order(messages.Order(
        planned.restore, 'h1', messages.Step(step), dict(planned.hosts)['h1']), 10)

    kind = messages.OrderDone if step == 'resume' else messages.OrderRefused
    assert isinstance(answer, kind), answer
    assert cluster.world.guest('a')['state'] == state
    assert is_over(cluster)


# -- a database that is away ----------------------------------------------------------------------


@pytest.mark.parametrize('written', [True, False])
@pytest.mark.parametrize('decision', ['resume', 'closed'])
def test_a_decision_of_unknown_outcome_is_read_back(cluster, decision, written):
    """A failover: it was committed, or not, and the answer is lost."""
    row = cluster.create()
    lost = []

    def swap(snapshot, generation, **values):
        phase = 'closed' if values['phase'] == 'closed' else resolution_of(values)
        if phase != decision or len(lost) == 2:
            return cluster.database.compare_and_swap(snapshot, generation, **values)
        if written:
            cluster.database.compare_and_swap(snapshot, generation, **values)
        lost.append(phase)
        raise exception.DatabaseUnavailable(reason='Lost connection during query')
    mine = snapshots.Snapshots(Meddled(cluster.database), cluster.compute, 'mine')
    mine._database.compare_and_swap = swap

    mine.restore('nightly')

    assert lost
    assert (states(cluster), disks(cluster)) == ({'running'}, {row.id})
    action = cluster.database.get(row.id).last_action
    assert (action['status'], action['error'], is_over(cluster)) == ('done', None, True)


def test_a_database_away_for_seconds_costs_seconds(cluster):
    row = cluster.create()
    away = threading.Event()

    def failing(name):
        def call(*args, **kwargs):
            if away.is_set():
                raise exception.DatabaseUnavailable(reason='gone away')
            return getattr(cluster.database, name)(*args, **kwargs)
        call.__name__ = name
        return call
    names = ('compare_and_swap', 'renew_lease', 'abort_requested', 'show_phase', 'get')
    mine = snapshots.Snapshots(
        Meddled(cluster.database, **{name: failing(name) for name in names}),
        cluster.compute, 'mine', lease_s=2.0)
    cluster.hosts['h1'].engine.faults['restore_start'] = lambda _work: away.set()
    snapshot = begin(mine)
    assert away.wait(60)

    time.sleep(2.5)    # of looks each second, and writes that fail
    away.clear()

    assert mine.wait(snapshot, 60)
    assert (states(cluster), disks(cluster)) == ({'running'}, {row.id})
    assert is_over(cluster)


# -- coordinators that die, or stand still --------------------------------------------------------


@pytest.mark.parametrize(('step', 'disk'), [
    ('prepare', 'own'), ('stop', 'own'), ('start', 'own'), ('resume', 'cut'), ('finish', 'cut')])
def test_what_a_coordinator_left_the_next_one_ends(cluster, step, disk):
    row = cluster.create()
    stands = Gate(cluster.hosts['h1'].engine, f'restore_{step}')
    begin(cluster.snapshots)
    stands.wait()
    cluster.snapshots.leave()
    assert cluster.snapshots.get('nightly').status == 'restoring'
    stands.open()
    for host in cluster.hosts.values():
        host.stop()
        host.engine.faults.clear()
        host.start()
    heir = cluster.coordinator('heir')

    assert heir.recover() == (row.id,)

    assert heir.wait(row.id, 60)
    assert disks(cluster) == {{'own': 'own', 'cut': row.id}[disk]}
    assert is_over(cluster)
    if disk == 'cut':
        assert states(cluster) == {'running'}
        assert cluster.database.get(row.id).last_action['error'] is None
    else:
        assert cluster.database.get(row.id).last_action['error']['code'] == (
            'coordinator_restarted')


def test_who_takes_over_and_may_tell_hosts_nothing_says_why(cluster):
    row = cluster.create()
    first = cluster.coordinator('before', has_errands=True, patience_s=0.1)
    stands = Gate(cluster.hosts['h1'].engine, 'restore_stop')
    begin(first)
    stands.wait()
    first.leave()
    stands.open()
    heir = snapshots.Snapshots(
        cluster.database, rpcapi.ComputeApi(cluster.transport, pin='1.2'), 'heir')

    assert heir.recover() == (row.id,)

    assert heir.wait(row.id, 60)
    told = cluster.database.get(row.id).last_action['error']['message']
    assert 'pinned to version 1.2 (compute_rpc_version)' in told
    assert 'when it is back' not in told


def taken_over_at(cluster, decision, take_over):
    """A coordinator that stands still before it writes this decision."""
    def swap(snapshot, generation, **values):
        phase = 'closed' if values['phase'] == 'closed' else resolution_of(values)
        if phase == decision:
            take_over()
        return cluster.database.compare_and_swap(snapshot, generation, **values)
    return snapshots.Snapshots(
        Meddled(cluster.database, compare_and_swap=swap), cluster.compute, 'mine')


def test_who_stood_still_while_another_took_over_decides_nothing(cluster):
    """A migration of the controller: it goes on just before its write."""
    row = cluster.create()
    heir = cluster.coordinator('heir', is_dead=lambda owner: owner.startswith('mine/'))
    stands = Gate(cluster.hosts['h1'].engine, 'restore_undo')

    def take_over():
        assert heir.recover() == (row.id,)
        stands.wait()
    mine = taken_over_at(cluster, 'resume', take_over)

    with pytest.raises(exception.LeaseHeld, match='heir'):
        mine.restore('nightly')

    stands.open()
    assert heir.wait(row.id, 60)
    assert (disks(cluster), is_over(cluster)) == ({'own'}, True)


def test_what_was_decided_another_ends_in_the_same_way(cluster):
    row = cluster.create()
    heir = cluster.coordinator('heir', is_dead=lambda owner: owner.startswith('mine/'))

    taken_over_at(cluster, 'closed', lambda: (heir.recover(), heir.wait(row.id, 60))).restore(
        'nightly')

    assert (disks(cluster), is_over(cluster)) == ({row.id}, True)


def test_a_long_step_keeps_its_lease(cluster):
    cluster.create()
    mine = cluster.coordinator('mine', lease_s=5)
    stands = Gate(cluster.hosts['h1'].engine, 'restore_prepare')
    snapshot = begin(mine)
    stands.wait()
    first, heirs = cluster.database.get(snapshot).lease_expires_at, []

    while time.time() < first + 1:
        heirs.append(cluster.coordinator('heir').recover())
        time.sleep(0.1)

    stands.open()
    assert set(heirs) == {()}
    assert mine.wait(snapshot, 60)
    assert cluster.clean()


# -- rows of version 1.0 --------------------------------------------------------------------------


@pytest.mark.parametrize(('step', 'resolution'), [
    ('prepare', 'none'), ('start', 'none'), ('decided', 'resume')])
def test_the_plan_of_a_version_without_machines_is_read(cluster, step, resolution):
    found = cluster.create()
    moved = found.members[0].member_id
    cluster.database.compare_and_swap(found.id, found.generation, restore=json.dumps({
        'restore_id': 'r', 'paused': True, 'step': step, 'places': {
            each.member_id: 'h2' if each.member_id == moved else each.host
            for each in found.members},
        'context': {'user_id': 'u', 'names': {moved: 'web'}}}))

    row = restorations.load(cluster.snapshots.get('nightly'), durable.RestoreLimits())

    assert (row.restore, row.resolution, row.closed) == ('r', resolution, False)
    shares = dict(row.hosts)
    assert {host: {each.id for each in share.members} for host, share in shares.items()} == {
        'h1': {found.members[1].member_id}, 'h2': {moved, found.members[2].member_id}}
    assert all(share.paused for share in shares.values())
    assert json.loads(shares['h2'].options)['context'] == {'user_id': 'u'}
