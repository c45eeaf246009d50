# SPDX-License-Identifier: Apache-2.0
import dataclasses
import datetime

import pytest

from hotsnap_nova import exception
from hotsnap_nova.db import claims
from tests.unit.db import rows


def create(database, snapshot_id='s1', **values):
    database.create(rows.snapshot(snapshot_id, **values), rows.members('b', 'a'))


def ids(found):
    return [row.id for row in found]


def test_what_does_not_fit_beside_the_others_of_its_project_is_not_added(database):
    create(database, project_id='p')
    create(database, 's2', project_id='p', status='error')
    create(database, 's3', project_id='another')
    seen = []

    def must_fit(others):
        seen.append([(each.id, len(each.members)) for each in others])
        raise exception.Invalid('no room')
    with pytest.raises(exception.Invalid, match='no room'):
        database.create(rows.snapshot('s4', project_id='p'), rows.members('a'),
                        must_fit=must_fit)
    database.create(rows.snapshot('s5', project_id='p'), rows.members('a'), must_fit=seen.append)

    assert seen == [[('s1', 2)], (database.get('s1'),)]
    assert set(ids(database.list())) == {'s1', 's2', 's3', 's5'}


def test_who_must_fit_takes_the_turn_of_its_project_first(database):
    """As for the other quotas: on a cluster of several writers nothing else keeps them apart."""
    turns, began = [], claims.take_turn

    def take_turn(session, *of):
        turns.append(of)
        began(session, *of)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(claims, 'take_turn', take_turn)
        database.create(rows.snapshot(project_id='p'), rows.members('a'),
                        must_fit=lambda _others: turns.append('counted'))

    assert turns == [('project_id', 'p'), 'counted']


def test_what_is_created_is_read_back(database):
    database.create(
        rows.snapshot(properties={'k': 'v'}, project_id='p', machine='{"m": 1}'),
        [{'member_id': 'm2', 'name': 'two', 'host': 'h2', 'detail': {'cpu': 'x'}},
         {'member_id': 'm1', 'name': 'one', 'host': 'h1'}], owner='c1', lease_s=30)

    found = database.get('s1')

    assert (found.properties, found.project_id, found.machine) == ({'k': 'v'}, 'p', '{"m": 1}')
    assert (found.generation, found.closed, found.decision) == (0, False, 'none')
    assert found.lease_owner == 'c1'
    assert found.lease_expires_at == pytest.approx(1_700_000_030, abs=0.001)
    assert [m.name for m in found.members] == ['two', 'one']
    assert found.members[0].detail == {'cpu': 'x'}
    assert found.created_at == datetime.datetime.fromtimestamp(1_700_000_000, datetime.UTC)


def test_records_are_frozen_and_detached(database):
    create(database)

    found = database.get('s1')
    database.delete('s1')

    assert found.members[0].host == 'h'
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.status = 'available'


def test_a_snapshot_is_found_by_its_id_before_anothers_name(database):
    create(database, 's1', name='s2')
    create(database, 's2', name='s1')

    assert database.get('s1').id == 's1'
    assert database.get('s2').id == 's2'


def test_a_name_is_taken_within_its_project(database):
    create(database, 's1', name='monday', project_id='p')

    with pytest.raises(exception.NameTaken, match='monday'):
        create(database, 's2', name='monday', project_id='p')
    create(database, 's3', name='monday', project_id='q')

    assert ids(database.list()) == ['s3', 's1']
    assert database.get('monday', project_id='p').id == 's1'
    with pytest.raises(exception.NameNotUnique):
        database.get('monday')


def test_a_failed_snapshot_gives_its_name_back(database):
    create(database, 's1', name='monday')
    database.compare_and_swap('s1', 0, status='error', closed=True)

    create(database, 's2', name='monday')

    assert database.get('monday').id == 's2'
    assert database.get('s1').status == 'error'


def test_a_failed_snapshot_is_found_by_its_name_where_no_other_has_it(database):
    create(database, 's1', name='monday')
    database.compare_and_swap('s1', 0, status='error', closed=True)

    assert database.get('monday').id == 's1'

    create(database, 's2', name='monday')
    database.compare_and_swap('s2', 0, status='error', closed=True)
    with pytest.raises(exception.NameNotUnique):
        database.get('monday')


