# SPDX-License-Identifier: Apache-2.0
"""What hosts owe: in order, by one coordinator at a time, and the row goes with the last."""

import concurrent.futures
import threading

import pytest

from hotsnap_nova import exception
from hotsnap_nova.db import api
from tests.unit.db import rows

OWED = [('h1', 'order', {'n': 1}), ('h1', 'message', {'n': 2}), ('h1', 'delete', {}),
        ('h2', 'delete', {})]


@pytest.fixture
def deleted(database):
    """The generation of a snapshot whose deletion has begun."""
    database.create(rows.snapshot(), rows.members('a'), owner='c1', lease_s=30)
    database.swap_for_errands('s1', 0, OWED, remove=False, status='deleting', decision='discard',
                              closed=True)
    return database.get('s1').generation


def kinds(database, host=None):
    return [(each.host, each.kind) for each in database.errands(host)]


def of(database, host, kind):
    (found,) = [each for each in database.errands(host) if each.kind == kind]
    return found


def exists(database):
    return bool(database.list())


def test_errands_come_in_the_order_in_which_they_were_given(database, clock):
    clock.now += 100
    database.add_errand('s2', 'h', 'delete', {'of': 's2'})
    clock.now -= 100    # a server whose clock was put right

    database.add_errand('s1', 'h', 'delete', {'of': 's1'})
    database.add_errand('s2', 'h', 'delete', {'of': 's2'})

    assert [each.detail['of'] for each in database.errands('h')] == ['s2', 's1']
    assert [each.detail['of'] for each in database.errands(snapshot_id='s1')] == ['s1']


def test_the_end_of_another_restore_of_the_snapshot_is_not_lost(database):
    database.add_errand('s1', 'h', 'order', {'restore': 'r1'})    # which its host never did

    database.add_errand('s1', 'h', 'order', {'restore': 'r2'})

    assert [each.detail['restore'] for each in database.errands('h')] == ['r2']


@pytest.mark.usefixtures('deleted')
def test_a_deletion_takes_the_row_from_whoever_was_at_it(database):
    found = database.get('s1')

    assert (found.status, found.lease_owner, found.generation) == ('deleting', None, 1)
    assert database.renew_lease('s1', 'c1', 30) is False
    with pytest.raises(exception.StaleGeneration):
        database.compare_and_swap('s1', 0, status='available')


def test_of_two_who_saw_the_same_generation_one_deletes(database, deleted):
    for remove in (False, True):
        with pytest.raises(exception.StaleGeneration):
            database.swap_for_errands('s1', deleted - 1, [('h9', 'delete', {})], remove=remove)

    assert ('h9', 'delete') not in kinds(database)
    database.swap_for_errands('s1', deleted, [], remove=True)
    with pytest.raises(exception.SnapshotNotFound):
        database.swap_for_errands('s1', deleted, [], remove=True)
    assert kinds(database) == [(host, kind) for host, kind, _ in OWED]


def test_what_a_host_owes_already_it_goes_on_owing_in_its_place(database, deleted):
    order = of(database, 'h1', 'order')
    assert database.claim_errand(order, 'c1', 60)
    database.put_off_errand(order, 'c1', 3600, 'no')

    database.swap_for_errands(
        's1', deleted, [('h1', 'order', {'n': 1}), ('h3', 'delete', {})], remove=False)

    assert of(database, 'h1', 'order').id == order.id
    assert kinds(database)[-1] == ('h3', 'delete')
    assert database.claim_errand(order, 'c2', 60)    # at once


def test_what_a_host_owes_otherwise_now_it_owes_no_more_as_before(database, deleted):
    database.swap_for_errands('s1', deleted, [('h1', 'message', {'n': 9})], remove=False)

    assert [(each.kind, each.detail) for each in database.errands('h1')] == [
        ('order', {'n': 1}), ('delete', {}), ('message', {'n': 9})]


@pytest.mark.usefixtures('deleted')
def test_the_row_goes_with_the_last_errand(database):
    *first, last = database.errands()
    for errand in first:
        database.end_errand(errand)
        assert exists(database)

    database.end_errand(last)

    assert not exists(database)


@pytest.mark.usefixtures('deleted')
def test_the_row_goes_too_where_its_deletion_had_failed_meanwhile(database):
    database.show_deletion_failed('s1', error_code='x', error_message='why', error_host='h1')
    found = database.get('s1')
    assert (found.status, found.error_code, found.error_host) == ('error_deleting', 'x', 'h1')

    for errand in database.errands():
        database.end_errand(errand)

    assert not exists(database)


