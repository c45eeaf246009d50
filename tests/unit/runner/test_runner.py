# SPDX-License-Identifier: Apache-2.0
"""Commands in order, outcomes at once, a failure ends its list."""

import threading

import pytest

from hotsnap_nova import exception, runner
from hotsnap_nova.protocol import commands, messages
from tests.fakes import cluster as clusters


class Machine:
    """Answers each message as it was told to."""

    def __init__(self, script=None):
        self.script = script or {}
        self.heard = []
        self.wake_ns = None

    def receive(self, message, now):
        self.heard.append(message)
        return self.script.get(message, [])

    def tick(self, now):
        self.heard.append(('tick', now))
        self.wake_ns = None
        return []

    def wakeup(self):
        return self.wake_ns


@pytest.fixture
def done():
    return []


def make(machine, done, clock_ns=lambda: 7):
    def execute(command):
        done.append(command)
        if command == 'bad':
            raise exception.GuestBusy(member='web', reason='it is')
        if command == 'worse':
            raise ZeroDivisionError
        return [f'{command} ended']
    return runner.Runner(machine, {str: execute}, dict, 'host-1', clock_ns)


def test_commands_are_done_in_the_order_the_machine_gave_them(done):
    make(Machine({'go': ['one', 'two', 'three']}), done).receive('go')

    assert done == ['one', 'two', 'three']


def test_what_an_outcome_leads_to_comes_before_the_rest_of_the_list(done):
    machine = Machine({'go': ['one', 'two'], 'one ended': ['between']})

    make(machine, done).receive('go')

    assert done == ['one', 'between', 'two']


@pytest.mark.parametrize(('bad', 'code'), [('bad', 'guest_busy'), ('worse', 'bug')])
def test_the_first_failure_ends_its_list_and_the_machine_is_told_why(done, bad, code):
    machine = Machine({'go': ['one', bad, 'three']})

    make(machine, done).receive('go')

    assert done == ['one', bad]
    failed = machine.heard[-1]
    assert failed.command == bad
    assert (failed.cause.code, failed.cause.host) == (code, 'host-1')


def test_what_a_failure_leads_to_is_done(done):
    machine = Machine({'go': ['bad']})
    cause = runner.cause_of(exception.GuestBusy(member='web', reason='it is'), 'host-1')
    machine.script[commands.CommandFailed('bad', cause)] = ['cleaned']

    make(machine, done).receive('go')

    assert done == ['bad', 'cleaned']


def test_cause_names_the_member_the_error_names():
    cause = runner.cause_of(exception.GuestBusy(member='web', reason='it is'), 'host-1')

    assert cause == messages.Cause('guest_busy', 'Member web is busy: it is.', 'host-1', 'web')


def test_the_machine_may_be_asked_while_a_command_is_under_way():
    entered, leave = threading.Event(), threading.Event()

    def slow(_command):
        entered.set()
        leave.wait(10)
    machine = Machine({'go': ['slow']})
    under_test = runner.Runner(machine, {str: slow}, dict)
    thread = threading.Thread(target=under_test.receive, args=('go',))
    thread.start()
    entered.wait(10)

    under_test.receive('meanwhile')

    assert machine.heard == ['go', 'meanwhile']
    leave.set()
    thread.join()


def test_ticks_when_the_machine_wants_it_and_only_then(done):
    machine, ticked = Machine(), threading.Event()
    now = [0]
    under_test = make(machine, done, lambda: now[0])
    machine.tick = lambda at: (setattr(machine, 'wake_ns', None), ticked.set(), [])[-1]
    under_test.start_ticking()
    machine.wake_ns = 5

    under_test.receive('look at your wakeup')
    assert not ticked.wait(0.05)
    now[0] = 5
    under_test.receive('time has passed')

    assert ticked.wait(10)
    under_test.close()


def test_what_is_due_beside_what_failed_is_done_with_the_next_tick(done):
    machine = Machine()
    due = ['bad', 'good']
    machine.wakeup = lambda: 7 if due else None
    machine.tick = lambda _now: [due.pop(0)]
    under_test = make(machine, done)

    under_test.start_ticking()

    clusters.until(lambda: done == ['bad', 'good'], 10)
    under_test.close()


def test_each_transition_is_logged_once(caplog):
    phases = {'Snapshot s1 epoch 3': 'prepare'}
    under_test = runner.Runner(Machine(), {}, lambda: dict(phases))
    caplog.set_level('INFO')

    under_test.receive('a')
    phases['Snapshot s1 epoch 3'] = 'record'
    under_test.receive('b')
    under_test.receive('c')

    assert [r.getMessage().split(' in ')[0] for r in caplog.records] == [
        'Snapshot s1 epoch 3: prepare -> record']


def test_a_tick_that_hangs_does_not_keep_it_from_ending():
    entered, leave = threading.Event(), threading.Event()

    def slow(_command):
        entered.set()
        leave.wait(10)
    machine = Machine()
    machine.wake_ns = 1
    machine.tick = lambda _now: (setattr(machine, 'wake_ns', None), ['slow'])[-1]
    under_test = runner.Runner(machine, {str: slow}, dict)
    under_test.start_ticking()
    assert entered.wait(10)

    assert not under_test.close(0.1)

    leave.set()
    assert under_test.close()