def test_names_may_repeat_where_that_is_asked_for(database):
    for snapshot_id in ('s1', 's2'):
        database.create(rows.snapshot(snapshot_id, name='monday'), (), unique_name=False)

    assert len(database.list(name='monday')) == 2


def test_an_id_used_twice_is_not_told_as_a_name_clash(database):
    create(database, 's1', name='monday')

    with pytest.raises(exception.DatabaseUnavailable):
        create(database, 's1', name='tuesday')


def test_a_failed_creation_leaves_nothing(database):
    with pytest.raises(exception.DatabaseUnavailable):
        database.create(rows.snapshot(), rows.members('a', 'a'))

    assert database.list() == ()


def test_the_unknown_is_not_found(database):
    for attempt in (lambda: database.get('x'),
                    lambda: database.compare_and_swap('x', 0, phase='y'),
                    lambda: database.update('x', skew_ms=1.0),
                    lambda: database.request_abort('x', 'why'),
                    lambda: database.list(marker='x')):
        with pytest.raises(exception.SnapshotNotFound):
            attempt()
    assert database.delete('x') is False
    assert database.take_lease('x', 'c1', 1) is False


def test_of_two_who_saw_the_same_generation_one_decides(database, other):
    create(database)

    assert database.compare_and_swap('s1', 0, decision='release') == 1
    with pytest.raises(exception.StaleGeneration):
        other.compare_and_swap('s1', 0, decision='discard')

    assert other.get('s1').decision == 'release'
    assert other.get('s1').generation == 1
    assert other.compare_and_swap('s1', 1, decision='finish') == 2


def test_a_stale_decision_changes_no_column(database):
    create(database)
    database.compare_and_swap('s1', 0, phase='record')
    before = database.get('s1')

    with pytest.raises(exception.StaleGeneration):
        database.compare_and_swap('s1', 0, status='error', phase='x', machine='y')

    assert database.get('s1') == before


def test_what_a_decision_rests_on_changes_by_compare_and_swap_alone(database):
    create(database)

    for column in ('status', 'decision', 'closed', 'machine', 'generation', 'restore', 'phase',
                   'lease_owner'):
        with pytest.raises(exception.Bug):
            database.update('s1', **{column: 'x'})
    with pytest.raises(exception.Bug):
        database.update_members('s1', {'id-a': {'host': 'elsewhere'}})


def test_measurements_do_not_raise_the_generation(database):
    create(database)

    database.update('s1', skew_ms=3.5)
    database.update_members('s1', {
        'id-a': {'pause_ms': 12.5, 'detail': {'files': [{'blake3': 'ff'}]}},
        'id-b': {'done_bytes': 10, 'total_bytes': 1 << 40}, 'id-nobody': {'done_bytes': 1}})

    found = database.get('s1')
    by_name = {member.name: member for member in found.members}
    assert (found.generation, found.skew_ms) == (0, 3.5)
    assert by_name['a'].pause_ms == 12.5
    assert by_name['a'].detail == {'files': [{'blake3': 'ff'}]}
    assert (by_name['b'].done_bytes, by_name['b'].total_bytes) == (10, 1 << 40)


def test_renaming_keeps_names_unique(database):
    create(database, 's1', name='one')
    create(database, 's2', name='two')

    with pytest.raises(exception.NameTaken):
        database.update('s2', name='one')
    database.update('s1', name='three')
    database.update('s2', name='one')

    assert (database.get('one').id, database.get('three').id) == ('s2', 's1')


def test_pages_cover_everything_once_newest_first(database, clock):
    for number in range(7):
        clock.now += number % 2    # some in the same instant
        create(database, f's{number}')
    seen, marker = [], None

    while page := database.list(limit=3, marker=marker):
        seen += ids(page)
        marker = page[-1].id

    assert seen == ids(database.list())
    assert sorted(seen) == [f's{number}' for number in range(7)]
    assert [row.created_at for row in database.list()] == sorted(
        (row.created_at for row in database.list()), reverse=True)


