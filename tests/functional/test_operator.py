# SPDX-License-Identifier: Apache-2.0
"""What an operator does to a guest meanwhile is the operator's: it survives us."""

import contextlib

import libvirt
import pytest

from tests.functional.command import until
from tests.functional.witness import Witness

OPERATORS_PAUSE = [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER]
RNG = "<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>"


@contextlib.contextmanager
def meanwhile(user, pair, step, *words):
    """The command waits at a step for the block and then ends; ``told`` is what it said."""
    user.state.mkdir()
    with user.start(*user.creating('disturbed', pair, *words),
                    program=('tests.functional.dying', step, str(user.state))) as running:
        assert until((user.state / 'reached').exists)
        yield running
        (user.state / 'go').touch()
        _, running.told = running.communicate(timeout=100)


def test_a_guest_paused_before_is_refused_and_stays_paused(user, engine, pair):
    pair[1].domain.suspend()
    try:
        outcome = user.create('refused', pair)

        assert outcome.status == 1
        assert pair[1].domain_name in outcome.errors
        assert 'not running' in outcome.errors
        assert pair[1].domain.state() == OPERATORS_PAUSE
        assert engine.survey() == ()
    finally:
        pair[1].domain.resume()


@pytest.mark.parametrize('gate', ['hold', 'barrier'])
def test_a_guest_paused_before_its_record_fails_the_snapshot_and_stays_paused(
        gate, user, engine, pair):
    witness = Witness(pair)

    with meanwhile(user, pair, 'prepared', '--gate', gate) as command:
        pair[1].domain.suspend()
    paused = pair[1].domain.state()
    pair[1].domain.resume()

    assert command.returncode == 1, command.told
    assert paused == OPERATORS_PAUSE
    assert engine.survey() == ()
    assert witness.harmed() == []
    assert witness.left() == []


def test_a_guest_paused_while_held_stays_paused(user, engine, pair):
    witness = Witness(pair)

    with meanwhile(user, pair, 'held', '--gate', 'hold'):
        pair[0].domain.suspend()
    paused = pair[0].domain.state()
    pair[0].domain.resume()

    assert paused == OPERATORS_PAUSE
    assert engine.survey() == ()
    assert witness.harmed() == []
    assert witness.left() == []


def test_a_second_stop_while_recording_fails_the_snapshot(user, engine, pair):
    witness = Witness(pair)

    with meanwhile(user, pair, 'between', '--gate', 'hold') as command:
        pair[0].domain.suspend()
        pair[0].domain.resume()

    assert command.returncode == 1
    assert 'stopped 2' in command.told
    assert user.show('disturbed')['status'] == 'error'
    assert engine.survey() == ()
    assert witness.harmed() == []
    assert witness.left() == []


def test_a_device_plugged_in_after_the_preparation_fails_the_snapshot(user, engine, pair):
    with meanwhile(user, pair, 'prepared') as command:
        pair[0].domain.attachDevice(RNG)

    assert command.returncode == 1
    assert 'changed after it was prepared' in command.told
    assert 'rng' in command.told
    assert Witness(pair).harmed() == []
    assert engine.survey() == ()
    pair[0].domain.destroy()     # no other test is to find this device
