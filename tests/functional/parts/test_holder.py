# SPDX-License-Identifier: Apache-2.0
"""The process that has the gates in the host kernel: whoever dies, packets flow in the end."""

import contextlib
import os
import resource
import signal
import sys
import time

import pytest

from hotsnap_nova.virt.gates import bpf, holder, hooks, kept, kernel, word
from tests.functional import wires

LIMITS = 1000, 1 << 20
LONG_MS = 60_000


@pytest.fixture
def nics(wire):
    return (wire.nic.name,)


def until(met, what, timeout_s=20):
    ends = time.monotonic() + timeout_s
    while not (found := met()):
        assert time.monotonic() < ends, what
        time.sleep(0.005)
    return found


def alive(pid):
    return os.path.exists(f'/proc/{pid}') and ') Z ' not in open(f'/proc/{pid}/stat').read()


def boottime_ns():
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def test_what_was_held_goes_on_its_way_when_it_is_released(wire, keeper, nics):
    with keeper.arm('test', nics, *LIMITS) as gate:
        gate.close_gate(LONG_MS)
        wire.send_numbers(range(500))
        leaked = wire.numbers()
        gate.release()
        keeper.released('test')
        account = keeper.put_back('test')

        assert leaked == []
        assert wire.numbers() == list(range(500))
        assert account == kept.Account(held=500, delivered=500, overflow=0, lost=0,
                                         outstanding=0, lapsed=0)
        assert gate.state is word.State.OPEN
        keeper.disarm('test')
        keeper.disarm('test')
        assert hooks.leftovers() == ()


def test_what_was_held_goes_without_being_asked_for_again(wire, keeper, nics):
    with keeper.arm('test', nics, *LIMITS) as gate:
        gate.close_gate(LONG_MS)
        wire.send_numbers(range(500))
        time.sleep(0.1)    # it has seen that the gate is closed, and waits for the lease's end
        gate.release()
        keeper.released('test')

        until(lambda: gate.state is word.State.OPEN, 'it opens')
        assert wire.numbers() == list(range(500))


def test_what_is_held_stays_held_whoever_asks_for_it_too_early(wire, keeper, nics):
    with keeper.arm('test', nics, *LIMITS) as gate:
        gate.close_gate(LONG_MS)
        wire.send_numbers(range(5))
        keeper.released('test')

        assert keeper.put_back('test').delivered == 0
        assert wire.numbers() == []
        assert gate.state is word.State.CLOSED


def test_where_a_lease_ends_it_puts_back_in_order_what_was_held(wire, keeper, nics):
    with keeper.arm('test', nics, *LIMITS) as gate:
        gate.close_gate(100)
        wire.send_numbers(range(500))
        until(lambda: gate.state is word.State.OPEN, 'it opens')
        wire.send_numbers([500])

        assert wire.numbers() == list(range(501))


def test_too_many_are_counted_and_the_rest_arrives(wire, keeper, nics):
    with keeper.arm('test', nics, 100, 1 << 20) as gate:
        gate.close_gate(LONG_MS)
        wire.send_numbers(range(150))
        gate.release()
        keeper.released('test')

        account = keeper.put_back('test')

        assert (account.held, account.overflow) == (100, 50)
        assert wire.numbers() == list(range(100))


def test_two_gates_are_apart(wire, keeper, nics):
    second = wires.tap('hsguest2')
    wires.run('ip', 'link', 'set', 'hsguest2', 'up')
    try:
        with (keeper.arm('one', nics, *LIMITS) as one,
              keeper.arm('two', ('hsguest2',), *LIMITS) as two):
            one.close_gate(LONG_MS)
            two.close_gate(LONG_MS)
            wire.send_numbers(range(5))
            os.write(second, wires.numbered(1))
            two.release()
            keeper.released('two')

            assert keeper.put_back('two').delivered == 1
            assert one.state is word.State.CLOSED
            assert wire.numbers() == []
    finally:
        os.close(second)


def test_what_cannot_be_armed_leaves_nothing_and_harms_no_other_gate(wire, keeper, nics):
    with keeper.arm('test', nics, *LIMITS) as gate:
        with pytest.raises(bpf.GateUnavailable, match='no device hsgone'):
            keeper.arm('other', (wire.nic.name, 'hsgone'), *LIMITS)

        assert {hook.name for hook in hooks.leftovers()} == {'test'}
        gate.close_gate(LONG_MS)
        wire.send_numbers([1])
        assert wire.numbers() == []


def test_what_is_asked_about_a_gate_that_is_not_there_is_refused_and_harms_nobody(
        wire, keeper, nics):
    with keeper.arm('test', nics, *LIMITS):
        keeper.released('other')
        with pytest.raises(bpf.GateUnavailable, match='none called other'):
            keeper.put_back('other')
        with pytest.raises(bpf.GateUnavailable, match='one called test'):
            keeper.arm('test', nics, *LIMITS)

        assert keeper.put_back('test').held == 0


