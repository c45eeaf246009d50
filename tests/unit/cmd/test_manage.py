# SPDX-License-Identifier: Apache-2.0
"""``nova-hotsnap-manage``, typed; its answers are one line each."""

import io
import json
import logging
import subprocess
import sys

import pytest
from oslo_config import cfg

from hotsnap_nova import conf, exception, rpc
from hotsnap_nova.cmd import manage as commands
from hotsnap_nova.conductor import service
from hotsnap_nova.db import api
from tests.fakes import cells
from tests.fakes import cluster as clusters
from tests.fakes.ran import Ran


@pytest.fixture
def typed(tmp_path):
    """A command's words; its configuration is in two files, as the guide has it."""
    (tmp_path / 'nova.conf').write_text('[DEFAULT]\ntransport_url = fake:/\n')
    (tmp_path / 'conductor.conf').write_text(
        f'[hotsnap]\ndatabase_connection = sqlite:///{tmp_path}/db\n')

    def typed(*words, files=('nova.conf', 'conductor.conf')):
        return [*(f'--config-file={tmp_path / name}' for name in files), *words]
    return typed


@pytest.fixture
def manage(typed, capsys, monkeypatch):
    """Run the real shell in this process, which cliff would leave with its logging."""
    root = logging.getLogger('')
    before, level = root.handlers[:], root.level

    def run(*words, transport=None, **more):
        monkeypatch.setattr(cfg, 'CONF', cfg.ConfigOpts())    # as a process begins with it
        out, err = io.StringIO(), io.StringIO()
        try:
            status = commands.Shell(transport, stdout=out, stderr=err).run(typed(*words, **more))
        except SystemExit as exc:    # how argparse ends a process
            status = exc.code
        finally:
            root.handlers[:] = before
            root.setLevel(level)
        return Ran(status, out.getvalue(), err.getvalue() + capsys.readouterr().err)
    return run