def test_filters_narrow_the_list(database):
    create(database, 's1', group_id='g1', project_id='p')
    create(database, 's2', group_id='g2', project_id='p')
    create(database, 's3', group_id='g1', project_id='q')
    database.compare_and_swap('s1', 0, status='available')

    assert ids(database.list(group_id='g1', project_id='p')) == ['s1']
    assert ids(database.list(status='creating')) == ['s3', 's2']
    assert ids(database.list(status=('creating', 'available'), project_id='p')) == ['s2', 's1']
    assert ids(database.list(name='name of s2')) == ['s2']
    assert database.list(status='restoring') == ()


def test_open_are_the_unclosed_and_the_restoring(database, clock):
    for snapshot_id, values in (
            ('unclosed', {'decision': 'discard'}),
            ('done', {'status': 'available', 'closed': True}),
            ('failed', {'status': 'error', 'closed': True}),
            ('restoring', {'status': 'restoring', 'closed': True})):
        clock.now += 1
        create(database, snapshot_id)
        database.compare_and_swap(snapshot_id, 0, **values)

    assert ids(database.open_snapshots()) == ['unclosed', 'restoring']


def test_a_wish_to_abort_is_left_for_whoever_drives(database, other):
    create(database)
    assert database.abort_requested('s1') is None

    other.request_abort('s1', 'by its user')

    assert database.abort_requested('s1') == 'by its user'
    assert database.get('s1').generation == 0


def test_deleting_takes_the_members_along(database):
    create(database)

    assert database.delete('s1') is True

    create(database)    # the same member ids
    assert len(database.get('s1').members) == 2


def test_purging_removes_old_failures_only(database, clock):
    failed = {'status': 'error', 'closed': True, 'decision': 'discard'}
    for snapshot_id, values in (('old', failed),
                                ('unanswered', failed | {'closed': False}),
                                ('fine', {'status': 'available', 'closed': True})):
        create(database, snapshot_id)
        database.compare_and_swap(snapshot_id, 0, **values)
    clock.now += 100
    create(database, 'new')
    database.compare_and_swap('new', 0, **failed)

    purged = database.purge(datetime.datetime.fromtimestamp(clock.now - 50, datetime.UTC))

    assert purged == 1
    assert sorted(ids(database.list())) == ['fine', 'new', 'unanswered']


def test_a_project_keeps_so_many_failures_the_newest_and_what_is_not_over(database, clock):
    failed = {'status': 'error', 'closed': True, 'decision': 'discard'}
    for number, values in enumerate((failed, failed | {'closed': False}, failed, failed, failed)):
        clock.now += 1
        create(database, f's{number}', project_id='p')
        database.compare_and_swap(f's{number}', 0, **values)
    create(database, 'theirs', project_id='other')
    database.compare_and_swap('theirs', 0, **failed)

    clock.now += 1
    database.create(rows.snapshot('new', project_id='p'), (), keep_failed=2)

    assert sorted(ids(database.list())) == ['new', 's1', 's3', 's4', 'theirs']


@pytest.mark.parametrize('values', [
    {'decision': 'finish'}, {'decision': 'discard', 'restore': '{}'}])
def test_purging_orphans_no_data_of_what_an_operator_called_an_error(database, clock, values):
    create(database)
    database.compare_and_swap('s1', 0, status='available', closed=True, **values)
    database.set_status('s1', 'error')

    assert database.purge(datetime.datetime.fromtimestamp(clock.now + 1, datetime.UTC)) == 0


def test_a_phase_shown_late_changes_nothing(database):
    """The thread that says so may be overtaken by the next decision."""
    create(database)
    generation = database.compare_and_swap('s1', 0, decision='release', phase='release')
    assert database.show_phase('s1', 'save', generation)
    assert database.get('s1').phase == 'save'
    database.compare_and_swap('s1', generation, decision='discard', phase='discard')

    assert not database.show_phase('s1', 'save', generation)

    assert database.get('s1').phase == 'discard'
