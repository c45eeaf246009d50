# SPDX-License-Identifier: Apache-2.0
"""A host does each step of a restore once, and gives back all that it claimed for it."""

import glob
import json
import os
import threading
import time

import pytest

from hotsnap_nova import exception
from hotsnap_nova.compute import owner, restores, steps
from hotsnap_nova.protocol import messages
from hotsnap_nova.protocol.restore import messages as orders
from hotsnap_nova.protocol.restore.messages import Step
from tests.fakes import cluster as clusters

BEFORE = (Step.PREPARE, Step.STOP, Step.START)
ID = 'b59bcfb0-0e5a-4b0a-9b6e-6f8d4a5d3c11'


class Owner(owner.Owner):
    """Nova, as it were.

    :ivar has: ids of guests by claim
    :ivar ended: (claim, error, faults) of each end
    :ivar fault: raised at each end
    :ivar moved: ids of guests that are on another host now
    :ivar away: so many questions are not answered
    """

    def __init__(self):
        self.has, self.ended, self.moved, self.fault = {}, [], set(), None
        self.away = 0

    def begin_restore(self, claim, members, caller):
        self.has[claim] = {member.id for member in members}

    def gone(self, member_ids):
        if self.away:
            self.away -= 1
            raise exception.HostUnreachable(host='nova-conductor', reason='it restarts')
        return frozenset(member_ids) & self.moved

    def end(self, claim, error='', faults=None):
        if self.fault:
            raise self.fault
        if self.has.pop(claim, None):
            self.ended.append((claim, error, faults))


@pytest.fixture
def cluster(tmp_path):
    with clusters.Cluster(tmp_path, {'h1': 'ab'}) as made:
        yield made


@pytest.fixture
def host(cluster):
    found = cluster.hosts['h1']
    found.kill()
    found.owner = Owner()
    found.start()
    return found


@pytest.fixture
def ids(cluster):
    return {name: cluster.world.spec(name).id for name in 'ab'}


@pytest.fixture
def share(cluster, host, ids):
    snapshot = cluster.create()
    return orders.Share(snapshot.id, tuple(
        messages.Member(ids[name], f'Shop {name}') for name in 'ab'), False,
        json.dumps({'context': {}}))


@pytest.fixture
def ask(cluster, share):
    """The host's answer to one order."""
    return lambda step: cluster.compute.order(orders.Order(ID, 'h1', step, share), 30)


@pytest.fixture
def do(ask):
    """The host's answer to the last of some orders, once it is not just "working"."""
    def do(*steps):
        answers = []
        for step in steps:
            answers.append(ask(step))
            clusters.until(lambda step=step: is_said(answers[-1]) or answers.append(ask(step)))
        return answers[-1] if answers else None
    return do


def is_said(answer):
    return not isinstance(answer, orders.OrderWorking) or bool(answer.trouble)


def done(step, *faults):
    return orders.OrderDone(ID, 'h1', step, faults)


def hold(host, method):
    """(an event for when the engine is at ``method``, one that lets it go on)."""
    at, goes_on = threading.Event(), threading.Event()
    host.engine.faults[method] = lambda _work: (at.set(), goes_on.wait(60))
    return at, goes_on


def states(cluster):
    """What each guest is, and whose disk it has."""
    guests = (cluster.world.guest(name) for name in 'ab')
    return [(guest['state'], guest['disk']) for guest in guests]


def is_free(host):
    locks = glob.glob(f'{host.folder}/state-h1/locks/*.lock')
    return not host.left() and not locks and not host.owner.has


# -- steps ---------------------------------------------------------------------------------------


def test_members_run_from_the_cut_and_nothing_stays_claimed(cluster, host, share, do):
    assert [do(step) for step in (*BEFORE, Step.RESUME)] == [
        done(step) for step in (*BEFORE, Step.RESUME)]

    assert states(cluster) == [('running', share.snapshot)] * 2
    assert is_free(host)
    assert host.owner.ended == [(ID, '', {})]