def test_as_a_process_of_its_own(typed):
    def run(*words):
        done = subprocess.run([sys.executable, '-m', 'hotsnap_nova.cmd.manage', *typed(*words)],
                              capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr
    assert run('db', 'purge', '--all-errors')[0] == 1
    assert run('db', 'sync')[0] == 0
    assert run('db', 'purge', '--all-errors') == (0, '0 removed\n', '')


def test_what_needs_tables_says_how_to_make_them(manage):
    for words in (('service', 'list'), ('db', 'purge', '--all-errors'), ('db', 'version')):
        done = manage(*words)

        assert done.status == 1
        assert 'db sync' in done.err
        assert done.err.count('\n') == 1


def test_tables_are_made_and_making_them_again_changes_nothing(manage):
    assert manage('db', 'sync').status == 0
    assert manage('db', 'sync').status == 0

    assert manage('db', 'version').status == 0
    assert manage('db', 'purge', '--before', '2026-01-31').out == '0 removed\n'
    assert manage('service', 'list', '-f', 'json').out.strip() == '[]'


def test_what_hosts_owe_is_listed_and_dropped(manage, tmp_path):
    manage('db', 'sync')
    database = api.Database(f'sqlite:///{tmp_path}/db')
    for snapshot, host in (('s1', 'h1'), ('s2', 'h1'), ('s1', 'h2')):
        database.add_errand(snapshot, host, 'delete', {})
    database.close()

    def listed():
        rows = json.loads(manage('errand', 'list', '-f', 'json').out)
        assert all(row['Since'].endswith('Z') for row in rows)
        return [(row['Host'], row['Snapshot'], row['Kind']) for row in rows]
    assert sorted(listed()) == [
        ('h1', 's1', 'delete'), ('h1', 's2', 'delete'), ('h2', 's1', 'delete')]

    assert manage('errand', 'drop', 'h1', '--snapshot', 's1').out == '1 dropped\n'
    assert sorted(listed()) == [('h1', 's2', 'delete'), ('h2', 's1', 'delete')]
    assert manage('errand', 'drop', 'h1').out == '1 dropped\n'
    assert listed() == [('h2', 's1', 'delete')]
    assert manage('errand', 'drop').status == 2


def test_why_an_errand_stays_is_listed(manage, tmp_path):
    manage('db', 'sync')
    database = api.Database(f'sqlite:///{tmp_path}/db')
    for snapshot in ('s1', 's2'):
        database.add_errand(snapshot, 'h1', 'delete', {})
    tried, _ = database.errands()
    assert database.claim_errand(tried, 'me', 60)
    database.put_off_errand(tried, 'me', 60, 'Host h1 does not answer: its store hangs.')
    database.close()

    rows = json.loads(manage('errand', 'list', '-f', 'json').out)

    assert [(row['Snapshot'], row['Attempts'], row['Reason']) for row in rows] == [
        ('s1', 1, 'Host h1 does not answer: its store hangs.'), ('s2', 0, '')]


def test_a_date_that_is_none_is_named(manage):
    done = manage('db', 'purge', '--before', 'nonsense')

    assert done.status == 2
    assert done.err.endswith('nonsense is no date like 2026-01-31\n')


def test_a_database_that_was_not_told_is_asked_for(manage):
    done = manage('service', 'list', files=('nova.conf',))

    assert done.status == 1
    assert 'database_connection' in done.err


# -- what hosts have -----------------------------------------------------------------------------


@pytest.fixture
def cluster(tmp_path):
    with clusters.Cluster(tmp_path, {'h1': 'a', 'h2': 'b'}) as made:
        yield made


@pytest.fixture
def saved(cluster):
    """Id of a snapshot that h1 has saved, and h2 saves for a minute yet."""
    cluster.hosts['h2'].engine.save_s = 60.0
    snapshot = cluster.snapshots.create(cluster.request('lost'))
    clusters.until(lambda: 'saved' in cluster.hosts['h1'].phases())
    yield snapshot
    for host in cluster.hosts:
        clusters.until(lambda host=host: cluster.compute.forget(host, snapshot))


@pytest.fixture
def part(cluster, manage):
    """Run a command of `part`, which a coordinator serves."""
    made = cfg.ConfigOpts()
    conf.register(made)
    made([], default_config_files=[], default_config_dirs=[])
    made.set_override('database_connection', f'sqlite:///{cluster.folder}/hotsnap.db', 'hotsnap')
    serving = service.Service(made.hotsnap, 'c1', cluster.transport, cells.Cells(cluster))
    serving.start()
    yield lambda *words: manage('part', *words, transport=cluster.transport)
    serving.stop()


def test_a_part_whose_row_is_gone_is_listed_and_forgotten(cluster, saved, part):
    cluster.database.delete(saved)

    (listed,) = part('list', 'h1', '-f', 'json').json

    assert listed == {'Kind': 'snapshot', 'ID': saved, 'Snapshot': saved, 'State': 'saved',
                      'Members': 'a', 'Reason': '', 'Ends By Itself': False}
    assert part('forget', 'h1', saved).status == 0
    assert part('list', 'h1', '-f', 'json').json == []
    assert not cluster.hosts['h1'].left()


def test_a_part_that_its_row_ends_is_not_forgotten(cluster, saved, part):
    (listed,) = part('list', 'h1', '-f', 'json').json
    done = part('forget', 'h1', saved)

    assert listed['Ends By Itself'] is True
    assert done.status == 1
    assert 'ends by itself' in done.err
    assert 'saved' in cluster.hosts['h1'].phases()


def test_a_part_that_is_not_there_is_not_forgotten(part):
    done = part('forget', 'h1', 'none')

    assert done.status == 1
    assert 'no snapshot none' in done.err


def test_a_coordinator_that_knows_no_parts_is_told_of(cluster, manage):
    class Old:
        target = rpc.oslo_messaging.Target(version='1.0')
    server = rpc.open_server(cluster.transport, 'hotsnap-conductor', 'c1', [Old()])
    server.start()

    done = manage('part', 'list', 'h1', transport=cluster.transport)

    assert done.status == 1
    assert str(exception.HostTooOld(host='any', method='parts')) in done.err
    rpc.close([server], 10)


def test_coordinators_are_called_where_nova_calls(monkeypatch):
    config = cfg.ConfigOpts()
    config([], default_config_files=[], default_config_dirs=[])
    monkeypatch.setattr(cfg, 'CONF', config)

    transport = rpc.open_novas(config)

    assert transport._driver._default_exchange == 'nova'
    transport.cleanup()