def test_a_holder_without_descriptors_refuses_and_keeps_what_it_has(keeper, wire, nics):
    """Each of the places where arming takes one more fails once."""
    second = wires.tap('hsguest2')
    files = f'/proc/{keeper.pid}/fd'
    with keeper.arm('test', nics, *LIMITS) as gate:
        keeper.arm('other', ('hsguest2',), *LIMITS).close()    # libraries are loaded
        keeper.disarm('other')
        gate.close_gate(LONG_MS)
        wire.send_numbers([1])
        before = len(os.listdir(files))
        refused = 0
        for most in range(before, before + 100):
            resource.prlimit(keeper.pid, resource.RLIMIT_NOFILE, (most, 4096))
            try:
                keeper.arm('other', ('hsguest2',), *LIMITS).close()
            except bpf.GateUnavailable:
                refused += 1
                assert {hook.name for hook in hooks.leftovers()} == {'test'}
            else:
                break

        assert refused > 5
        resource.prlimit(keeper.pid, resource.RLIMIT_NOFILE, (4096, 4096))
        keeper.disarm('other')
        assert len(os.listdir(files)) == before
        gate.release()
        assert keeper.put_back('test').delivered == 1
        assert wire.numbers() == [1]
    os.close(second)


def test_it_may_have_as_many_descriptors_as_the_host_allows():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, before[1]), before[1]))
    try:
        keeper = holder.Holder()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    keeper.disarm('none')    # it is up when this is answered

    assert resource.prlimit(keeper.pid, resource.RLIMIT_NOFILE) == (before[1], before[1])
    keeper.close()


