# SPDX-License-Identifier: Apache-2.0
"""Epochs and leases, between threads and processes too."""

import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
import sqlite3
import threading
import time

import pytest
import sqlalchemy as sa
from oslo_db import exception as db_exception

from hotsnap_nova import exception
from hotsnap_nova.db import api
from tests.unit.db import rows


def test_epochs_grow_for_each_group_apart(database):
    assert [database.next_epoch('g') for _ in range(3)] == [1, 2, 3]
    assert database.next_epoch('h') == 1


def test_epochs_outlive_snapshots(database):
    database.create(rows.snapshot(epoch=database.next_epoch('g')), ())
    database.delete('s1')

    assert database.next_epoch('g') == 2


def test_no_epoch_is_given_twice(database, other):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        given = list(pool.map(lambda n: (database, other)[n % 2].next_epoch('g'), range(80)))

    assert sorted(given) == list(range(1, 81))


def test_a_group_another_coordinator_has_just_begun_is_gone_on_with(database, other):
    """On a server both may find no row and add one; SQLite lets nobody in between."""
    @sa.event.listens_for(database._engine.engine, 'before_cursor_execute')
    def be_late(_connection, _cursor, statement, *_more):
        if statement.startswith('INSERT INTO group_epochs') and not late:
            late.append(statement)
            raise db_exception.DBDuplicateEntry(columns=['group_id'])

    late = []

    assert [database.next_epoch('g') for _ in range(3)] == [1, 2, 3]
    assert len(late) == 1


def test_a_lease_has_one_holder(database, other):
    database.create(rows.snapshot(), ())

    assert database.take_lease('s1', 'c1', 30) is True
    assert other.take_lease('s1', 'c2', 30) is False
    assert database.take_lease('s1', 'c1', 30) is True


def test_an_expired_lease_is_taken_over_and_cannot_be_renewed(database, other, clock):
    database.create(rows.snapshot(), (), owner='c1', lease_s=30)
    clock.now += 29
    assert other.take_lease('s1', 'c2', 30) is False

    clock.now += 1.001
    assert other.take_lease('s1', 'c2', 30) is True

    assert database.renew_lease('s1', 'c1', 30) is False
    assert database.release_lease('s1', 'c1') is False
    assert database.get('s1').lease_owner == 'c2'


def test_leases_are_measured_by_the_databases_clock_and_no_coordinators(
        database, other, clock, monkeypatch):
    monkeypatch.setattr(time, 'time', lambda: clock.now + 600)

    database.create(rows.snapshot(), (), owner='c1', lease_s=30)
    assert other.take_lease('s1', 'c2', 30) is False
    clock.now += 31

    assert other.take_lease('s1', 'c2', 30) is True
    assert database.now() == pytest.approx(clock.now, abs=0.001)


def test_a_renewed_lease_lasts(database, other, clock):
    database.create(rows.snapshot(), (), owner='c1', lease_s=30)
    clock.now += 20
    assert database.renew_lease('s1', 'c1', 30) is True

    clock.now += 20

    assert other.take_lease('s1', 'c2', 30) is False


def test_a_released_lease_is_free_at_once(database, other):
    database.create(rows.snapshot(), (), owner='c1', lease_s=30)

    assert database.release_lease('s1', 'c1') is True

    assert other.take_lease('s1', 'c2', 30) is True


def test_a_lease_of_the_dead_is_taken_by_force(database, other):
    database.create(rows.snapshot(), (), owner='c1', lease_s=30)

    assert other.take_lease('s1', 'c2', 30, dead='c1') is True

    assert database.renew_lease('s1', 'c1', 30) is False


def test_of_two_who_know_the_holder_to_be_dead_one_takes_its_lease(database, other):
    database.create(rows.snapshot(), (), owner='c1', lease_s=30)

    assert database.take_lease('s1', 'c2', 30, dead='c1') is True
    assert other.take_lease('s1', 'c3', 30, dead='c1') is False

    assert database.renew_lease('s1', 'c2', 30) is True


def test_one_of_many_takes_an_expired_lease(database, url):
    database.create(rows.snapshot(), ())
    many = [api.Database(url) for _ in range(6)]
    start = threading.Barrier(len(many))

    def take(number):
        start.wait()
        return many[number].take_lease('s1', f'c{number}', 30)

    with concurrent.futures.ThreadPoolExecutor(len(many)) as pool:
        taken = list(pool.map(take, range(len(many))))
    for each in many:
        each.close()

    assert taken.count(True) == 1


def _decide_until_killed(url, told):
    database = api.Database(url)
    generation = database.get('s1').generation
    while True:
        generation = database.compare_and_swap('s1', generation, machine=f'm{generation}')
        told.send(generation)


def test_a_decision_that_was_confirmed_outlives_kill_9(database, url):
    database.create(rows.snapshot(), ())
    context = multiprocessing.get_context('spawn')
    heard, told = context.Pipe(duplex=False)
    child = context.Process(target=_decide_until_killed, args=(url, told))
    child.start()
    told.close()
    for _ in range(20):
        confirmed = heard.recv()
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    # What was under way when it died may have arrived in part.
    with contextlib.suppress(EOFError, OSError):
        while True:
            confirmed = heard.recv()

    found = database.get('s1')

    assert confirmed <= found.generation <= confirmed + 1
    assert found.machine == f'm{found.generation - 1}'


def test_a_commit_reaches_the_disk_and_is_not_followed_by_a_checkpoint(database, url, tmp_path):
    """SQLite's own settings decide it: a log, synced at each commit, kept open."""
    with sqlite3.connect(tmp_path / 'hotsnap.db') as probe:
        assert probe.execute('PRAGMA journal_mode').fetchone() == ('wal',)
    probe.close()
    with database._engine.engine.connect() as connection:
        assert connection.exec_driver_sql('PRAGMA synchronous').scalar() == 2
    database.create(rows.snapshot(), ())
    before = (tmp_path / 'hotsnap.db').read_bytes()

    database.compare_and_swap('s1', 0, machine='z' * 5000)

    assert (tmp_path / 'hotsnap.db').read_bytes() == before
    assert b'zzzz' in (tmp_path / 'hotsnap.db-wal').read_bytes()


def test_a_snapshot_begins_with_a_checkpoint_behind_it(database, tmp_path):
    """So that none of its decisions, made while guests wait, comes to the log's limit."""
    database.create(rows.snapshot(machine='q' * 5000), ())

    assert b'qqqq' in (tmp_path / 'hotsnap.db').read_bytes()


def test_the_file_is_private(database, tmp_path):
    for path in tmp_path.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600, path


def test_a_database_that_cannot_be_opened_is_told_in_one_line(tmp_path):
    (tmp_path / 'rubbish').write_bytes(b'no database at all' * 100)

    for url in (f'sqlite:///{tmp_path}/no/such/folder/x.db', f'sqlite:///{tmp_path}/rubbish',
                'no url'):
        with pytest.raises(exception.DatabaseUnavailable) as caught:
            api.Database(url).upgrade()
        assert '\n' not in str(caught.value)
