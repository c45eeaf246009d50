# SPDX-License-Identifier: Apache-2.0
"""Every verb through the real shell, in process."""

import glob
import os
import pathlib
import re

import pytest

from hotsnap_nova.cmd import shell
from hotsnap_nova.storage import base
from hotsnap_nova.storage import manifest as manifests
from tests.fakes import engine as fake_engine

VERBS = [*shell.COMMANDS]


@pytest.mark.parametrize('verb', VERBS)
def test_help_of_every_verb_shows_an_example_of_it(hotsnap, verb):
    ran = hotsnap(*verb.split(), '--help')

    assert (ran.status, ran.err) == (0, '')
    assert f'hotsnap {verb}' in ran.out.partition('examples:')[2]


def test_help_names_every_verb(hotsnap):
    ran = hotsnap('--help')

    assert ran.status == 0
    assert all(f'  {verb} ' in ran.out for verb in VERBS)


def test_create_prints_what_every_member_went_through(hotsnap):
    ran = hotsnap.create()

    assert (ran.status, ran.err) == (0, '')
    made = ran.json
    assert (made['status'], made['gate']) == ('available', 'hold')
    assert [member['name'] for member in made['members']] == ['a', 'b']
    for member in made['members']:
        assert member['pause_ms'] == 5.0
        assert member['hold_ms'] > 0
        assert {file['name'] for file in member['files']} == {
            'memory.save', 'vda.qcow2', 'domain.xml'}
    assert hotsnap.world.untouched()
    assert hotsnap.left() == []


def test_the_first_command_of_a_user_makes_folder_and_tables(hotsnap, tmp_path):
    hotsnap.state = f'{tmp_path}/new/state'

    assert hotsnap.create().status == 0

    assert os.stat(hotsnap.state).st_mode & 0o777 == 0o700
    assert os.stat(f'{hotsnap.state}/hotsnap.db').st_mode & 0o777 == 0o600
    assert hotsnap.show()['status'] == 'available'


def test_a_table_for_people_has_the_same(hotsnap):
    hotsnap.create()

    out = hotsnap('snapshot', 'show', 'one').out

    assert 'pause 5.0 ms' in out
    assert 'memory.save' in out


def test_list_filters_by_status(hotsnap):
    hotsnap.create('one')
    hotsnap.faults['record'] = OSError('broken')
    hotsnap.create('two')

    def names(*args):
        return {row['Name'] for row in hotsnap('snapshot', 'list', '-f', 'json', *args).json}
    assert names() == {'one', 'two'}
    assert names('--status', 'available') == {'one'}
    assert names('--status', 'error') == {'two'}


def test_looking_starts_no_engine(hotsnap):
    hotsnap.create()
    hotsnap.engines.clear()

    hotsnap('snapshot', 'list')
    hotsnap('snapshot', 'show', 'one')

    assert hotsnap.engines == []


def test_verify_says_what_was_read(hotsnap):
    hotsnap.create()

    ran = hotsnap('snapshot', 'verify', 'one', '-f', 'json')

    assert (ran.status, ran.json['files']) == (0, 6)


def test_restore_brings_killed_members_back(hotsnap):
    made = hotsnap.create().json
    with hotsnap.world.open() as guests:
        guests['a']['state'] = 'shut off'

    ran = hotsnap('snapshot', 'restore', 'one')

    assert (ran.status, ran.out, ran.err) == (0, '', '')
    assert hotsnap.world.guest('a')['disk'] == made['id']
    assert hotsnap.world.untouched()


def test_restore_keeps_the_present_first_where_it_is_told_to(hotsnap):
    made = hotsnap.create().json

    ran = hotsnap('snapshot', 'restore', 'one', '--keep-present', 'before')

    assert (ran.status, ran.err) == (0, '')
    assert hotsnap.world.guest('a')['disk'] == made['id']
    assert hotsnap('snapshot', 'restore', 'before').status == 0
    assert hotsnap.world.guest('a')['disk'] == hotsnap.show('before')['id']
    assert hotsnap.left() == []


def test_restore_of_a_group_whose_present_cannot_be_kept_fails(hotsnap):
    hotsnap.create()
    hotsnap.faults['save'] = OSError('broken')

    ran = hotsnap('snapshot', 'restore', 'one', '--keep-present', 'before')

    assert (ran.status, hotsnap.world.untouched()) == (1, True)
    assert 'nothing was restored' in ran.err