@contextlib.contextmanager
def many_descriptors():
    """What is opened meanwhile has a number beyond those that select takes."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    opened = [os.open('/dev/null', os.O_RDONLY)]
    try:
        while opened[-1] < 1024:
            opened.append(os.dup(opened[0]))
        yield
    finally:
        for descriptor in opened:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_descriptors_beyond_those_of_select_do(wire):
    with many_descriptors():
        gate = kernel.KernelGate('test', (wire.nic.name,))
        each = kept.started(gate)
        gate.word.close_gate(LONG_MS)
        wire.send_numbers(range(10))
        leaked = wire.numbers()
        gate.word.release()
        each.put_back()
        got, numbers = wire.numbers(), gate.fds
        each.end()

    assert min(numbers) > 1023
    assert leaked == []
    assert got == list(range(10))


def test_each_gate_is_ended_whatever_goes_wrong_with_another(wire, monkeypatch):
    """And all are released before any is taken out, which takes its time."""
    second = wires.tap('hsguest2')
    wires.run('ip', 'link', 'set', 'hsguest2', 'up')
    gates = [kernel.KernelGate('one', (wire.nic.name,)),
             kernel.KernelGate('two', ('hsguest2',))]
    seen = []

    def breaks():
        seen.append(gates[1].word.state)
        raise ValueError('as a library may')

    each = tuple(map(kept.started, gates))
    for gate in gates:
        gate.word.close_gate(LONG_MS)
    wire.send_numbers([1])
    with monkeypatch.context() as patch:
        patch.setattr(gates[0], 'close', breaks)
        kept.end_all(each)

    assert wire.numbers() == [1]
    assert len(seen) == 1
    assert seen[0] is not word.State.CLOSED
    assert {hook.name for hook in hooks.leftovers()} == {'one'}
    gates[0].close()
    os.close(second)


def holding_devices():
    return [name for line in wires.run('ip', '-o', 'link', 'show', 'type', 'tun').splitlines()
            if (name := line.split(':')[1].strip()).removeprefix('hsg').isdigit()]


def test_what_a_deleted_device_held_is_told_of_as_lost_and_the_rest_goes(wire, keeper, nics):
    second = wires.tap('hsguest2')
    wires.run('ip', 'link', 'set', 'hsguest2', 'up')
    with keeper.arm('test', ('hsguest2', *nics), *LIMITS) as gate:
        gate.close_gate(LONG_MS)
        os.write(second, wires.numbered(1))
        wire.send_numbers([2])
        wires.run('ip', 'link', 'del', holding_devices()[0])
        gate.release()
        keeper.released('test')

        with pytest.raises(bpf.GateUnavailable, match='holding device of hsguest2'):
            keeper.put_back('test')
        assert wire.numbers() == [2]
        assert gate.state is word.State.OPEN
        keeper.disarm('test')
        assert hooks.leftovers() == ()
    os.close(second)


def test_a_device_that_is_deleted_while_all_passes_is_noticed_once(wire):
    """Else its descriptor, broken for good, would keep a processor busy."""
    gate = kernel.KernelGate('test', (wire.nic.name,))
    each = kept.started(gate)

    wires.run('ip', 'link', 'del', *holding_devices())

    until(lambda: gate.fds == (), 'it is given up')
    with pytest.raises(bpf.GateUnavailable, match='holding device of hsguest'):
        each.account()
    each.end()


def test_a_thread_that_died_does_not_say_that_all_was_put_back(wire, monkeypatch):
    gate = kernel.KernelGate('test', (wire.nic.name,))
    each = kept.started(gate)

    def breaks():
        raise ValueError('as a library may')

    monkeypatch.setattr(gate, 'put_back', breaks)
    each.put_back()

    with pytest.raises(bpf.GateUnavailable, match='ValueError: as a library may'):
        each.account()
    each.end()
    assert hooks.leftovers() == ()


def test_a_holder_that_stands_still_is_not_taken_for_alive(wire, keeper, nics, monkeypatch):
    monkeypatch.setattr(holder, '_SIGN_OF_LIFE_S', 0.1)
    keeper.arm('test', nics, *LIMITS).close()
    os.kill(keeper.pid, signal.SIGSTOP)
    still = keeper.alive()
    os.kill(keeper.pid, signal.SIGCONT)
    monkeypatch.undo()

    assert still is False
    assert keeper.alive() is True
    assert keeper.put_back('test').held == 0    # and a late sign of life is nobody's answer


def test_who_is_left_alone_disarms_and_ends(wire, nics):
    keeper = holder.Holder()
    keeper.arm('test', nics, *LIMITS).close()

    keeper.leave()

    until(lambda: not alive(keeper.pid), 'it ends')
    assert hooks.leftovers() == ()


@pytest.mark.parametrize('state', ['armed', 'closed', 'releasing'])
def test_a_participant_that_dies_leaves_no_packet_held_and_nothing_of_ours(
        wire, nics, state):
    keeper = holder.Holder()
    before = wires.run('tc', 'qdisc', 'show'), wires.run('ip', '-br', 'link')
    gate = keeper.arm('test', nics, *LIMITS)
    if state != 'armed':
        gate.close_gate(LONG_MS)
    wire.send_numbers(range(500))
    if state == 'releasing':
        gate.release()

    keeper._socket.close()    # as the kernel does
    gate.close()

    until(lambda: not alive(keeper.pid), 'the holder ends')
    assert wire.numbers() == list(range(500))
    assert hooks.leftovers() == ()
    assert (wires.run('tc', 'qdisc', 'show'), wires.run('ip', '-br', 'link')) == before


@pytest.mark.parametrize('state', ['armed', 'closed', 'releasing'])
def test_where_the_holder_is_killed_packets_flow_when_the_time_is_up(wire, nics, state):
    """Those held are gone, none passes before, and a later process takes out what is left."""
    before = wires.run('tc', 'qdisc', 'show'), wires.run('ip', '-br', 'link')
    keeper = holder.Holder()
    gate = keeper.arm('test', nics, *LIMITS)
    until_ns = gate.close_gate(200) if state != 'armed' else 0
    if state != 'armed':
        wire.send_numbers([0])
    if state == 'releasing':
        gate.release()
        until_ns = gate.until_ns

    os.kill(keeper.pid, signal.SIGKILL)
    until(lambda: not alive(keeper.pid), 'it ends')
    number, sent_in_time, got = 1, set(), []
    while not got:
        wire.send_numbers([number])
        if boottime_ns() < until_ns:
            sent_in_time.add(number)
        got = wire.numbers()
        number += 1

    assert state != 'closed' or not sent_in_time & set(got)
    assert kernel.leftovers(wires.GUEST) == ('test',)
    kernel.remove(wires.GUEST)
    assert (wires.run('tc', 'qdisc', 'show'), wires.run('ip', '-br', 'link')) == before
    gate.close()
    keeper.close()


def test_signals_that_end_services_do_not_end_it():
    with wires.own_network():
        wire = wires.tap_wire()
        keeper = holder.Holder()
        gate = keeper.arm('test', (wires.GUEST,), *LIMITS)

        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            os.kill(keeper.pid, number)

        assert keeper.put_back('test').held == 0    # it answers what was asked after the signal
        gate.close()
        keeper.close()
        wire.close()


def test_who_arms_need_load_neither_libbpf_nor_netlink():
    code = ('import sys; from hotsnap_nova.virt.gates import holder; '
            'assert "pyroute2" not in sys.modules; '
            'assert "libbpf" not in open("/proc/self/maps").read()')

    wires.run(sys.executable, '-c', code)
