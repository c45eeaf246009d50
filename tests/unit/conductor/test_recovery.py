# SPDX-License-Identifier: Apache-2.0
"""Processes that die: whoever starts next leaves guests running and nothing behind."""

import dataclasses
import os
import threading
import time

import pytest

from hotsnap_nova.conductor import drive
from hotsnap_nova.protocol import coordinator as machines
from hotsnap_nova.protocol import messages
from hotsnap_nova.storage import local
from tests.fakes import cluster as clusters


@pytest.mark.filterwarnings('ignore::pytest.PytestUnhandledThreadExceptionWarning')
@pytest.mark.parametrize('gate', ['hold', 'barrier'])
@pytest.mark.parametrize('step', ['prepare', 'record', 'record_member', 'release', 'save'])
def test_a_participant_that_died_at_a_step_is_cleaned_up_by_the_next(
        cluster, step, gate, monkeypatch):
    monkeypatch.setattr(drive, 'CALL_MS', 1_000)    # so long lost answers are waited for
    host = cluster.hosts['h2']
    host.die_at(step)
    snapshot = cluster.snapshots.create(cluster.request(
        gate=gate, prepare_timeout_s=1.0, deadline_s=2.0, max_hold_ms=1000))
    cluster.snapshots.wait(snapshot, timeout_s=1.5)

    host.kill()
    found = host.start()
    assert cluster.snapshots.wait(snapshot, timeout_s=60)

    assert found == (snapshot,)
    assert cluster.snapshots.get(snapshot).status == 'error'
    assert cluster.clean()


def test_a_participant_restarted_after_saving_still_publishes(cluster):
    host = cluster.hosts['h2']
    cluster.hosts['h1'].engine.save_s = 1.5
    snapshot = cluster.snapshots.create(cluster.request())
    clusters.until(lambda: 'saved' in host.phases())

    host.kill()
    host.start()
    cluster.snapshots.wait(snapshot)

    assert cluster.snapshots.get(snapshot).status == 'available'
    assert cluster.snapshots.verify(snapshot)['files'] == 9
    assert cluster.clean()


def _finish(cluster, row, host):
    """What a host without its ledger says when it is told again to publish."""
    cluster.hosts[host].kill()
    os.unlink(f'{cluster.folder}/state-{host}/epochs.json')
    cluster.hosts[host].start()
    return cluster.compute.receive(messages.Finish(row.id, row.epoch, host), 10)


def test_what_is_published_is_finished_on_a_host_that_forgot_it(cluster):
    row = cluster.create()

    assert isinstance(_finish(cluster, row, 'h1'), messages.Finished)


def test_what_another_host_published_is_not_finished_on_a_host_that_forgot_it(cluster, tmp_path):
    cluster.hosts['h2'].store = local.LocalStore(f'{tmp_path}/store-h2')
    cluster.hosts['h2'].stop()
    cluster.hosts['h2'].start()
    row = cluster.create()
    cluster.hosts['h2'].store = cluster.hosts['h1'].store

    assert _finish(cluster, row, 'h2').cause.code == 'unknown_snapshot'


def test_leftovers_no_journal_knows_are_removed(cluster):
    host = cluster.hosts['h1']
    host.kill()
    with cluster.world.open() as guests:
        guests['a'].update(left=['abcdef'], closed_by='abcdef')

    host.start()

    assert cluster.clean()


def test_what_a_live_process_is_at_work_on_is_left_alone(cluster, tmp_path):
    cluster.hosts['h1'].engine.save_s = 1.5
    snapshot = cluster.snapshots.create(cluster.request(members=(('a', 'h1'), ('b', 'h1'))))
    clusters.until(lambda: 'saving' in cluster.hosts['h1'].phases())
    second = clusters.Host('h1', cluster.folder, cluster.transport, cluster.world)

    found = second.manager_only()

    assert found == ()
    assert not {'discard', 'clean'} & set(second.engine.calls)
    cluster.snapshots.wait(snapshot)
    assert cluster.snapshots.get(snapshot).status == 'available'