def test_an_undone_restore_leaves_what_was_before(cluster, host, ids, do):
    answer = do(*BEFORE, Step.UNDO)

    assert states(cluster) == [('running', 'own')] * 2
    assert is_free(host)
    assert {fault.member: fault.cause.code for fault in answer.faults} == dict.fromkeys(
        ids.values(), 'member_rebooted')
    assert [end[:2] for end in host.owner.ended] == [(ID, 'the restore was undone')]


def test_an_order_is_answered_at_once_and_carried_out_once(host, ask, do):
    at, goes_on = hold(host, 'restore_prepare')
    assert isinstance(ask(Step.PREPARE), orders.OrderWorking)
    assert at.wait(30)

    assert {type(ask(Step.PREPARE)) for _ in range(5)} == {orders.OrderWorking}
    goes_on.set()

    assert do(Step.PREPARE) == done(Step.PREPARE)
    assert host.engine.calls.count('restore_prepare') == 1


def test_what_is_claimed_is_claimed_from_its_preparation_to_its_end(host, ids, do):
    holds = []
    for step in ('prepare', 'stop', 'start', 'resume', 'finish'):
        host.engine.faults[f'restore_{step}'] = lambda _work: holds.append(
            [host.manager.holds(each) for each in ids.values()] + [host.owner.has.get(ID)])

    do(*BEFORE, Step.RESUME)

    assert holds == [[True, True, set(ids.values())]] * 5


def test_progress_of_the_proof_is_told(cluster, host, share, ask, do):
    proving, goes_on = threading.Event(), threading.Event()
    real = host.store.verify

    def verify(snapshot, tell, only, manifest):
        def slowly(*progress):
            tell(*progress)
            proving.set()
            goes_on.wait(30)
        return real(snapshot, slowly, only, manifest)
    host.store.verify = verify
    ask(Step.PREPARE)
    assert proving.wait(30)

    (progress,) = ask(Step.PREPARE).progress

    goes_on.set()
    assert 0 < progress.done_bytes <= progress.total_bytes
    assert do(Step.PREPARE) == done(Step.PREPARE)


def test_what_is_damaged_is_found_before_anything_is_touched(cluster, host, share, ids, do):
    (path,) = glob.glob(f'{host.store.root}/{share.snapshot}/{ids["b"]}/vda.qcow2')
    with open(path, 'wb') as file:
        file.write(b'DISK')

    answer = do(Step.PREPARE)

    assert answer.cause.code == 'snapshot_damaged'
    assert do(Step.UNDO) == done(Step.UNDO)
    assert not [call for call in host.engine.calls if call.startswith('restore_')
                and call != 'restore_touched']
    assert cluster.world.untouched()
    assert is_free(host)


def test_faults_name_members_as_their_users_do(cluster, host, ids, do):
    do(*BEFORE)
    cluster.world.kill('a')
    with cluster.world.open() as guests:
        guests['a']['inodes'][str(guests['a']['files']['disk'])]['written'] = True

    answer = do(Step.RESUME)

    (fault,) = answer.faults
    assert (fault.member, fault.cause.member, fault.cause.host) == (ids['a'], ids['a'], 'h1')
    assert fault.cause.text.startswith('Member Shop a was left as it is: ')
    assert states(cluster)[1][0] == 'running'
    assert is_free(host)
    assert host.owner.ended == [(ID, '', {ids['a']: fault.cause.text})]


def test_a_member_whose_users_name_an_older_version_did_not_keep_goes_by_libvirts_or_its_id():
    share = orders.Share('s1', (messages.Member('a'), messages.Member('b', 'db')))
    kept = [{'id': each, 'name': f'instance-{each}', 'folder': '', 'facts': {}} for each in 'ab']

    assert [[str(member.spec) for member in steps._work('r1', share, members).members]
            for members in (kept, steps._bare(share))] == [['instance-a', 'db'], ['a', 'db']]


