# SPDX-License-Identifier: Apache-2.0
"""A snapshot of two hosts' guests, from the wish to the store, and what can go wrong."""

import os
import threading
import time

import pytest

from hotsnap_nova import exception
from hotsnap_nova.conductor import drive, requests
from hotsnap_nova.protocol import messages
from tests.fakes import cluster as clusters

#: Of a coordinator, to two hosts.
_CALLS_AT_ONCE = 8


@pytest.mark.parametrize('gate', ['hold', 'barrier', 'none'])
def test_snapshot_becomes_available_and_leaves_nothing_in_the_guests(cluster, gate):
    row = cluster.create(gate=gate)

    assert (row.status, row.gate, row.error_code) == ('available', gate, None)
    assert cluster.clean()


def test_the_row_tells_what_every_member_went_through(cluster):
    row = cluster.create()

    assert [member.name for member in row.members] == ['a', 'b', 'c']
    for member in row.members:
        assert member.pause_ms == 5.0
        assert 0 < member.hold_ms < 5000
        assert member.size_bytes > 0
        assert {len(file['digest']) for file in member.detail['files']} == {64}
    assert row.skew_ms >= 0


def test_an_answer_that_the_broker_lost_costs_one_call_and_no_snapshot(cluster, monkeypatch):
    monkeypatch.setattr(drive, 'CALL_MS', 100)
    receive, lost = cluster.compute.receive, []

    def lose_the_first_answers(request, timeout_s):
        answer = receive(request, timeout_s)
        if isinstance(request, messages.Prepare) and len(lost) < _CALLS_AT_ONCE:
            lost.append(timeout_s)
            time.sleep(timeout_s)    # the call waits for it as long as it may
            raise exception.HostUnreachable(host=request.host, reason='the answer was lost')
        return answer
    monkeypatch.setattr(cluster.compute, 'receive', lose_the_first_answers)

    assert cluster.create(prepare_timeout_s=20.0).status == 'available'
    assert lost == [0.1] * _CALLS_AT_ONCE


def test_hosts_publish_the_same_manifest(cluster):
    row = cluster.create()

    manifest = cluster.compute.manifest('h1', row.id)
    assert manifest == cluster.compute.manifest('h2', row.id)
    assert [member['host'] for member in manifest['members']].count('h1') == 2
    # Both see the shared store, and each proves what it saved.
    assert cluster.snapshots.verify('nightly')['files'] == 9


def test_auto_takes_the_best_gate_that_every_member_can_do(cluster):
    cluster.world.add('d', gates=['barrier'])
    members = (*cluster.members, ('d', 'h2'))

    row = cluster.create(members=members)

    assert row.gate == 'barrier'


def test_a_gate_a_member_cannot_do_is_refused_with_the_cause(cluster):
    cluster.world.add('d', gates=['barrier'])

    with pytest.raises(exception.GateNotPossible, match=r'd.*vhost'):
        cluster.create(members=(('d', 'h2'),), gate='hold')


def test_epochs_of_a_group_grow_and_outlive_failures(cluster):
    first = cluster.create('one')
    cluster.hosts['h2'].engine.faults['record'] = exception.GuestBusy(member='c', reason='no')
    failed = cluster.create('two')
    del cluster.hosts['h2'].engine.faults['record']
    third = cluster.create('three')

    assert [first.epoch, failed.epoch, third.epoch] == [1, 2, 3]
    assert [row.status for row in (first, failed, third)] == ['available', 'error', 'available']


@pytest.mark.parametrize('step', ['prepare', 'record', 'record_member', 'release', 'save',
                                  'finish'])
@pytest.mark.parametrize('gate', ['hold', 'barrier'])
def test_failure_at_a_step_leaves_guests_running_and_names_the_culprit(cluster, step, gate):
    engine = cluster.hosts['h2'].engine
    error = exception.TargetFailed(member='c', device='vda', reason='is full')

    def once(_about):
        engine.faults.pop(step)
        raise error
    engine.faults[step] = once

    row = cluster.create(gate=gate)

    if step == 'finish':    # decided: repeated until it is done
        assert row.status == 'available'
    else:
        assert (row.status, row.error_code, row.error_host) == ('error', 'target_failed', 'h2')
        assert 'is full' in row.error_message
        assert not cluster.hosts['h1'].store.list()
    assert cluster.clean()


def test_a_pause_over_the_limit_fails_the_snapshot_not_the_guest(cluster):
    cluster.hosts['h1'].engine.pause_ms = 101

    row = cluster.create(max_pause_ms=100)

    assert row.error_code == 'pause_too_long'
    assert cluster.clean()


def test_a_gate_held_over_its_lease_fails_the_snapshot(cluster):
    row = cluster.create(max_hold_ms=50, record_delays_s={'b': 0.2})

    assert row.error_code == 'gate_opened'
    assert cluster.clean()


