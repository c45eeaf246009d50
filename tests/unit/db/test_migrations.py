# SPDX-License-Identifier: Apache-2.0
import concurrent.futures
import itertools
import multiprocessing
import sys
import threading

import alembic.autogenerate
import alembic.command
import alembic.runtime.migration
import alembic.script
import pytest
import sqlalchemy as sa
from sqlalchemy import schema
from sqlalchemy.dialects import mysql

from hotsnap_nova import exception
from hotsnap_nova.db import api, engine, migration, models
from tests.unit.db import interrupted, rows


@pytest.fixture
def empty(url):
    empty = engine.Engine(url)
    yield empty
    empty.close()


def differences(connection):
    context = alembic.runtime.migration.MigrationContext.configure(
        connection, opts={'compare_type': True})
    return alembic.autogenerate.compare_metadata(context, models.Base.metadata)


def test_migrations_and_models_agree(empty):
    migration.upgrade(empty.engine)

    with empty.engine.connect() as connection:
        assert differences(connection) == []


def test_a_column_without_a_migration_would_be_noticed(empty):
    migration.upgrade(empty.engine)
    with empty.engine.begin() as connection:
        connection.exec_driver_sql('ALTER TABLE snapshots DROP COLUMN skew_ms')

    with empty.engine.connect() as connection:
        assert len(differences(connection)) == 1


def test_each_migration_follows_the_one_before():
    script = alembic.script.ScriptDirectory.from_config(migration.configuration())

    assert script.get_current_head() == migration.HEAD
    assert len(script.get_heads()) == 1
    assert len(script.get_bases()) == 1


def test_current_tables_are_known_without_alembic(database, monkeypatch):
    for name in ('alembic', 'alembic.command', 'alembic.config'):
        monkeypatch.setitem(sys.modules, name, None)

    database.upgrade()
    database.must_be_current()


def test_each_migration_applies_in_turn_from_nothing(empty):
    script = alembic.script.ScriptDirectory.from_config(migration.configuration())

    for revision in reversed([each.revision for each in script.walk_revisions()]):
        migration.upgrade(empty.engine, revision)

    with empty.engine.connect() as connection:
        assert differences(connection) == []


def test_upgrading_keeps_what_is_there(database):
    database.create(rows.snapshot(), rows.members('a'))

    database.upgrade()

    assert database.get('s1').members[0].name == 'a'


def set_version(database, version):
    with database._engine.engine.begin() as connection:
        connection.execute(sa.text(f"UPDATE alembic_version SET version_num = '{version}'"))


def test_tables_of_a_newer_version_are_refused(database):
    set_version(database, '9999')

    with pytest.raises(exception.DatabaseUnavailable, match='another version'):
        database.upgrade()
    with pytest.raises(exception.DatabaseUnavailable, match='of version 9999'):
        database.must_be_current()


def test_tables_to_which_a_newer_version_only_added_are_worked_with(database):
    """A coordinator of this version may be started again while others are upgraded."""
    set_version(database, '0999')

    database.upgrade()
    database.must_be_current()

    assert database.version() == ('0999', migration.HEAD)


def test_tables_that_lack_what_this_version_needs_are_refused(database):
    set_version(database, '0001')

    with pytest.raises(exception.DatabaseUnavailable, match='db sync'):
        database.must_be_current()


def test_errands_given_to_the_first_service_are_done_in_that_order(empty):
    migration.upgrade(empty.engine, '0002')
    given = [('s', 'h', 'restore', 3.0), ('s', 'h', 'message', 4.0), ('s', 'h', 'delete', 5.0),
             ('a', 'h', 'delete', 6.0)]
    with empty.engine.begin() as connection:
        for snapshot, host, kind, at in reversed(given):
            connection.exec_driver_sql(
                'INSERT INTO errands (snapshot_id, host, kind, detail, created_at) VALUES '
                f"('{snapshot}', '{host}', '{kind}', '{{}}', {at})")

    migration.upgrade(empty.engine)

    database = api.Database(str(empty.engine.url))
    found = database.errands()
    database.close()
    assert [(each.snapshot_id, each.host, each.kind, each.created_at) for each in found] == given
    assert {(each.attempts, each.claimed_by) for each in found} == {(0, None)}