def test_a_guest_that_died_at_the_cut_is_started_again(cluster, host, share, do):
    do(*BEFORE)
    cluster.world.kill('a')

    assert do(Step.RESUME) == done(Step.RESUME)

    assert states(cluster) == [('running', share.snapshot)] * 2


# -- checks --------------------------------------------------------------------------------------


def test_a_check_touches_nothing(cluster, host, share):
    cluster.compute.check_restore('h1', ID, share, 30)

    assert cluster.world.untouched()
    assert is_free(host)


def test_a_check_tells_what_its_user_should_know(cluster, host, share):
    host.engine.warns['restore_check'] = {'b': [('vda', 'it has grown', 'grow it again')]}

    told = cluster.compute.check_restore('h1', ID, share, 30)

    (b,) = (each.id for each in share.members if each.name == 'Shop b')
    assert told == (orders.MemberWarning(b, 'vda', 'it has grown', 'grow it again', 'h1'),)


def test_a_check_says_what_stands_in_the_way(cluster, host, share):
    with cluster.world.open() as guests:
        del guests['b']

    with pytest.raises(exception.Refused, match='^Shop b, guest: its domain is not defined here'):
        cluster.compute.check_restore('h1', ID, share, 30)


def test_a_member_whose_files_are_elsewhere_is_named(cluster, share):
    other = orders.Share(share.snapshot, (*share.members, messages.Member('c', 'cache')))

    with pytest.raises(exception.MembersMoved, match='kept of them: cache.'):
        cluster.compute.check_restore('h1', ID, other, 30)


# -- claims --------------------------------------------------------------------------------------


def test_a_guest_that_a_snapshot_has_refuses_and_is_left_alone(cluster, host, ids, do):
    saving, goes_on = hold(host, 'save')
    snapshot = cluster.snapshots.create(cluster.request('next', members=(('a', 'h1'),)))
    assert saving.wait(30)

    refused = do(Step.PREPARE)

    assert refused.cause.code == 'guest_busy'
    assert 'Member Shop a is busy' in refused.cause.text
    assert do(Step.UNDO) == done(Step.UNDO)
    goes_on.set()
    assert cluster.snapshots.wait(snapshot, 30)
    assert cluster.snapshots.get(snapshot).status == 'available'
    assert is_free(host)


def test_a_restart_cleans_the_guests_of_a_snapshot_that_a_refused_restore_asked_for(
        cluster, host, do):
    saving, goes_on = hold(host, 'save')
    cluster.snapshots.create(cluster.request('next'))
    assert saving.wait(30)
    do(Step.PREPARE)

    host.kill()
    goes_on.set()
    host.start()

    assert cluster.world.untouched()


def test_a_restart_leaves_a_restore_its_guests_though_a_refused_snapshot_cannot_be_cleaned(
        cluster, host, share, do):
    do(Step.PREPARE)
    silent = exception.HypervisorError(member='a', reason='it does not answer')
    host.engine.faults['discard'] = silent
    snapshot = cluster.snapshots.create(cluster.request('next'))
    clusters.until(lambda: cluster.snapshots.get(snapshot).decision == 'discard')

    host.kill()
    host.engine.faults['discard'] = silent
    host.start()

    assert do(Step.STOP) == done(Step.STOP)
    host.engine.faults.clear()
    cluster.snapshots.wait(snapshot, 60)
    assert do(Step.START, Step.RESUME) == done(Step.RESUME)
    assert states(cluster) == [('running', share.snapshot)] * 2


def test_an_undo_leaves_out_whom_another_has_and_it_never_touched(cluster, host, ids, do):
    """Its preparation came as far as the first of two."""
    host.engine.faults['restore_prepare'] = lambda _work: host.engine.faults.update(
        restore_prepare=exception.HypervisorError(member='a', reason='no room'))
    do(Step.PREPARE)
    host.kill()
    with cluster.world.open() as guests:
        guests['b']['files'].pop(f'new-{ID}', None)
    host.start()
    host.manager._restores._steps.unlock(ID)
    assert host.manager._participants.domain_locks.take(f'domain-{ids["b"]}')
    undone = []
    host.engine.faults['restore_undo'] = lambda work: undone.extend(
        member.spec.id for member in work.members)

    assert do(Step.UNDO) == done(Step.UNDO)

    assert undone == [ids['a']]
    host.manager._participants.domain_locks.release(f'domain-{ids["b"]}')