def test_a_draft_whose_process_died_before_its_journal_is_removed(cluster):
    host = cluster.hosts['h1']
    host.store.begin('0b2f7bb4-0000-4000-8000-000000000000', 'h1')
    host.kill()

    host.start()

    assert host.store.drafts() == ()


@pytest.mark.parametrize(('stop_at', 'found', 'status'), [
    (('release', False), 'none', 'error'),
    (('finish', False), 'release', 'available'),
    (('finish', True), 'finish', 'available'),
])
def test_a_dead_coordinators_snapshot_is_taken_over(cluster, stop_at, found, status):
    """The first coordinator dies as it writes (decision, closed)."""
    real = cluster.database.compare_and_swap

    def die(snapshot, generation, **values):
        if generation >= 0 and (values['decision'], values['closed']) == stop_at:
            cluster.database.compare_and_swap = real
            raise clusters.Died
        return real(snapshot, generation, **values)
    first = cluster.coordinator('dead')
    cluster.database.compare_and_swap = die
    snapshot = first.create(cluster.request())
    clusters.until(lambda: cluster.database.compare_and_swap is real)
    _bury(first, snapshot)
    cluster.database.take_lease(
        snapshot, 'dead', 3600, dead=cluster.database.get(snapshot).lease_owner)
    assert cluster.snapshots.get(snapshot).decision == found
    heir = cluster.coordinator('heir', is_dead=lambda owner: owner == 'dead')

    assert heir.recover() == (snapshot,)
    heir.wait(snapshot)

    assert cluster.snapshots.get(snapshot).status == status
    assert cluster.clean()


def test_a_snapshot_that_cannot_be_gone_on_with_is_not_in_the_way_of_others(cluster):
    stuck = cluster.create('stuck', members=(('a', 'h1'),))
    other = cluster.create('other', members=(('c', 'h2'),))
    for row, plan in ((stuck, '{"kind": "OfTheFuture"}'),
                      (other, '{"restore_id": "y", "paused": false, "step": "prepare"}')):
        cluster.database.compare_and_swap(
            row.id, row.generation, status='restoring', restore=plan)

    taken = cluster.snapshots.recover()

    assert taken == (other.id,)
    assert cluster.snapshots.wait(other.id, 60)
    assert cluster.snapshots.get('other').status == 'available'
    stuck = cluster.snapshots.get('stuck')
    assert (stuck.status, stuck.lease_owner) == ('restoring', None)    # it was given back


def test_what_goes_on_is_forgotten_when_it_is_over(cluster):
    for number in range(3):
        cluster.create(f's{number}')

    assert cluster.snapshots._works == {}


def test_an_abort_of_what_another_has_taken_over_reaches_it(cluster):
    """It comes to the first by chance, which has not noticed yet, or has just stood down."""
    for engine in cluster.engines():
        engine.save_s = 60
    snapshot = cluster.snapshots.create(cluster.request())
    clusters.until(lambda: 'saving' in cluster.hosts['h1'].phases())
    heir = cluster.coordinator('heir', is_dead=lambda owner: owner.startswith('first/'))
    assert heir.recover() == (snapshot,)
    assert cluster.snapshots.wait(snapshot, 20)

    cluster.snapshots.abort(snapshot, 'its user')

    assert heir.wait(snapshot, 30)
    assert (heir.get(snapshot).status, heir.get(snapshot).error_code) == ('error', 'aborted')


def test_of_two_coordinators_the_one_that_is_late_stands_down(cluster):
    for engine in cluster.engines():
        engine.save_s = 1.0
    snapshot = cluster.snapshots.create(cluster.request())
    clusters.until(lambda: 'saving' in cluster.hosts['h1'].phases())
    heir = cluster.coordinator('heir', is_dead=lambda owner: owner.startswith('first/'))

    assert heir.recover() == (snapshot,)
    heir.wait(snapshot)
    cluster.snapshots.wait(snapshot)

    assert cluster.snapshots.get(snapshot).status == 'available'
    assert cluster.clean()