def test_what_a_restore_warns_of_is_a_line_each_and_shown_afterwards(hotsnap):
    hotsnap.create()
    hotsnap.warns['restore_resume'] = {
        'b': [('clock', 'it lags by 3.2 s \x1b[2J', 'have it set')], 'a': [('vda', 'grown', '')]}

    ran = hotsnap('snapshot', 'restore', 'one')

    assert (ran.status, ran.out) == (0, '')
    assert ran.err.splitlines() == [
        'hotsnap: warning: a, vda: grown.',
        'hotsnap: warning: b, clock: it lags by 3.2 s \\x1b[2J. Remedy: have it set.']
    assert [(each['name'], each['device']) for each in hotsnap.show()['warnings']] == [
        ('a', 'vda'), ('b', 'clock')]
    assert 'warning: a, vda: grown.' in hotsnap('snapshot', 'show', 'one').out


def test_restore_paused_leaves_them_at_the_cut(hotsnap):
    hotsnap.create()

    assert hotsnap('snapshot', 'restore', 'one', '--paused').status == 0

    assert hotsnap.world.guest('a')['state'] == 'paused'


@pytest.mark.parametrize('words', [(), ('--drop-internal-snapshots',)])
def test_restore_drops_internal_snapshots_only_if_it_is_told_to(hotsnap, words):
    hotsnap.create()
    told = []
    hotsnap.faults['restore_check'] = lambda work: told.append(work.drops_internal_snapshots)

    assert hotsnap('snapshot', 'restore', 'one', *words).status == 0

    assert told == [bool(words)]


def test_export_lists_its_files(hotsnap, tmp_path):
    hotsnap.create()

    ran = hotsnap('snapshot', 'export', 'one', str(tmp_path / 'out'), '-f', 'json')

    assert {(row['Member'], row['File']) for row in ran.json} == {
        ('a', 'xml'), ('a', 'memory'), ('b', 'xml'), ('b', 'memory')}
    assert [row['Path'] for row in ran.json if row['File'] == 'xml'] == [
        f'{tmp_path}/out/{name}.xml' for name in 'ab']    # as the help's example has it


def test_who_knows_the_id_exports_what_another_coordinator_had_made(hotsnap, tmp_path):
    hotsnap.create()
    (kept,) = hotsnap.store.list()
    os.unlink(f'{hotsnap.state}/hotsnap.db')

    assert hotsnap('snapshot', 'export', 'one', str(tmp_path / 'out')).status == 1
    assert hotsnap('snapshot', 'export', kept, str(tmp_path / 'out')).status == 0


def test_an_export_of_what_another_wrote_into_the_store_is_refused(hotsnap, tmp_path):
    hotsnap.create()
    (snapshot,) = hotsnap.store.list()
    path = pathlib.Path(hotsnap.store.root, snapshot, base.MANIFEST)
    told = manifests.load(path.read_bytes(), snapshot)
    told['members'][0]['disks'] = []
    path.write_bytes(manifests.dump(told))

    ran = hotsnap('snapshot', 'export', 'one', str(tmp_path / 'out'))

    assert ran.status == 1
    assert 'not said when the snapshot was made' in ran.err
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('make', [
    os.mkdir, lambda path: os.symlink('/nowhere', path), lambda path: open(path, 'x').close()])
def test_an_export_never_goes_where_something_is(hotsnap, tmp_path, make):
    hotsnap.create()
    make(tmp_path / 'out')

    ran = hotsnap('snapshot', 'export', 'one', str(tmp_path / 'out'))

    assert ran.status == 1
    assert re.search('out cannot be made: File exists; name a new one', ran.err)
    assert not glob.glob(f'{tmp_path}/out/*')


def test_an_export_that_fails_leaves_no_folder(hotsnap, tmp_path, monkeypatch):
    hotsnap.create()
    monkeypatch.setattr(fake_engine.Engine, 'export', lambda *_: 1 / 0)

    assert hotsnap('snapshot', 'export', 'one', str(tmp_path / 'out')).status == 1

    assert not (tmp_path / 'out').exists()


def test_delete_takes_several_and_frees_their_names(hotsnap):
    hotsnap.create('one')
    hotsnap.create('two')

    assert hotsnap('snapshot', 'delete', 'one', 'two').status == 0

    assert hotsnap('snapshot', 'list', '-f', 'json').json == []
    assert hotsnap.store.list() == ()
    assert hotsnap.create('one').status == 0


def test_delete_goes_on_after_one_that_is_not_there(hotsnap):
    hotsnap.create('one')
    hotsnap.create('two')

    ran = hotsnap('snapshot', 'delete', 'one', 'zzz', 'two')

    assert (ran.status, ran.out) == (1, '')
    assert ran.err.startswith('hotsnap: There is no snapshot zzz.')
    assert ran.err.count('\n') == 1
    assert hotsnap('snapshot', 'list', '-f', 'json').json == []