@pytest.mark.parametrize('values', [
    {'status': 'available', 'decision': 'finish'},
    {'status': 'restoring', 'decision': 'finish'},
    {'status': 'error_deleting', 'decision': 'finish'},    # an older version's: it has data
    {'status': 'error', 'decision': 'discard'}])
def test_a_snapshot_that_is_not_being_deleted_outlives_its_errands(database, values):
    database.create(rows.snapshot(), (), owner='c1', lease_s=30)
    database.compare_and_swap('s1', 0, closed=True, **values)
    database.add_errand('s1', 'h1', 'order', {})

    database.end_errand(database.errands()[0])
    database.show_deletion_failed('s1', error_code='x')

    assert exists(database)
    assert database.get('s1').status == values['status']


@pytest.mark.usefixtures('deleted')
def test_an_errand_is_one_coordinators_at_a_time(database, other, clock):
    order = of(database, 'h1', 'order')
    assert database.claim_errand(order, 'c1', 60) is True

    assert other.claim_errand(order, 'c2', 60) is False

    clock.now += 61    # the first one died
    assert other.claim_errand(order, 'c2', 60) is True
    database.put_off_errand(order, 'c1', 3600, 'it comes too late to say')
    assert of(database, 'h1', 'order').claimed_by == 'c2'


def test_one_of_many_gets_an_errand(database, url):
    database.add_errand('s1', 'h', 'delete', {})
    (errand,) = database.errands()
    many = [api.Database(url) for _ in range(6)]
    start = threading.Barrier(len(many))

    def claim(number):
        start.wait()
        return many[number].claim_errand(errand, f'c{number}', 60)

    with concurrent.futures.ThreadPoolExecutor(len(many)) as pool:
        claimed = list(pool.map(claim, range(len(many))))
    for each in many:
        each.close()

    assert claimed.count(True) == 1


@pytest.mark.usefixtures('deleted')
def test_a_hosts_errands_of_a_snapshot_are_done_in_order_and_others_at_once(database):
    assert database.claim_errand(of(database, 'h1', 'delete'), 'c1', 60) is False
    assert database.claim_errand(of(database, 'h1', 'message'), 'c1', 60) is False
    assert database.claim_errand(of(database, 'h2', 'delete'), 'c1', 60) is True

    database.end_errand(of(database, 'h1', 'order'))

    assert database.claim_errand(of(database, 'h1', 'delete'), 'c1', 60) is False
    assert database.claim_errand(of(database, 'h1', 'message'), 'c1', 60) is True


@pytest.mark.usefixtures('deleted')
def test_what_failed_is_left_alone_for_a_while_and_tells_why(database, clock):
    order = of(database, 'h1', 'order')
    assert database.claim_errand(order, 'c1', 60)

    database.put_off_errand(order, 'c1', 10, 'QEMU hangs')

    found = of(database, 'h1', 'order')
    assert (found.attempts, found.error, found.claimed_by) == (1, 'QEMU hangs', None)
    assert database.claim_errand(order, 'c1', 60) is False
    clock.now += 11
    assert database.claim_errand(order, 'c1', 60) is True


@pytest.mark.parametrize('which', [{'host': 'h1'}, {'snapshot_id': 's1'}])
@pytest.mark.usefixtures('deleted')
def test_what_was_put_off_is_hastened(database, which):
    for errand in (of(database, 'h1', 'order'), of(database, 'h2', 'delete')):
        assert database.claim_errand(errand, 'c1', 60)
        database.put_off_errand(errand, 'c1', 3600, 'away')

    database.hasten_errands(**which)

    assert database.claim_errand(of(database, 'h1', 'order'), 'c1', 60) is True
    assert database.claim_errand(of(database, 'h2', 'delete'), 'c1', 60) is ('host' not in which)


@pytest.mark.parametrize(('status', 'shown'), [('available', 'error'), ('deleting', 'deleting')])
def test_what_a_host_has_lost_is_available_no_more(database, status, shown):
    database.create(rows.snapshot(), (), owner='c1', lease_s=30)
    database.compare_and_swap('s1', 0, status=status, closed=True)

    database.show_lost('s1', error_code='unknown_snapshot')

    assert database.get('s1').status == shown