def test_a_coordinator_that_took_over_just_before_the_other_ended_it_stands_down(cluster):
    """It saw nothing of that but hosts which say "finished" to whatever it asks."""
    for engine in cluster.engines():
        engine.save_s = 1.0
    snapshot = cluster.snapshots.create(cluster.request())
    clusters.until(lambda: 'saving' in cluster.hosts['h1'].phases())
    before = cluster.database.get(snapshot)
    cluster.snapshots.wait(snapshot)
    late = cluster.coordinator('late')
    assert cluster.database.take_lease(snapshot, 'late', 3600)

    late._take_over(before, 'late')

    assert late.wait(snapshot, 60)
    found = cluster.snapshots.get(snapshot)
    assert (found.status, found.lease_owner) == ('available', None)
    assert cluster.clean()


def test_who_dies_right_after_the_end_leaves_no_lease(cluster):
    real, leases = cluster.database.compare_and_swap, []

    def swap(snapshot, generation, **values):
        generation = real(snapshot, generation, **values)
        if values.get('phase') == 'closed':
            leases.append(cluster.database.get(snapshot).lease_owner)
        return generation
    cluster.database.compare_and_swap = swap

    cluster.create()
    cluster.snapshots.restore('nightly')

    assert leases == [None, None]


def test_a_live_coordinators_snapshot_is_not_taken_over(cluster):
    cluster.hosts['h1'].engine.save_s = 1.0
    snapshot = cluster.snapshots.create(cluster.request())

    assert cluster.coordinator('other').recover() == ()

    cluster.snapshots.wait(snapshot)
    assert cluster.snapshots.get(snapshot).status == 'available'


def test_a_coordinator_that_is_late_but_known_to_live_is_left_alone(cluster):
    """A command on a busy machine: its lease is over, its process is not."""
    cluster.hosts['h1'].engine.save_s = 1.0
    snapshot = cluster.snapshots.create(cluster.request())
    cluster.database.renew_lease(snapshot, cluster.database.get(snapshot).lease_owner, -1)
    other = cluster.coordinator('other', is_dead=lambda owner: not owner.startswith('first/'))

    assert other.recover() == ()

    cluster.snapshots.wait(snapshot)
    assert cluster.snapshots.get(snapshot).status == 'available'


def test_a_lease_lasts_while_gates_are_closed_and_nothing_renews_it(cluster):
    mine = cluster.coordinator('mine', lease_s=1.0)
    goes_on = threading.Event()
    cluster.hosts['h2'].engine.faults['record'] = lambda _about: goes_on.wait(60)
    snapshot = mine.create(cluster.request())
    clusters.until(lambda: mine._works[snapshot]._must_be_let_be())
    time.sleep(1.5)

    taken = cluster.coordinator('other').recover()

    goes_on.set()
    assert taken == ()
    mine.wait(snapshot)
    assert mine.get(snapshot).status == 'available'


def test_what_a_coordinator_just_begins_it_does_not_take_over_from_itself(cluster, monkeypatch):
    """Its loop may look between the new row and the drive."""
    real, taken = cluster.database.create, []

    def create(*args, **kwargs):
        real(*args, **kwargs)
        taken.append(cluster.snapshots.recover())
    monkeypatch.setattr(cluster.database, 'create', create)

    row = cluster.create()

    assert taken == [()]
    assert row.status == 'available'


def _bury(coordinator, snapshot):
    """End what a dead process would not have gone on with."""
    driven = coordinator._works[snapshot]
    driven._runner.carry_out = lambda todo: None
    driven._machine.state = dataclasses.replace(
        driven._machine.state, phase=machines.Phase.STOOD_DOWN, waiting=(), deadline_ns=None)
    assert driven.wait(10)