def test_a_status_that_there_is_not_is_not_understood(hotsnap, capsys):
    ran = hotsnap('snapshot', 'list', '--status', 'bogus')

    assert (ran.status, ran.out) == (2, '')
    assert "invalid choice: 'bogus'" in capsys.readouterr().err


def test_a_failed_snapshots_name_can_be_used_again(hotsnap):
    hotsnap.faults['record'] = OSError('broken')
    assert hotsnap.create().status == 1
    hotsnap.faults.clear()

    assert hotsnap.create().status == 0


def test_check_says_which_gates_are_possible(hotsnap):
    hotsnap.world.add('d', gates=['barrier'])

    ran = hotsnap('check', '--domain', 'a', '--domain', 'd', '-f', 'json')

    assert ran.status == 0
    assert ran.json == [
        {'Member': 'd', 'Device': 'net0', 'Finding': 'vhost', 'Remedy': 'use driver qemu',
         'Rules out': 'hold'},
        {'Member': 'all', 'Device': '', 'Finding': 'gate barrier is possible', 'Remedy': '',
         'Rules out': ''}]


def test_check_says_whether_packets_can_be_marked_where_that_is_asked(hotsnap):
    hotsnap.world.add('d', ips=('10.0.0.4',))
    words = ('check', '--gate', 'marker', '--domain', 'a', '--domain', 'd', '-f', 'json')

    ran = hotsnap.run(*words)
    told = hotsnap(*words, '--address', '52:54:00:00:00:61=10.0.0.1,fd00::1')

    assert ran.status == 1
    assert [(row['Member'], row['Rules out']) for row in ran.json if row['Rules out']] == [
        ('a', 'marker')]
    assert told.status == 0
    assert [row['Finding'] for row in told.json] == [
        f'gate {gate} is possible' for gate in ('marker', 'hold', 'barrier')]


def test_check_of_a_group_that_cannot_be_snapshotted_fails(hotsnap):
    hotsnap.world.add('d', gates=[])

    assert hotsnap('check', '--domain', 'd').status == 1


def test_check_of_a_group_that_could_not_be_restored_fails_and_a_snapshot_is_made(hotsnap):
    hotsnap.world.add('d', says=[['vda', 'a snapshot inside', 'delete it', ['restore']]])

    ran = hotsnap('check', '--domain', 'd', '-f', 'json')

    assert ran.status == 1
    assert {row['Finding']: row['Rules out'] for row in ran.json} == {
        'a snapshot inside': 'restore', 'gate hold is possible': '',
        'gate barrier is possible': ''}
    assert hotsnap('snapshot', 'create', 'one', '--domain', 'd', '--wait').status == 0


def test_a_warning_keeps_nobody_from_anything(hotsnap):
    hotsnap.world.add('d', says=[['memory', 'it is in swap', 'give it room', []]])

    ran = hotsnap('check', '--domain', 'd', '-f', 'json')

    assert ran.status == 0
    assert ran.json[0]['Rules out'] == 'nothing: a warning'


def test_the_control_experiment_needs_the_lab(hotsnap, monkeypatch):
    assert hotsnap.create('one', '--gate', 'none').status == 1
    assert hotsnap('snapshot', 'list', '-f', 'json').json == []

    monkeypatch.setenv('HOTSNAP_LAB', '1')
    made = hotsnap.create('two', '--gate', 'none', '--record-delay', 'b=0.1').json

    assert made['gate'] == 'none'
    assert made['skew_ms'] >= 100


def test_options_come_from_the_configuration_file(hotsnap, tmp_path):
    path = tmp_path / 'hotsnap.conf'
    path.write_text('[hotsnap]\ngate = barrier\n')

    made = hotsnap('--config-file', str(path), 'snapshot', 'create', 'one', '--domain', 'a',
                   '--max-hold-ms', '5000', '--wait', '-f', 'json').json

    assert made['gate'] == 'barrier'


@pytest.mark.parametrize('words', [
    ('snapshot', 'list'), ('snapshot', 'show', 'one'), ('snapshot', 'list', '-f', 'value'),
    ('snapshot', 'show', 'one', '-f', 'shell')])
def test_a_domains_name_does_nothing_to_a_terminal(hotsnap, words):
    evil = 'evil\x1b]0;mine\x07'
    hotsnap.world.add(evil)
    made = hotsnap('snapshot', 'create', 'one', '--domain', evil, '--description', evil,
                   '--max-hold-ms', '5000', '--wait')
    ran = hotsnap(*words)

    assert (made.status, ran.status) == (0, 0), made.err
    for each in (made, ran):
        assert 'evil\\x1b]0;mine\\x07' in each.out
        assert not set('\x1b\x07') & set(each.out + each.err)