def test_a_deadline_that_passes_while_saving_aborts(cluster):
    for engine in cluster.engines():
        engine.save_s = 60

    row = cluster.create(deadline_s=1.0)

    assert row.status == 'error'
    assert row.error_code in ('cut_expired', 'timeout')
    assert cluster.clean()


def test_abort_by_another_coordinator_reaches_the_one_in_charge(cluster):
    for engine in cluster.engines():
        engine.save_s = 60
    other = cluster.coordinator('second')
    snapshot = cluster.snapshots.create(cluster.request())
    clusters.until(lambda: 'save' in cluster.hosts['h1'].engine.calls)

    other.abort('nightly', 'somebody')
    other.wait_until_over(snapshot)

    row = cluster.snapshots.get(snapshot)
    assert (row.status, row.error_code) == ('error', 'aborted')
    assert 'somebody' in row.error_message
    cluster.snapshots.close()
    assert cluster.clean()


def test_a_save_that_ends_late_leaves_no_files_behind(cluster):
    engine = cluster.hosts['h1'].engine

    def save(work):
        clusters.until(lambda: work.snapshot_id in engine._ended)
        time.sleep(0.3)
        os.makedirs(f'{work.folder}/late')
        raise exception.Aborted(who='a discard')
    engine.faults['save'] = save
    snapshot = cluster.snapshots.create(cluster.request())
    clusters.until(lambda: 'saving' in cluster.hosts['h1'].phases())

    cluster.snapshots.abort('nightly', 'the user')
    cluster.snapshots.wait(snapshot)
    clusters.until(lambda: not cluster.hosts['h1'].manager._participants._saves._threads)

    assert cluster.snapshots.get(snapshot).error_code == 'aborted'
    assert cluster.clean()


def test_who_waits_for_a_host_that_cannot_clean_up_is_told(cluster):
    engine = cluster.hosts['h2'].engine
    engine.faults |= {'record': OSError('broken'), 'discard': OSError('broken too')}
    impatient = cluster.coordinator('impatient', patience_s=0.3)
    snapshot = impatient.create(cluster.request())

    clusters.until(lambda: impatient._works[snapshot].seconds_decided() > 0.3)
    with pytest.raises(exception.CleanupIncomplete, match='discard'):
        impatient.wait_patiently(snapshot, 0.05)
    impatient.close()

    assert cluster.snapshots.get(snapshot).status == 'creating'
    engine.faults.clear()
    assert cluster.snapshots.recover() == (snapshot,)
    cluster.snapshots.wait(snapshot)
    assert cluster.snapshots.get(snapshot).status == 'error'
    assert cluster.clean()


def test_what_is_decided_to_be_kept_cannot_be_aborted(cluster):
    reached, goes_on = threading.Event(), threading.Event()
    cluster.hosts['h1'].engine.faults['finish'] = lambda _work: (reached.set(), goes_on.wait(60))
    snapshot = cluster.snapshots.create(cluster.request())
    assert reached.wait(60)

    with pytest.raises(exception.SnapshotBusy, match='decided that it is kept'):
        cluster.coordinator('other').abort(snapshot, 'its user')

    goes_on.set()
    assert cluster.snapshots.wait(snapshot, 60)
    assert cluster.snapshots.get(snapshot).status == 'available'


@pytest.mark.parametrize('status', ['available', 'error'])
def test_what_is_being_made_can_be_aborted_whatever_status_an_operator_has_set(cluster, status):
    cluster.hosts['h1'].engine.save_s = 60
    snapshot = cluster.snapshots.create(cluster.request())
    clusters.until(lambda: cluster.snapshots.get(snapshot).phase == 'save')
    cluster.database.set_status(snapshot, status)

    cluster.snapshots.abort(snapshot, 'its user')

    assert cluster.snapshots.wait(snapshot, 60)
    assert cluster.snapshots.get(snapshot).error_code == 'aborted'
    assert cluster.clean()


def test_an_available_snapshot_cannot_be_aborted(cluster):
    cluster.create()

    with pytest.raises(exception.SnapshotBusy):
        cluster.snapshots.abort('nightly', 'somebody')
    assert cluster.snapshots.get('nightly').status == 'available'


def test_a_guest_takes_part_in_one_snapshot_at_a_time(cluster):
    for engine in cluster.engines():
        engine.save_s = 2
    first = cluster.snapshots.create(cluster.request('one'))
    clusters.until(lambda: 'save' in cluster.hosts['h1'].engine.calls)

    second = cluster.snapshots.create(cluster.request('two', members=(('a', 'h1'),)))
    cluster.snapshots.wait(second)
    cluster.snapshots.wait(first)

    assert cluster.snapshots.get('two').error_code == 'member_busy'
    # A discard of the second must not go near a guest that the first is at work on.
    assert dict(cluster.hosts['h1'].engine.discarded)[second] == ()
    assert cluster.snapshots.get('one').status == 'available'
    assert cluster.clean()


