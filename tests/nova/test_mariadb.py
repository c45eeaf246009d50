# SPDX-License-Identifier: Apache-2.0
"""The coordinators' database on MariaDB: what SQLite cannot show."""

import concurrent.futures
import contextlib
import itertools
import threading
import time

import alembic.autogenerate
import alembic.runtime.migration
import pytest

from hotsnap_nova import exception
from hotsnap_nova.db import api, claims, migration, models
from tests.nova import mariadb
from tests.unit.db import interrupted

_names = (f'hotsnap{number}' for number in itertools.count())


@pytest.fixture(scope='module')
def server(tmp_path_factory):
    made = mariadb.Server(tmp_path_factory.mktemp('m'))
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def database(server):
    made = api.Database(server.make(next(_names)))
    yield made
    made.close()


def row(snapshot, **values):
    return {'id': snapshot, 'name': 'same', 'group_id': 'g', 'epoch': 1, 'gate': 'hold',
            'status': 'available', 'phase': 'closed', 'project_id': 'p', **values}


MEMBERS = [{'member_id': 'm', 'name': 'm', 'host': 'h'}]


def test_migrations_and_models_agree(database):
    migration.upgrade(database._engine.engine, '0001')
    database.upgrade()

    with database._engine.engine.connect() as connection:
        context = alembic.runtime.migration.MigrationContext.configure(
            connection, opts={'compare_type': True})
        assert alembic.autogenerate.compare_metadata(context, models.Base.metadata) == []
    database.must_be_current()


def test_a_migration_that_was_killed_at_any_statement_is_gone_on_with(server):
    """Of 0003, whose steps rest on one another most; of the others see `unit/db`."""
    for number in itertools.count():
        made = api.Database(server.make(next(_names)))
        ended = interrupted.upgrade(made._engine.engine, number, ('head',))

        with made._engine.engine.connect() as connection:
            context = alembic.runtime.migration.MigrationContext.configure(
                connection, opts={'compare_type': True})
            assert alembic.autogenerate.compare_metadata(context, models.Base.metadata) == []
            assert interrupted.errands(connection) == interrupted.GIVEN
        made.close()
        if ended:
            break
    assert number > 6


def test_a_row_comes_back_as_it_was_written(database):
    database.upgrade()
    long = 'ä' * 100_000
    database.create(row('s', machine=long, last_action={'name': 'verify'}), MEMBERS)

    found = database.get('s')

    assert (found.machine, found.last_action, found.disk) == (long, {'name': 'verify'}, 'backup')
    assert found.created_at.microsecond


def test_a_taken_name_is_told_from_an_id_used_twice(database):
    database.upgrade()
    database.create(row('s'), MEMBERS)

    with pytest.raises(exception.NameTaken, match='same'):
        database.create(row('t'), MEMBERS)
    with pytest.raises(exception.DatabaseUnavailable):
        database.create(row('s', name="live_name'"), MEMBERS)


def test_quotas_hold_where_many_are_added_at_once(database):
    database.upgrade()

    def create(number):
        try:
            database.create(row(f's{number}'), MEMBERS, unique_name=False,
                            quotas=[('project_id', 'p', 3), ('group_id', 'g', 5)])
        except exception.OverQuota as exc:
            return exc
        return None
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(create, range(16)))

    assert outcomes.count(None) == len(database.list()) == 3
    assert {str(each) for each in outcomes if each} == {
        'Quota exceeded: 3 of 3 group snapshots of project p exist.'}


def test_a_quota_holds_where_two_come_before_either_is_kept(database, monkeypatch):
    """The second is not counted before the first is there to be seen, or is not."""
    database.upgrade()
    count, counted = claims.keep_quota, threading.Barrier(2)

    def count_together(*args):
        count(*args)
        with contextlib.suppress(threading.BrokenBarrierError):    # where one waits for the other
            counted.wait(3)
    monkeypatch.setattr(claims, 'keep_quota', count_together)

    def create(number):
        try:
            database.create(row(f's{number}'), MEMBERS, unique_name=False,
                            quotas=[('project_id', 'p', 1)])
        except exception.OverQuota as exc:
            return exc
        return None
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(create, range(2)))

    assert outcomes.count(None) == len(database.list()) == 1


def test_of_two_decisions_one_is_stale(database):
    database.upgrade()
    database.create(row('s'), MEMBERS)

    def decide(_number):
        try:
            return database.compare_and_swap('s', 0, status='deleting')
        except exception.StaleGeneration:
            return None
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(decide, range(4)))

    assert sorted(outcomes, key=str) == [1, None, None, None]


@pytest.mark.parametrize('zone', ['+00:00', '-11:30'])
def test_time_is_the_servers_whatever_its_zone(database, zone):
    with database._engine.engine.begin() as connection:
        connection.exec_driver_sql(f"SET GLOBAL time_zone = '{zone}'")
    database._engine.engine.dispose()
    database.upgrade()

    database.create(row('s'), MEMBERS, owner='c1', lease_s=30)

    found = database.get('s')
    assert abs(database.now() - time.time()) < 5
    assert 25 < found.lease_expires_at - time.time() < 35
    assert abs(found.created_at.timestamp() - time.time()) < 5


def test_heartbeats(database):
    database.upgrade()
    for _ in range(2):
        database.heard_of('b', 'h', version='1', rpc_version='1.1', started_at=1.0)

    assert [each.host for each in database.services()] == ['h']
    database.forget_service('b', 'h')
    assert database.services() == ()


def test_errands_are_claimed_put_off_and_done(database):
    database.upgrade()
    for _ in range(2):
        database.add_errand('s', 'h', 'order', {})
    database.add_errand('s', 'h', 'delete', {})
    order, delete = database.errands('h')

    assert not database.claim_errand(delete, 'c', 60)
    assert database.claim_errand(order, 'c', 60)
    assert not database.claim_errand(order, 'another', 60)
    database.put_off_errand(order, 'c', 3600, 'away')
    assert not database.claim_errand(order, 'another', 60)
    database.hasten_errands(host='h')
    assert database.claim_errand(order, 'another', 60)
    database.end_errand(order)
    assert database.claim_errand(delete, 'c', 60)


def test_who_ends_the_last_errands_at_the_same_time_removes_the_row(database):
    database.upgrade()
    for number in range(20):
        database.create(row(f's{number}'), MEMBERS, unique_name=False)
        database.swap_for_errands(f's{number}', 0, [('h1', 'delete', {}), ('h2', 'delete', {})],
                                  remove=False, status='deleting', decision='discard', closed=True)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for host in ('h1', 'h2'):
            pool.submit(lambda host=host: [
                database.end_errand(each) for each in database.errands(host)])

    assert database.errands() == ()
    assert database.list() == ()