def test_an_undo_waits_for_whom_another_has_and_it_did_touch(cluster, host, ids, do):
    do(Step.PREPARE)
    host.manager._restores._steps.unlock(ID)
    others = host.manager._participants.domain_locks
    assert others.take(f'domain-{ids["b"]}')

    answer = do(Step.UNDO)

    assert 'Member Shop b is busy' in answer.trouble
    others.release(f'domain-{ids["b"]}')
    assert do(Step.UNDO) in (done(Step.UNDO), answer)
    clusters.until(lambda: do(Step.UNDO) == done(Step.UNDO))
    assert is_free(host)


def test_an_owner_who_cannot_be_told_is_told_again(host, ids, do):
    do(*BEFORE)
    host.owner.fault = exception.HostUnreachable(host='nova-conductor', reason='it restarts')

    answer = do(Step.RESUME)

    assert 'nova-conductor' in answer.trouble
    assert all(map(host.manager.holds, ids.values()))
    host.owner.fault = None
    clusters.until(lambda: do(Step.RESUME) == done(Step.RESUME))
    assert host.engine.calls.count('restore_resume') == 1
    assert is_free(host)


def test_who_was_booted_by_an_undo_is_told_though_the_owner_was_away(host, ids, do):
    do(*BEFORE[:2])
    host.owner.fault = exception.HostUnreachable(host='nova-conductor', reason='it restarts')
    assert 'nova-conductor' in do(Step.UNDO).trouble

    host.owner.fault = None
    clusters.until(lambda: isinstance(do(Step.UNDO), orders.OrderDone))

    assert {fault.member for fault in do(Step.UNDO).faults} == set(ids.values())
    assert is_free(host)


# -- an owner who needs his guest ----------------------------------------------------------------


def withdraw(host, member_id):
    host.manager.withdraw(member_id, 'it is rebooted')


@pytest.mark.parametrize('restarts', [False, True])
@pytest.mark.parametrize('after', [1, 2, 3])
def test_a_guest_that_its_owner_took_back_is_not_touched_again(
        cluster, host, ids, do, after, restarts):
    do(*BEFORE[:after])
    withdraw(host, ids['a'])
    cluster.world.boot('a')
    before = cluster.world.guest('a')['state']
    if restarts:
        host.kill()
        host.start()

    refused = do(BEFORE[min(after, 2)])

    assert (refused.cause.code, refused.cause.text) == ('withdrawn', 'it is rebooted')
    do(Step.UNDO)
    assert cluster.world.guest('a')['state'] == before
    assert not cluster.world.misplaced()
    assert states(cluster)[1] == ('running', 'own')
    assert is_free(host)


def test_a_guest_that_its_owner_took_back_does_not_run_after_the_decision(
        cluster, host, ids, do):
    do(*BEFORE)
    withdraw(host, ids['a'])
    with cluster.world.open() as guests:
        guests['a']['state'] = 'shut off'

    answer = do(Step.RESUME)

    assert [(fault.member, fault.cause.code) for fault in answer.faults] == [
        (ids['a'], 'withdrawn')]
    assert [state for state, _disk in states(cluster)] == ['shut off', 'running']
    assert is_free(host)


def test_an_owner_waits_for_the_step_that_is_at_work_on_his_guest(cluster, host, ids, ask):
    at, goes_on = hold(host, 'restore_prepare')
    ask(Step.PREPARE)
    assert at.wait(30)
    withdrawing = threading.Thread(target=withdraw, args=(host, ids['a']))
    withdrawing.start()
    clusters.until(lambda: host.manager._restores.busy()[0].withdrawn)
    assert withdrawing.is_alive()

    goes_on.set()
    withdrawing.join(30)

    assert not withdrawing.is_alive()
    assert not cluster.world.guest('a')['files'].get(f'old-{ID}')