def test_nothing_but_one_commit_lies_between_the_last_cut_and_the_first_release(cluster):
    writes, real = [], cluster.database.compare_and_swap
    touched = []

    def counted(*args, **values):
        writes.append(values['decision'])
        return real(*args, **values)
    cluster.database.compare_and_swap = counted
    for name in ('update', 'update_members', 'renew_lease', 'abort_requested', 'get'):
        method = getattr(cluster.database, name)
        setattr(cluster.database, name,
                lambda *args, method=method, **more: (touched.append(method.__name__),
                                                      method(*args, **more))[1])
    seen = {}

    def at(what):
        return lambda _about: seen.setdefault(what, (len(writes), len(touched)))
    for engine in cluster.engines():
        engine.faults |= {'record': at('record'), 'release': at('release')}

    cluster.create(record_delays_s={'a': 1.5})

    assert seen['release'][0] - seen['record'][0] == 1
    assert seen['release'][1] == seen['record'][1]


def test_delete_removes_files_and_row(cluster):
    cluster.create()

    cluster.snapshots.delete('nightly')

    assert cluster.hosts['h1'].store.list() == ()
    with pytest.raises(exception.SnapshotNotFound):
        cluster.snapshots.get('nightly')


def test_a_snapshot_being_made_cannot_be_deleted(cluster):
    for engine in cluster.engines():
        engine.save_s = 0.5
    snapshot = cluster.snapshots.create(cluster.request())

    with pytest.raises(exception.SnapshotBusy):
        cluster.snapshots.delete('nightly')

    cluster.snapshots.wait(snapshot)
    assert cluster.snapshots.get('nightly').status == 'available'


def test_progress_reaches_the_watcher_and_the_database(cluster):
    for engine in cluster.engines():
        engine.save_s = 1.0
    events = []

    snapshot = cluster.snapshots.create(cluster.request(), events.append)
    cluster.snapshots.wait(snapshot)

    phases = [event['phase'] for event in events if 'members' not in event]
    assert phases == ['prepare', 'record', 'release', 'save', 'finish', 'closed']
    assert any('a' in event.get('members', {}) for event in events)
    assert any(member.total_bytes == 1000 for member in cluster.snapshots.get(snapshot).members)


@pytest.mark.parametrize(('change', 'error', 'about'), [
    ({'members': ()}, exception.EmptyGroup, ''),
    ({'members': (('a', 'h1'), ('a', 'h1'))}, exception.DuplicateMember, 'a'),
    ({'members': (('zzz', 'h1'),)}, exception.MemberNotFound, 'zzz'),
    ({'name': ''}, exception.InvalidValue, 'name'),
    ({'name': 'a\nb'}, exception.InvalidValue, 'name'),
    ({'gate': 'marker!'}, exception.InvalidValue, 'gate'),
    ({'max_pause_ms': 0}, exception.InvalidValue, 'max_pause_ms'),
    ({'max_hold_ms': -1}, exception.InvalidValue, 'max_hold_ms'),
    ({'max_hold_ms': 10**9}, exception.InvalidValue, 'max_hold_ms'),
    ({'deadline_s': 0.0}, exception.InvalidValue, 'deadline_s'),
    ({'deadline_s': float('nan')}, exception.InvalidValue, 'deadline_s'),
])
def test_bad_input_is_refused_before_anything_is_touched(cluster, change, error, about):
    with pytest.raises(error, match=about or None):
        cluster.create(**change)

    assert cluster.snapshots.list() == ()
    assert not {call for engine in cluster.engines() for call in engine.calls} & {
        'prepare', 'record', 'discard'}


def test_a_member_named_by_name_and_by_id_is_a_duplicate(cluster):
    member = cluster.world.spec('a')

    with pytest.raises(exception.DuplicateMember):
        cluster.create(members=(('a', 'h1'), (member.id, 'h1')))


def test_a_stopped_member_is_refused_before_anything_is_touched(cluster):
    with cluster.world.open() as guests:
        guests['b']['state'] = 'shut off'

    with pytest.raises(exception.GuestNotRunning, match='b'):
        cluster.create()

    assert cluster.snapshots.list() == ()


def test_a_taken_name_is_refused_before_anything_is_touched(cluster):
    cluster.create()
    calls = [len(engine.calls) for engine in cluster.engines()]

    with pytest.raises(exception.NameTaken):
        cluster.create()

    new = [engine.calls[count:] for engine, count in zip(cluster.engines(), calls, strict=True)]
    assert not {call for calls in new for call in calls} & {'prepare', 'discard'}