def test_what_ended_at_any_statement_is_gone_on_with(tmp_path):
    """Where each statement is committed by itself, as MariaDB does."""
    for number in itertools.count():
        made = sa.create_engine(f'sqlite:///{tmp_path}/{number}.db', isolation_level='AUTOCOMMIT')
        sa.event.listen(made, 'connect', lambda connection, _record: connection.execute(
            'PRAGMA synchronous = OFF'))
        ended = interrupted.upgrade(made, number)

        with made.connect() as connection:
            assert differences(connection) == []
            assert interrupted.errands(connection) == interrupted.GIVEN
        made.dispose()
        if ended:
            break
    assert number > 15


def _upgrade(url):
    database = api.Database(url)
    database.upgrade()
    epoch = database.next_epoch('g')
    database.close()
    return epoch


def test_processes_that_start_together_make_the_tables_once(url):
    with concurrent.futures.ProcessPoolExecutor(
            3, mp_context=multiprocessing.get_context('spawn')) as pool:
        epochs = list(pool.map(_upgrade, [url] * 6))

    assert sorted(epochs) == list(range(1, 7))


def test_who_comes_second_waits_for_who_makes_the_tables(url, empty):
    late = engine.Engine(url)
    began = threading.Event()
    sa.event.listen(late.engine, 'begin', lambda _connection: began.set())
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with empty.engine.begin() as connection:
            connection.exec_driver_sql('PRAGMA user_version = 1')
            config = migration.configuration()
            config.attributes['connection'] = connection
            alembic.command.upgrade(config, 'head')
            second = pool.submit(migration.upgrade, late.engine)
            began.wait()
            # Time to read what is not there yet, if it does so before it waits.
            concurrent.futures.wait([second], timeout=0.3)
        second.result()
    late.close()


def test_tables_that_are_right_are_not_locked(database, url):
    busy = engine.Engine(url)
    with busy.engine.begin() as connection:
        connection.exec_driver_sql('PRAGMA user_version = 1')

        database.upgrade()
    busy.close()


def test_tables_can_be_made_on_mariadb():
    """Compiled only: no server is asked. What it does refuse, the compiler does not all know."""
    for table in models.Base.metadata.sorted_tables:
        statement = str(schema.CreateTable(table).compile(dialect=mysql.dialect()))
        assert 'utf8mb4' in statement
        assert 'InnoDB' in statement
        for key in [table.primary_key, *table.indexes,
                    *(c for c in table.constraints if isinstance(c, sa.UniqueConstraint))]:
            # InnoDB's longest key, in bytes of utf8mb4
            assert sum(4 * getattr(column.type, 'length', None) if isinstance(
                column.type, sa.String) else 8 for column in key.columns) <= 3072


def test_migrations_make_on_mariadb_what_models_say(monkeypatch):
    """The same statements, whoever makes the tables: types that SQLite does not tell apart."""
    script = alembic.script.ScriptDirectory.from_config(migration.configuration())
    made = sa.MetaData()

    class Collector:
        """Stands in for alembic's op, and for `once`: keeps tables instead of making them."""

        def has_table(self, name):
            return name in made.tables

        def has_column(self, table, name):
            return name in made.tables[table].columns

        def create_table(self, name, *parts, **options):
            sa.Table(name, made, *parts, **options)

        def create_index(self, name, table, columns):
            sa.Index(name, *(made.tables[table].c[column] for column in columns))

        def rename_table(self, name, _new):
            """Its rows are then copied into one that is made anew."""
            made.remove(made.tables[name])

        def drop_index(self, *_names):
            pass

        drop_table = execute = drop_index

        def add_column(self, table, column):
            made.tables[table].append_column(column)

    for revision in reversed(list(script.walk_revisions())):
        module = revision.module
        for name in ('op', 'once'):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, Collector())
        module.upgrade()

    def statements(metadata):
        return {table.name: str(schema.CreateTable(table).compile(dialect=mysql.dialect()))
                for table in metadata.sorted_tables}

    assert statements(made) == statements(models.Base.metadata)
