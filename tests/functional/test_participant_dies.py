# SPDX-License-Identifier: Apache-2.0
"""The participant dies, or stands still, at any step: guests run, gates are open.

Nobody starts a fresh process for that: it is the guardian's work, or the lease's.
A fresh process then takes the rest away.
"""

import os
import pathlib
import signal
import time

import pytest

from tests.functional.command import stands_still, until
from tests.functional.witness import Refused, Witness, qmp

MAX_HOLD_MS = 4000
LEASE = ('--max-hold-ms', str(MAX_HOLD_MS))
#: What the product promises: the lease and a second.
PROMISED_S = MAX_HOLD_MS / 1000 + 1


def start_dying(user, pair, step, signal_name, *words):
    """The command, which will meet the signal at the step."""
    return user.start(*user.creating('doomed', pair, *LEASE, *words),
                      program=('tests.functional.dying', step, signal_name))


def is_free(guest) -> bool:
    """Whether the guest runs and its gates let packets pass."""
    try:
        gates = [item['name'] for item in qmp(guest, 'qom-list', path='/objects')
                 if item['name'].startswith('hotsnap-gate-')]
        return qmp(guest, 'query-status')['running'] and all(
            qmp(guest, 'qom-get', path=f'/objects/{name}', property='status') == 'off'
            for name in gates)
    except Refused:
        return False     # a gate went away between the questions


def assert_free_in_time(pair, since):
    assert until(lambda: all(is_free(guest) for guest in pair), PROMISED_S * 3, every_s=0.02)
    assert time.monotonic() - since <= PROMISED_S


def assert_recovers(user, engine, witness):
    recovered = user.run('recover', '-f', 'json')

    assert recovered.status == 0, recovered.errors
    assert [row['Status'] for row in recovered.json] == ['error']
    assert engine.survey() == ()
    assert witness.left() == []
    assert until(lambda: not user.processes()), user.processes()
    assert user.drafts() == []
    assert user.journal() == []
    assert witness.harmed() == []


@pytest.mark.parametrize('gate', ['hold', 'barrier'])
@pytest.mark.parametrize('step', ['paused', 'between', 'held'])
def test_guests_are_free_in_time_though_the_participant_was_killed(
        step, gate, user, engine, pair):
    witness = Witness(pair)

    with start_dying(user, pair, step, 'SIGKILL', '--gate', gate) as running:
        status = running.wait(60)
        died = time.monotonic()

    assert status == -signal.SIGKILL
    assert_free_in_time(pair, died)
    assert witness.harmed() == []
    assert_recovers(user, engine, witness)


def test_a_storage_daemon_ends_with_a_participant_killed_as_it_starts(user, engine, pair):
    witness = Witness(pair)

    with start_dying(user, pair, 'daemon', 'SIGKILL') as running:
        status = running.wait(60)

    assert status == -signal.SIGKILL
    assert_recovers(user, engine, witness)


def test_a_participant_killed_in_save_leaves_guests_running_and_the_next_snapshot_works(
        user, engine, pair):
    witness = Witness(pair)

    with start_dying(user, pair, 'saving', 'SIGKILL') as running:
        status = running.wait(60)

    assert status == -signal.SIGKILL
    assert witness.harmed() == []
    assert user.drafts() != []
    assert_recovers(user, engine, witness)
    again = user.create('again', pair)
    assert again.status == 0, again.errors
    assert witness.left() == []


@pytest.mark.parametrize('gate', ['hold', 'barrier'])
def test_the_lease_frees_guests_of_a_participant_that_stands_still(gate, user, engine, pair):
    witness = Witness(pair)

    with start_dying(user, pair, 'held', 'SIGSTOP', '--gate', gate) as running:
        assert until(lambda: stands_still(running.pid))
        stood = time.monotonic()
        assert not all(is_free(guest) for guest in pair)
        assert_free_in_time(pair, stood)
        assert witness.harmed() == []
        running.send_signal(signal.SIGCONT)
        _, errors = running.communicate(timeout=60)

    assert running.returncode == 1
    assert 'gate_opened' in errors
    assert engine.survey() == ()
    assert witness.left() == []
    assert until(lambda: not user.processes()), user.processes()


def test_hold_opens_by_the_filters_own_interval_where_the_guardian_is_dead_too(
        user, engine, pair):
    witness = Witness(pair)

    with start_dying(user, pair, 'held', 'SIGSTOP', '--gate', 'hold') as running:
        assert until(lambda: stands_still(running.pid))
        guardians = [pid for pid in user.processes()
                     if b'hotsnap_nova.virt.guardian' in
                     pathlib.Path(f'/proc/{pid}/cmdline').read_bytes()]
        for pid in guardians:
            os.kill(pid, signal.SIGKILL)
        running.kill()
        running.wait(30)

    assert len(guardians) == 1
    assert engine.survey() != ()
    assert witness.harmed(messages=5) == []     # in bursts, one each interval
    for pid in user.processes():    # storage daemons: a fresh process does not know them
        os.kill(pid, signal.SIGKILL)
    assert_recovers(user, engine, witness)