def test_an_owner_does_not_wait_for_ever(host, ids, ask, monkeypatch):
    monkeypatch.setattr(restores, '_WITHDRAW_S', 0.2)
    at, goes_on = hold(host, 'restore_prepare')
    ask(Step.PREPARE)
    assert at.wait(30)

    with pytest.raises(exception.GuestBusy, match='a restore is at work on it'):
        withdraw(host, ids['a'])

    goes_on.set()


@pytest.mark.parametrize('give_up', ['undo', 'withdraw'])
def test_a_store_that_hangs_keeps_no_guest(cluster, host, ids, ask, do, give_up):
    proving, goes_on = threading.Event(), threading.Event()
    host.store.verify = lambda *_args: (proving.set(), goes_on.wait(60))
    ask(Step.PREPARE)
    assert proving.wait(30)

    began = time.monotonic()
    if give_up == 'withdraw':
        withdraw(host, ids['a'])
        assert do(Step.PREPARE).cause.code == 'withdrawn'
    assert do(Step.UNDO) == done(Step.UNDO)

    assert time.monotonic() - began < 20
    assert is_free(host)
    goes_on.set()


def test_a_guest_that_moved_away_unheard_of_is_not_started_here(cluster, host, ids, do):
    """Its host was cut off, and Nova evacuated it."""
    do(*BEFORE)
    host.lose_power('a', 'b')
    host.owner.moved = {ids['a']}
    host.start()

    answer = do(Step.RESUME)

    assert [fault.member for fault in answer.faults] == [ids['a']]
    assert [state for state, _disk in states(cluster)] == ['shut off', 'running']
    assert is_free(host)


def test_an_owner_who_is_away_for_a_moment_costs_a_moment(host, do, monkeypatch):
    monkeypatch.setattr(restores, '_ASK_AGAIN_S', 0.01)
    do(Step.PREPARE)
    host.owner.away = 3

    assert do(Step.STOP) == done(Step.STOP)
    assert host.owner.away == 0


def test_an_owner_who_is_away_for_long_keeps_no_guest(cluster, host, do, ask):
    do(Step.PREPARE)
    host.owner.away = 1000
    ask(Step.STOP)
    clusters.until(lambda: host.owner.away < 1000)

    answer = do(Step.UNDO)

    assert 'nova-conductor' in answer.trouble    # its decision is tried again as it is ordered
    host.owner.away = 0
    clusters.until(lambda: do(Step.UNDO) == done(Step.UNDO))
    assert is_free(host)


def test_a_guest_that_moved_away_ends_a_restore_that_is_not_decided(host, ids, do):
    do(Step.PREPARE)
    host.owner.moved = {ids['a']}

    answer = do(Step.STOP)

    assert answer.cause.code == 'guest_changed'
    assert 'a changed' in answer.cause.text
    assert 'restore_stop' not in host.engine.calls


def test_a_withdrawal_is_not_forgotten_by_what_was_being_written(host, ids, ask):
    """It comes while the journal is told that the step is done."""
    journal = host.manager._restores._orders
    real, writing, goes_on = journal.write, threading.Event(), threading.Event()

    def write(part):
        if part.status == 'done':
            writing.set()
            goes_on.wait(30)
        real(part)
    journal.write = write
    ask(Step.PREPARE)
    assert writing.wait(30)
    withdrawing = threading.Thread(target=withdraw, args=(host, ids['a']))
    withdrawing.start()
    clusters.until(lambda: host.manager._restores.busy()[0].withdrawn)

    goes_on.set()
    withdrawing.join(30)
    host.kill()
    host.start()

    assert host.manager._restores.busy()[0].withdrawn == (ids['a'],)


# -- processes that die --------------------------------------------------------------------------


@pytest.mark.parametrize('end', [Step.RESUME, Step.UNDO])
@pytest.mark.parametrize('at', ['restore_prepare', 'restore_stop', 'restore_start', 'swap',
                                'load'])