def test_the_verdict_of_a_group_names_device_cause_and_remedy(cluster):
    cluster.world.add('d', gates=['barrier'])

    found = cluster.snapshots.check((*cluster.members, ('d', 'h2')))

    assert found['gates'] == ['barrier']
    assert found['findings'][0] | {'host': 'h2', 'device': 'net0', 'cause': 'vhost'} == (
        found['findings'][0])


def test_a_host_of_before_says_by_gates_alone_what_a_finding_rules_out(cluster, monkeypatch):
    old = {'device': 'd', 'cause': 'c', 'remedy': 'r'}
    told = {'gates': ['barrier'], 'findings': [
        old | {'member': 'a', 'gates': ['hold'], 'refuses': False},
        old | {'member': 'b', 'gates': [], 'refuses': True}]}
    monkeypatch.setattr(cluster.snapshots._compute, 'check', lambda *_: told)

    found = cluster.snapshots.check((('a', 'h1'), ('b', 'h1')))

    assert [each['rules_out'] for each in found['findings']] == [['hold'], ['snapshot']]
    assert (found['possible'], found['restorable']) == (False, False)


def test_a_member_that_can_do_no_gate_rules_the_snapshot_out():
    finding = {'member': 'd', 'device': 'hostdev0', 'cause': 'VFIO', 'remedy': 'detach it',
               'rules_out': ['snapshot']}

    with pytest.raises(exception.Refused, match=r'd, hostdev0: VFIO\. Remedy: detach it'):
        requests.choose_gate('auto', {'h1': {'gates': [], 'findings': [finding]}})


#: By libvirt's names. One is another's, or begins as it does, or means something to whatever looks
#: for names in a text or puts them there.
CALLED = {'a': 'c', 'b': 'c.*', 'c': 'Member a is busy: \\1 %(member)s {} (\t\x1b[1m'}


@pytest.fixture
def named(cluster):
    """A request for guests that their users call otherwise than libvirt."""
    specs = [(cluster.world.spec(name), host) for name, host in cluster.members]
    return {'members': tuple((spec.id, host) for spec, host in specs),
            'names': {spec.id: CALLED[spec.name] for spec, _ in specs},
            'domains': {spec.id: spec.name for spec, _ in specs}}


def busy(cluster, step, members_of):
    """Have ``step`` fail on host h2, which has c."""
    def fail(work):
        (member,) = members_of(work)
        raise exception.GuestBusy(member=member, reason='libvirt has c locked')
    cluster.hosts['h2'].engine.faults[step] = fail


BUSY = f'Member {CALLED["c"]} is busy: libvirt has c locked.'


@pytest.mark.parametrize('step', ['prepare', 'record', 'release', 'save'])
def test_an_error_names_a_member_as_its_user_does_and_carries_its_id(cluster, named, step):
    busy(cluster, step, lambda work: work.members)

    row = cluster.create(**named)

    assert (row.error_member, row.error_message) == (cluster.world.spec('c').id, BUSY)


def test_an_error_of_a_check_names_a_member_as_its_user_does_and_carries_its_id(cluster, named):
    busy(cluster, 'check', lambda members: members)

    with pytest.raises(exception.GuestBusy) as told:
        cluster.create(**named)

    assert str(told.value) == BUSY
    assert told.value.kwargs['member'] == cluster.world.spec('c').id


def test_findings_name_members_as_their_users_do_and_carry_their_ids(cluster, named):
    for name in 'abc':
        with cluster.world.open() as guests:
            guests[name]['says'] = [('net0', f'it leads to {name}', 'cut it', ('hold',))]

    found = cluster.snapshots.check(**named)['findings']

    assert sorted((each['id'], each['member'], each['cause']) for each in found) == sorted(
        (cluster.world.spec(name).id, CALLED[name], f'it leads to {name}') for name in 'abc')


def test_a_host_of_before_tells_of_guests_by_libvirts_names(cluster, named, monkeypatch):
    told = {'gates': ['barrier'], 'findings': [
        {'member': 'c', 'device': 'd', 'cause': 'c', 'remedy': 'r', 'gates': ['hold'],
         'refuses': False}]}
    monkeypatch.setattr(cluster.snapshots._compute, 'check', lambda *_: told)

    found = cluster.snapshots.check(**named)['findings'][0]

    assert (found['id'], found['member']) == (cluster.world.spec('c').id, CALLED['c'])


def test_an_error_of_a_restore_names_a_member_as_its_user_does_and_carries_its_id(cluster, named):
    cluster.create(**named)
    busy(cluster, 'restore_start', lambda work: [member.spec for member in work.members])

    with pytest.raises(exception.GuestBusy) as told:
        cluster.snapshots.restore('nightly')

    assert str(told.value).startswith(BUSY[:-1])
    assert told.value.kwargs['member'] == cluster.world.spec('c').id
