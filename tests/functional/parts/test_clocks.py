# SPDX-License-Identifier: Apache-2.0
"""Which clocks are set after a restore, how well, and what is said of the others."""

import threading
import time

import pytest

from hotsnap_nova import exception
from hotsnap_nova.virt import records
from hotsnap_nova.virt.restore import clocks

_MS = 1_000_000
_HOUR_NS = 3_600_000 * _MS
_CHANNEL = """<domain><devices><channel><target type='virtio' name='org.qemu.guest_agent.0'
              state='{}'/></channel></devices></domain>"""


class Guest:
    """Its clock is ``lag_ns`` behind, and its agent obeys ``late_ns`` after it was asked."""

    def __init__(self, lag_ns=_HOUR_NS, late_ns=0, state='connected'):
        self.lag_ns = lag_ns
        self._late_ns = late_ns
        self._xml = _CHANNEL.format(state) if state else '<domain><devices/></domain>'
        self.attempts = 0

    def full_xml(self):
        return self._xml

    def set_clock(self, wall_ns):
        self.attempts += 1
        self.lag_ns = time.time_ns() - wall_ns + self._late_ns

    def clock_ns(self):
        return time.time_ns() - self.lag_ns


class Refuses(Guest):
    """Its agent may not set the clock."""

    def set_clock(self, _wall_ns):
        raise exception.HypervisorError(member='web', reason='guest-set-time: disabled')


class SetsItsOwnAlone(Guest):
    """Its agent sets the clock, and fails at that of the hardware, for want of hwclock."""

    def set_clock(self, wall_ns):
        super().set_clock(wall_ns)
        raise exception.HypervisorError(member='web', reason='guest-set-time: hwclock failed')


class Hangs(Guest):
    """Its agent takes what it is asked, and never answers."""

    def __init__(self):
        super().__init__()
        self.goes_on = threading.Event()

    def set_clock(self, _wall_ns):
        self.goes_on.wait(60)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(clocks, '_OPENS_S', 0.1)
    # No agent is here, and the machine may be busy: what is added up is tested, not how well.
    monkeypatch.setattr(clocks, '_GOOD_NS', 100 * _MS)


def running(found, name='web', ago_ns=_HOUR_NS, is_known=True):
    facts = {'cut_wall_ns': time.time_ns() - ago_ns} if ago_ns else {}
    return clocks.Running(records.RestoreMember(records.MemberSpec(name, name), '', facts),
                          found, time.time_ns() if is_known else None)


@pytest.mark.parametrize('kind', [Guest, SetsItsOwnAlone])
def test_a_clock_that_an_agent_sets_is_right_and_nothing_is_said_of_it(kind):
    found = kind()

    assert clocks.set_all([running(found)]) == ()

    assert abs(found.lag_ns) < 60_000 * _MS    # of an hour; a busy machine may take its time


def test_how_long_an_agent_takes_to_obey_is_added_when_it_is_asked_again():
    found = Guest(late_ns=200 * _MS)

    assert clocks.set_all([running(found)]) == ()

    assert found.attempts > 1


@pytest.mark.parametrize(('found', 'why'), [
    (Guest(state=''), 'it has no channel for a guest agent'),
    (Guest(state='disconnected'), 'no guest agent runs in it'),
    (Refuses(), 'guest-set-time: disabled')])
def test_a_clock_that_nobody_sets_is_said_to_lag_by_how_much_and_why(found, why):
    (told,) = clocks.set_all([running(found)])

    assert (told.member.name, told.device, told.rules_out) == ('web', 'clock', ())
    assert told.cause == f'its clock lags by 1:00:00: {why}'


@pytest.mark.parametrize(('ago_ns', 'is_known'), [(None, True), (_HOUR_NS, False)])
def test_where_it_is_not_known_by_how_much_that_is_said(ago_ns, is_known):
    (told,) = clocks.set_all([running(Guest(state=''), ago_ns=ago_ns, is_known=is_known)])

    assert told.cause.startswith('its clock lags by what had passed since the cut')


def test_a_clock_that_is_ahead_is_said_to_be():
    (told,) = clocks.set_all([running(Refuses(lag_ns=-5 * _HOUR_NS))])

    assert told.cause.startswith('its clock is ahead by 5:00:00')


def test_an_agent_that_never_answers_keeps_no_other_clock_from_being_set(monkeypatch):
    monkeypatch.setattr(clocks, '_TIMEOUT_S', 1.0)
    hangs, other = Hangs(), Guest()

    (told,) = clocks.set_all([running(hangs, 'db'), running(other)])

    assert told.member.name == 'db'
    assert told.cause == 'its clock lags by 1:00:00: its agent does not answer in time'
    assert other.attempts
    hangs.goes_on.set()


def test_a_channel_that_opens_a_moment_after_the_guest_runs_is_waited_for():
    found = Guest()
    later = iter([_CHANNEL.format('disconnected')])
    found.full_xml = lambda: next(later, _CHANNEL.format('connected'))

    assert clocks.set_all([running(found)]) == ()
