# SPDX-License-Identifier: Apache-2.0
"""The service and the checks as an operator starts them: processes, and one nova.conf."""

import signal
import subprocess
import sys
import time
import types

import pytest

from hotsnap_nova.cmd import status
from hotsnap_nova.conductor import hosts
from hotsnap_nova.db import api, clock

_START_S = 90


@pytest.fixture
def url(tmp_path):
    return f'sqlite:///{tmp_path}/hotsnap.db'


@pytest.fixture
def config(tmp_path, url):
    path = tmp_path / 'nova.conf'
    path.write_text(f'[DEFAULT]\ntransport_url = fake:/\nhost = c1\n'
                    f'[api_database]\nconnection = sqlite:///{tmp_path}/api.db\n'
                    f'[database]\nconnection = sqlite:///{tmp_path}/main.db\n'
                    f'[hotsnap]\ndatabase_connection = {url}\nservice_interval_s = 1\n')
    return path


@pytest.fixture
def database(url):
    made = api.Database(url)
    yield made
    made.close()


def command(name, config, *words):
    return [sys.executable, '-m', f'hotsnap_nova.cmd.{name}', '--config-file', str(config), *words]


def check(config):
    return subprocess.run(command('status', config, 'upgrade', 'check'), capture_output=True,
                          text=True, timeout=_START_S)


def test_the_service_shows_signs_of_life_reports_and_ends(config, database, tmp_path):
    database.upgrade()
    with open(tmp_path / 'log', 'wb') as log:
        process = subprocess.Popen(command('conductor', config), stdout=log, stderr=log)
    try:
        ends = time.monotonic() + _START_S
        while not database.services(hosts.CONDUCTOR):
            assert process.poll() is None, (tmp_path / 'log').read_text()
            assert time.monotonic() < ends, (tmp_path / 'log').read_text()
            time.sleep(0.2)
        assert database.services(hosts.CONDUCTOR)[0].host == 'c1'

        process.send_signal(signal.SIGUSR2)
        while 'database_connection = ***' not in (tmp_path / 'log').read_text():
            assert time.monotonic() < ends, 'no report'
            time.sleep(0.2)
        assert 'Guru Meditation' in (tmp_path / 'log').read_text()
        # No participant has been heard of, and that is all that it complains about.
        done = check(config)
        assert done.returncode == 1, done.stdout
        assert done.stdout.count('Result: Warning') == 1
        assert 'No host was heard of' in done.stdout

        process.terminate()
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(('ahead_s', 'later_s', 'code'), [
    (-600, 0, status.Code.SUCCESS), (600, 100, status.Code.WARNING)])
def test_signs_of_life_are_as_old_as_the_databases_clock_says(
        url, database, monkeypatch, ahead_s, later_s, code):
    database.upgrade()
    epoch = clock._EPOCH_DAYS
    monkeypatch.setattr(clock, '_EPOCH_DAYS', epoch - ahead_s / 86400)
    database.heard_of(hosts.CONDUCTOR, 'c1', version='', rpc_version='1.3', started_at=None)
    monkeypatch.setattr(clock, '_EPOCH_DAYS', epoch - (ahead_s + later_s) / 86400)
    monkeypatch.setattr(status, 'CONF', types.SimpleNamespace(hotsnap=types.SimpleNamespace(
        database_connection=url, service_interval_s=10)))

    found = status.Checks()._coordinators()

    assert found.code == code


def test_the_service_says_in_one_line_what_it_was_not_told(config, url):
    config.write_text(config.read_text().replace(f'database_connection = {url}', ''))

    done = subprocess.run(command('conductor', config), capture_output=True, text=True,
                          timeout=_START_S)

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        'nova-hotsnap-conductor: [hotsnap] database_connection: it is not set in nova.conf')


def test_the_service_does_not_start_on_tables_of_another_version(config, database):
    done = subprocess.run(command('conductor', config), capture_output=True, text=True,
                          timeout=_START_S)

    assert done.returncode == 1
    assert 'nova-hotsnap-manage db sync' in done.stderr.splitlines()[-1]


def test_a_database_without_tables_fails_the_check(config, database):
    done = check(config)

    assert done.returncode == 2, done.stdout
    assert 'nova-hotsnap-manage db' in ' '.join(done.stdout.replace('|', ' ').split())


def test_another_driver_is_warned_of(config, database):
    database.upgrade()
    config.write_text(config.read_text().replace(
        '[DEFAULT]\n', '[DEFAULT]\ncompute_driver = libvirt.LibvirtDriver\n'))

    done = check(config)

    assert done.returncode == 1
    assert 'compute_driver is libvirt.LibvirtDriver' in done.stdout