def test_a_host_that_dies_in_a_step_goes_on_when_it_is_asked_again(
        cluster, host, ids, share, ask, do, at, end):
    before = [step for step in BEFORE if f'restore_{step}' != at]
    step = Step.START if at in ('swap', 'load') else Step(at.removeprefix('restore_'))
    do(*before[:BEFORE.index(step)])
    reached, _goes_on = hold(host, at)
    ask(step)
    assert reached.wait(30)
    host.kill()
    host.start()
    assert all(map(host.manager.holds, ids.values()))

    do(*BEFORE[BEFORE.index(step):], end)

    assert states(cluster) == [('running', share.snapshot if end is Step.RESUME else 'own')] * 2
    assert not cluster.world.misplaced()
    assert is_free(host)


@pytest.mark.parametrize(('end', 'at'), [
    (Step.RESUME, 'restore_resume'), (Step.RESUME, 'let_run'), (Step.RESUME, 'restore_finish'),
    (Step.UNDO, 'restore_undo'), (Step.UNDO, 'boot'), (Step.UNDO, 'restore_clear')])
def test_what_was_decided_goes_on_by_itself_when_a_host_comes_back(
        cluster, host, share, ask, do, end, at):
    do(*BEFORE)
    reached, _goes_on = hold(host, at)
    ask(end)
    assert reached.wait(30)
    host.kill()

    host.start()

    clusters.until(lambda: is_free(host))
    assert states(cluster) == [('running', share.snapshot if end is Step.RESUME else 'own')] * 2


@pytest.mark.parametrize('at', ['restore_undo', 'restore_clear', 'the end'])
def test_who_was_booted_by_an_undo_is_told_by_a_host_that_comes_back(
        cluster, host, ids, ask, do, at):
    do(*BEFORE)
    if at == 'the end':    # all is dropped, and it is not on record
        host.owner.fault = exception.HostUnreachable(host='nova-conductor', reason='it restarts')
        assert 'nova-conductor' in do(Step.UNDO).trouble
        host.owner.fault = None
    else:
        reached, _goes_on = hold(host, at)
        ask(Step.UNDO)
        assert reached.wait(30)
    host.kill()

    host.start()

    clusters.until(lambda: is_free(host))
    answer = do(Step.UNDO)
    assert {fault.member: fault.cause.code for fault in answer.faults} == dict.fromkeys(
        ids.values(), 'member_rebooted')


def test_a_service_that_ends_has_not_failed_at_what_it_did(host, ask, do):
    proving, goes_on = threading.Event(), threading.Event()
    real = host.store.verify

    def verify(snapshot, tell, only, manifest):
        proving.set()
        goes_on.wait(60)
        return real(snapshot, tell, only, manifest)
    host.store.verify = verify
    ask(Step.PREPARE)
    assert proving.wait(30)

    began = time.monotonic()
    host.stop()
    assert time.monotonic() - began < 20
    goes_on.set()
    host.manager = None
    host.start()

    assert do(Step.PREPARE) == done(Step.PREPARE)


def test_another_process_of_the_host_does_not_go_on_with_it(cluster, host, ids, share, do):
    do(*BEFORE)
    other = host._manager()
    other.start()

    assert other._restores.busy() == ()
    answer = other.serve(orders.Order(ID, 'h1', Step.UNDO, share))

    clusters.until(lambda: 'another process' in getattr(
        other.serve(orders.Order(ID, 'h1', Step.UNDO, share)), 'trouble', ''))
    assert isinstance(answer, orders.OrderWorking)
    assert states(cluster) == [('paused', share.snapshot)] * 2
    other.stop()
    assert do(Step.RESUME) == done(Step.RESUME)


# -- what is ended, and what is lost -------------------------------------------------------------


