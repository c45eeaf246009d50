# SPDX-License-Identifier: Apache-2.0
"""Locks exclude, are let go by the dead, and leave no file."""

import os
import signal
import subprocess
import sys

import pytest

from hotsnap_nova.compute import locks

HOLDER = """
import sys, time
from hotsnap_nova.compute import locks
print(locks.Locks(sys.argv[1]).take('a'), flush=True)
time.sleep(60)
"""


def test_a_lock_has_one_holder_at_a_time(tmp_path):
    first, second = locks.Locks(tmp_path), locks.Locks(tmp_path)

    assert first.take('a')
    assert not second.take('a')
    assert second.take('b')

    first.release('a')
    assert second.take('a')


def test_nothing_is_left_of_a_released_lock(tmp_path):
    under_test = locks.Locks(tmp_path)
    under_test.take('a')
    under_test.take('b')

    under_test.release_all()

    assert os.listdir(tmp_path) == []


def test_releasing_what_is_not_held_takes_it_from_nobody(tmp_path):
    first, second = locks.Locks(tmp_path), locks.Locks(tmp_path)
    first.take('a')

    second.release('a')

    assert first.holds('a')
    assert not second.take('a')


def test_a_dead_process_holds_nothing(tmp_path):
    with subprocess.Popen([sys.executable, '-c', HOLDER, str(tmp_path)],
                          stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == 'True\n'
            under_test = locks.Locks(tmp_path)
            assert not under_test.take('a')
        finally:
            holder.send_signal(signal.SIGKILL)
    assert under_test.take('a')


def test_a_sweep_removes_what_the_dead_left_and_nothing_else(tmp_path):
    living, under_test = locks.Locks(tmp_path), locks.Locks(tmp_path)
    living.take('living')
    under_test.take('own')
    with subprocess.Popen([sys.executable, '-c', HOLDER, str(tmp_path)],
                          stdout=subprocess.PIPE, text=True) as holder:
        holder.stdout.readline()
        holder.send_signal(signal.SIGKILL)

    under_test.sweep()

    assert sorted(os.listdir(tmp_path)) == ['living.lock', 'own.lock']
    assert under_test.holds('own')
    assert not locks.Locks(tmp_path).take('living')


def test_a_sweep_keeps_to_its_own_prefix(tmp_path):
    (tmp_path / 'theirs-a.lock').touch()
    (tmp_path / 'ours-a.lock').touch()

    locks.Locks(tmp_path, prefix='ours-').sweep()

    assert os.listdir(tmp_path) == ['theirs-a.lock']


def test_waiting_for_a_lock_ends(tmp_path):
    first, second = locks.Locks(tmp_path), locks.Locks(tmp_path)
    first.take('a')

    with pytest.raises(TimeoutError), second.held('a', wait_s=0.02):
        pass
