# SPDX-License-Identifier: Apache-2.0
"""One line that says what and what to do, a status that is not zero, nothing changed."""

import os
import shutil

import pytest

CREATE = ['snapshot', 'create', 'one', '--wait', '--domain', 'a']


def _refused(ran, *words):
    assert ran.status == 1
    assert ran.out == ''
    assert ran.err.startswith('hotsnap: ')
    assert ran.err.count('\n') == 1
    for word in words:
        assert word in ran.err


@pytest.mark.parametrize(('args', 'words'), [
    ([*CREATE, '--domain', 'zzz'], ['zzz', 'virsh list']),
    ([*CREATE, '--domain', 'a'], ['a', 'more than once']),
    (['snapshot', 'create', 'one', '--wait'], ['no members', '--domain']),
    ([*CREATE, '--max-pause-ms', '0'], ['max_pause_ms', '1 to']),
    ([*CREATE, '--max-hold-ms', '99999999'], ['max_hold_ms', '1 to']),
    ([*CREATE, '--deadline-s', '-1'], ['deadline_s']),
    ([*CREATE, '--deadline-s', 'nan'], ['deadline_s']),
    ([*CREATE, '--gate', 'wall'], ['gate', 'hold']),
    ([*CREATE, '--address', '52:54:00=10.0.0.1'], ['address', 'MAC=IP']),
    ([*CREATE, '--address', '52:54:00:00:00:61=10.0.0.256'], ['address', '10.0.0.256']),
    ([*CREATE, '--gate', 'marker'], ['marker', 'no IP address', '--address']),
    (['snapshot', 'create', ' ', '--wait', '--domain', 'a'], ['name', 'printable']),
    (['snapshot', 'show', 'zzz'], ['zzz', 'list']),
    (['snapshot', 'verify', 'zzz'], ['zzz', 'list']),
    (['snapshot', 'restore', 'zzz'], ['zzz', 'list']),
    (['snapshot', 'delete', 'zzz'], ['zzz', 'list']),
    (['snapshot', 'abort', 'zzz'], ['zzz', 'list']),
    (['snapshot', 'export', 'zzz', '/nowhere'], ['zzz', 'list']),
    (['check'], ['no members', '--domain']),
    (['check', '--domain', 'zzz'], ['zzz', 'virsh list']),
])
def test_bad_input_is_refused_in_one_line(hotsnap, args, words):
    _refused(hotsnap(*args), *words)

    assert hotsnap.world.untouched()
    assert hotsnap('snapshot', 'list', '-f', 'json').json == []
    assert not {call for engine in hotsnap.engines for call in engine.calls} & {
        'prepare', 'record', 'discard'}


@pytest.mark.parametrize('wait', [['--wait'], []])
def test_a_stopped_domain_is_refused(hotsnap, wait):
    with hotsnap.world.open() as guests:
        guests['b']['state'] = 'shut off'

    ran = hotsnap.run('snapshot', 'create', 'one', '--domain', 'a', '--domain', 'b', *wait)

    _refused(ran, 'b', 'shut off', 'Start')
    assert hotsnap('snapshot', 'list', '-f', 'json').json == []


def test_a_taken_name_is_refused(hotsnap):
    hotsnap.create()
    before = hotsnap.show()

    _refused(hotsnap.create(), 'one', 'another name')

    assert hotsnap.show() == before


@pytest.mark.parametrize('file', ['manifest.json', 'memory.save', 'vda.qcow2', 'domain.xml'])
@pytest.mark.parametrize('harm', ['change', 'cut', 'remove'])
def test_damage_is_found_by_verify_and_by_restore_before_anything_is_stopped(hotsnap, file, harm):
    made = hotsnap.create().json
    folder = f'{hotsnap.state}/store/{made["id"]}'
    path = (f'{folder}/{file}' if file == 'manifest.json'
            else f'{folder}/{made["members"][1]["id"]}/{file}')
    if harm == 'remove':
        os.unlink(path)
    else:
        with open(path, 'r+b') as content:
            if harm == 'cut':
                content.truncate(3)
            else:
                content.write(b'?')

    _refused(hotsnap('snapshot', 'verify', 'one'), made['id'], 'Nothing was changed')
    _refused(hotsnap('snapshot', 'restore', 'one'), made['id'], 'Nothing was changed')

    assert hotsnap.world.guest('a')['disk'] == 'own'
    assert hotsnap.world.untouched()
    assert hotsnap.show()['status'] == 'available'
    assert hotsnap.left() == []


def test_a_failure_names_the_member_and_the_cause(hotsnap):
    from hotsnap_nova import exception
    hotsnap.faults['save'] = exception.TargetFailed(member='b', device='vda', reason='is full')

    ran = hotsnap.create()

    _refused(ran, 'b', 'vda', 'is full')
    assert hotsnap.world.untouched()
    assert hotsnap.left() == []
    assert hotsnap.show()['error']['code'] == 'target_failed'


def test_a_state_folder_that_cannot_be_made_is_refused(hotsnap, tmp_path):
    (tmp_path / 'file').write_text('')
    hotsnap.state = str(tmp_path / 'file' / 'state')

    _refused(hotsnap('snapshot', 'list'), '--state')


def test_a_configuration_file_that_is_none_is_refused(hotsnap, tmp_path):
    ran = hotsnap('--config-file', str(tmp_path / 'none'), 'snapshot', 'list')

    _refused(ran, 'none')


def test_a_lost_archive_is_told_so(hotsnap):
    hotsnap.create()
    shutil.rmtree(f'{hotsnap.state}/store')

    _refused(hotsnap('snapshot', 'restore', 'one'))
    assert hotsnap.world.untouched()