@pytest.mark.parametrize('restarts', [False, True])
@pytest.mark.parametrize('state', ['paused', 'shut off'])
def test_a_repeat_after_the_end_touches_no_guest(cluster, host, do, state, restarts):
    do(*BEFORE, Step.RESUME)
    with cluster.world.open() as guests:
        guests['a']['state'] = state    # by its user
    if restarts:
        host.kill()
        host.start()
    calls = len(host.engine.calls)

    assert do(Step.RESUME) == done(Step.RESUME)
    assert do(Step.UNDO).cause.code == 'restore_ended'
    assert do(Step.PREPARE).cause.code == 'restore_ended'

    assert len(host.engine.calls) == calls
    assert cluster.world.guest('a')['state'] == state
    assert is_free(host)


def test_a_late_preparation_begins_nothing_that_was_undone(cluster, host, do):
    assert do(Step.UNDO) == done(Step.UNDO)

    assert do(Step.PREPARE).cause.code == 'restore_ended'
    assert is_free(host)


@pytest.mark.parametrize('end', [Step.RESUME, Step.UNDO])
def test_a_decision_does_not_need_the_snapshot_any_more(cluster, host, share, do, end):
    """Hosts share a store, and another deletes it by force."""
    do(*BEFORE)
    host.store.delete(share.snapshot)

    do(end)

    assert states(cluster) == [('running', share.snapshot if end is Step.RESUME else 'own')] * 2
    assert is_free(host)


@pytest.mark.parametrize('end', [Step.RESUME, Step.UNDO])
def test_a_decision_does_not_need_the_journal(cluster, host, share, do, end):
    do(*BEFORE)
    host.kill()
    (path,) = glob.glob(f'{host.folder}/state-h1/restores/{ID}.json')
    with open(path, 'w') as file:
        file.write('{')
    host.start()

    do(end)

    assert states(cluster) == [('running', share.snapshot if end is Step.RESUME else 'own')] * 2
    os.unlink(f'{path}.damaged')
    assert is_free(host)


def test_a_host_that_never_heard_of_it_says_that_its_members_do_not_run(cluster, host, ids, do):
    answer = do(Step.RESUME)

    assert sorted(fault.member for fault in answer.faults) == sorted(ids.values())
    assert cluster.world.untouched()
    assert is_free(host)


def test_a_journal_that_cannot_be_written_begins_nothing_but_a_decision(cluster, host, do):
    do(*BEFORE)
    journal = host.manager._restores._orders
    real = journal.write

    def fail(_part):
        raise exception.StoreUnavailable(store='/var/lib/hotsnap', reason='it is full')
    journal.write = fail
    host.manager.serve(orders.Order('other', 'h1', Step.PREPARE, host_share(host)))
    assert 'restore_prepare' not in host.engine.calls[-1:]

    do(Step.UNDO)

    journal.write = real
    assert states(cluster) == [('running', 'own')] * 2


def host_share(host):
    return host.manager._restores.busy()[0].share


@pytest.mark.parametrize('end', [Step.RESUME, Step.UNDO])
@pytest.mark.parametrize('after', [1, 2, 3])
def test_a_restore_of_the_version_before_is_ended_as_decided(
        cluster, host, ids, share, do, after, end):
    """Its order was `{snapshot_id, restore_id, paused, members}`, whatever the step."""
    do(*BEFORE[:after])
    host.kill()
    path = f'{host.folder}/state-h1/restores/{ID}.json'
    with open(path) as file:
        members = json.load(file)['kept_members']
    with open(path, 'w') as file:
        json.dump({'snapshot_id': share.snapshot, 'restore_id': ID, 'paused': False, 'members': [
            {'spec': {'id': each['id'], 'name': each['name']}, 'folder': each['folder'],
             'facts': each['facts']} for each in members]}, file)
    host.start()
    assert all(map(host.manager.holds, ids.values()))
    if after == 3 or end is Step.UNDO:
        assert do(Step.START).cause.code == 'upgraded'

        do(end)

        assert states(cluster) == [
            ('running', share.snapshot if end is Step.RESUME else 'own')] * 2
        assert is_free(host)
