# SPDX-License-Identifier: Apache-2.0
"""The command as processes: signals, death, and what goes on behind it."""

import signal

import pytest

from hotsnap_nova.cmd import interrupts
from tests.fakes.cluster import until

CREATE = ('snapshot', 'create', 'one', '--domain', 'a', '--domain', 'b', '--max-hold-ms', '20000')


def _until(hotsnap, phase):
    """Return when the snapshot is there; to ask costs what the process under test needs, too."""
    def is_there():
        ran = hotsnap('snapshot', 'list', '-f', 'json')
        return ran.status == 0 and [row['Phase'] for row in ran.json] == [phase]
    until(is_there, every_s=0.2)


def test_the_end_of_a_terminal_is_nothing_to_whom_nohup_keeps_from_it():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupts.Interrupts() as wish:
            signal.raise_signal(signal.SIGHUP)

            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert not wish.come
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_what_a_scripts_background_jobs_have_ignored_is_a_wish_to_stop(number):
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with interrupts.Interrupts() as wish:
            signal.raise_signal(number)

            assert wish.come
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_aborts_and_leaves_nothing(hotsnap, number):
    process = hotsnap.process(*CREATE, '--wait', SAVE_S='60')
    _until(hotsnap, 'save')

    process.send_signal(number)
    _out, err = process.communicate(timeout=60)

    assert process.returncode == 130
    assert err.count('\n') == 1
    assert 'nothing of it is left' in err
    assert hotsnap.world.untouched()
    assert hotsnap.left() == []
    assert hotsnap.store.list() == ()
    assert hotsnap.show()['status'] == 'error'


def test_a_process_with_another_state_folder_leaves_a_live_snapshot_alone(hotsnap, tmp_path):
    mine, others = hotsnap.state, f'{tmp_path}/other'
    with hotsnap.process(*CREATE, '--wait', SAVE_S='60') as process:
        _until(hotsnap, 'save')
        hotsnap.state = others

        recovered = hotsnap('recover')
        second = hotsnap(*CREATE, '--wait')

        left = [hotsnap.world.guest(name)['left'] for name in 'ab']
        hotsnap.state = mine
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)

    assert (recovered.status, second.status) == (0, 1)
    assert 'another snapshot or restore has it' in second.err
    assert all(left)
    assert hotsnap.world.untouched()
    assert hotsnap.left() == []


def test_without_wait_the_command_returns_when_the_cut_stands(hotsnap, tmp_path):
    ran = hotsnap.run(*CREATE, '-f', 'json', SAVED_BY=str(tmp_path / 'saved'))

    assert (ran.status, ran.json['status'], ran.err) == (0, 'creating', '')
    assert all(guest['closed_by'] == '' for guest in map(hotsnap.world.guest, 'ab'))
    (tmp_path / 'saved').touch()
    until(lambda: hotsnap.show()['status'] == 'available')
    until(lambda: hotsnap.left() == [])
    assert hotsnap.run('snapshot', 'verify', 'one').status == 0


@pytest.mark.parametrize('step', ['find', 'prepare', 'record', 'record_member', 'release'])
def test_without_wait_a_failure_before_the_cut_stands_is_told(hotsnap, step):
    ran = hotsnap.run(*CREATE, FAIL_AT=step)

    assert (ran.status, ran.out) == (1, '')
    assert ran.err.count('\n') == 1
    assert 'b, vda' in ran.err
    assert hotsnap.world.untouched()
    until(lambda: hotsnap.left() == [])


def test_without_wait_the_death_of_the_worker_is_told(hotsnap):
    ran = hotsnap.run(*CREATE, DIE_AT='record')

    assert ran.status == 1
    assert ran.err.count('\n') == 1


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_without_wait_a_signal_before_the_cut_stands_aborts(hotsnap, number):
    process = hotsnap.process(*CREATE, '--record-delay', 'a=3', HOTSNAP_LAB='1')
    _until(hotsnap, 'prepare')

    process.send_signal(number)
    _out, err = process.communicate(timeout=60)

    assert process.returncode == 130
    assert 'nothing of it is left' in err
    assert hotsnap.world.untouched()
    until(lambda: hotsnap.left() == [])


def test_abort_ends_what_goes_on_in_the_background(hotsnap):
    assert hotsnap.run(*CREATE, SAVE_S='60').status == 0

    assert hotsnap.run('snapshot', 'abort', 'one').status == 0

    shown = hotsnap.show()
    assert (shown['status'], shown['error']['code']) == ('error', 'aborted')
    assert hotsnap.world.untouched()
    until(lambda: hotsnap.left() == [])


@pytest.mark.parametrize('step', ['prepare', 'record', 'record_member', 'release', 'save',
                                  'finish'])
@pytest.mark.parametrize('gate', ['hold', 'barrier'])
def test_whatever_a_killed_process_left_the_next_cleans_up(hotsnap, step, gate):
    ran = hotsnap.run(*CREATE, '--wait', '--gate', gate, DIE_AT=step)
    assert ran.status == -signal.SIGKILL

    recovered = hotsnap('recover', '-f', 'json')

    assert recovered.status == 0
    wanted = 'available' if step == 'finish' else 'error'
    assert [row['Status'] for row in recovered.json] == [wanted]
    assert hotsnap.world.untouched()
    assert hotsnap.left() == []
    assert hotsnap('recover', '-f', 'json').json == []


def test_the_next_snapshot_needs_no_recovery_by_hand(hotsnap):
    hotsnap.run(*CREATE, '--wait', DIE_AT='release')

    ran = hotsnap.create('two')

    assert ran.json['status'] == 'available'
    assert hotsnap.show('one')['status'] == 'error'
    assert hotsnap.world.untouched()
    assert hotsnap.left() == []


@pytest.mark.parametrize(('step', 'disk'), [
    ('restore_prepare', 'own'), ('restore_stop', 'own'), ('restore_start', 'own'),
    ('restore_resume', 'cut'), ('restore_finish', 'cut')])
def test_a_killed_restore_is_undone_or_completed(hotsnap, step, disk):
    made = hotsnap.create().json
    assert hotsnap.run('snapshot', 'restore', 'one', DIE_AT=step).status == -signal.SIGKILL

    assert hotsnap('recover').status == 0

    assert hotsnap.show()['status'] == 'available'
    expected = made['id'] if disk == 'cut' else 'own'
    assert {hotsnap.world.guest(name)['disk'] for name in 'ab'} == {expected}
    assert hotsnap.left() == []
    if disk == 'cut':
        assert hotsnap.world.untouched()


def test_a_busy_guest_is_not_taken_from_the_process_that_has_it(hotsnap):
    assert hotsnap.run(*CREATE, SAVE_S='60').status == 0

    ran = hotsnap.create('two')

    assert ran.status == 1
    assert 'busy' in ran.err
    assert hotsnap.show('one')['phase'] == 'save'
    assert hotsnap('snapshot', 'abort', 'one').status == 0
    assert hotsnap.world.untouched()
