# SPDX-License-Identifier: Apache-2.0
"""``nova-hotsnap-manage``, typed; its answers are one line each."""

import json
import subprocess
import sys

import pytest

from hotsnap_nova.db import api


@pytest.fixture
def manage(tmp_path):
    """Types a command; its configuration is in two files, as the guide has it."""
    (tmp_path / 'nova.conf').write_text('[DEFAULT]\ntransport_url = fake:/\n')
    (tmp_path / 'conductor.conf').write_text(
        f'[hotsnap]\ndatabase_connection = sqlite:///{tmp_path}/db\n')

    def run(*words, files=('nova.conf', 'conductor.conf')):
        return subprocess.run(
            [sys.executable, '-m', 'hotsnap_nova.cmd.manage',
             *(f'--config-file={tmp_path / name}' for name in files), *words],
            capture_output=True, text=True, check=False)
    return run


def test_what_needs_tables_says_how_to_make_them(manage):
    for words in (('service', 'list'), ('db', 'purge', '--all-errors'), ('db', 'version')):
        done = manage(*words)

        assert done.returncode == 1
        assert 'db sync' in done.stderr
        assert done.stderr.count('\n') == 1


def test_tables_are_made_and_making_them_again_changes_nothing(manage):
    assert manage('db', 'sync').returncode == 0
    assert manage('db', 'sync').returncode == 0

    assert manage('db', 'version').returncode == 0
    assert manage('db', 'purge', '--before', '2026-01-31').stdout == '0 removed\n'
    assert manage('service', 'list', '-f', 'json').stdout.strip() == '[]'


def test_what_hosts_owe_is_listed_and_dropped(manage, tmp_path):
    manage('db', 'sync')
    database = api.Database(f'sqlite:///{tmp_path}/db')
    for snapshot, host in (('s1', 'h1'), ('s2', 'h1'), ('s1', 'h2')):
        database.add_errand(snapshot, host, 'delete', {})
    database.close()

    def listed():
        rows = json.loads(manage('errand', 'list', '-f', 'json').stdout)
        assert all(row['Since'].endswith('Z') for row in rows)
        return [(row['Host'], row['Snapshot'], row['Kind']) for row in rows]
    assert sorted(listed()) == [
        ('h1', 's1', 'delete'), ('h1', 's2', 'delete'), ('h2', 's1', 'delete')]

    assert manage('errand', 'drop', 'h1', '--snapshot', 's1').stdout == '1 dropped\n'
    assert sorted(listed()) == [('h1', 's2', 'delete'), ('h2', 's1', 'delete')]
    assert manage('errand', 'drop', 'h1').stdout == '1 dropped\n'
    assert listed() == [('h2', 's1', 'delete')]
    assert manage('errand', 'drop').returncode == 2


def test_a_date_that_is_none_is_named(manage):
    done = manage('db', 'purge', '--before', 'nonsense')

    assert done.returncode == 2
    assert done.stderr.endswith('nonsense is no date like 2026-01-31\n')


def test_a_database_that_was_not_told_is_asked_for(manage):
    done = manage('service', 'list', files=('nova.conf',))

    assert done.returncode == 1
    assert 'database_connection' in done.stderr
