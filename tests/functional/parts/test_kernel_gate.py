# SPDX-License-Identifier: Apache-2.0
"""What the gate in the host kernel does to packets, at a tap and at a macvtap.

Order, loss, duplication, leaks, lease, overflow, and frames as guests really send them. Each test
has a network of its own; what is sent and read are the devices' own frames.
"""

import contextlib
import os
import socket
import threading
import time

import pytest

from hotsnap_nova.virt.gates import kernel, way, word
from tests.functional import frames, wires

#: At full speed, in a fraction of a second.
BURST = 10_000
LONG_MS = 60_000


@pytest.fixture
def gate(wire):
    made = kernel.KernelGate('test', (wire.nic.name,))
    yield made
    made.close()


def boottime_ns():
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def test_an_armed_gate_lets_everything_pass_at_once(wire, gate):
    wire.send_numbers(range(BURST))

    assert wire.numbers() == list(range(BURST))
    assert gate.counters()[0].held == 0


def test_a_closed_gate_lets_nothing_pass_and_a_release_all_of_it_in_order(wire, gate):
    gate.word.close_gate(LONG_MS)
    wire.send_numbers(range(BURST))

    leaked = wire.numbers()
    gate.word.release()
    gate.put_back()

    assert leaked == []
    assert wire.numbers() == list(range(BURST))
    assert gate.counters()[0].delivered == BURST
    assert gate.word.state is word.State.OPEN


def test_what_is_sent_while_it_is_put_back_comes_behind_what_was_held(wire, gate):
    """The sender goes on throughout, with gaps that a guest whose peer was silent has."""
    ends = threading.Event()
    sent = []

    def send_on():
        for number in range(2000, 1 << 30):
            if ends.is_set():
                return
            wire.send_numbers([number])
            sent.append(number)
            time.sleep(0.0001)

    gate.word.close_gate(LONG_MS)
    wire.send_numbers(range(2000))
    gate.word.release(LONG_MS)
    sender = threading.Thread(target=send_on)
    sender.start()
    while len(sent) < 10:
        time.sleep(0.001)
    gate.put_back()
    ends.set()
    sender.join()

    assert gate.counters()[0].held > 2000    # or it was sent too late to show anything
    assert wire.numbers() == [*range(2000), *sent]


def test_it_closes_again_and_again(wire, gate):
    got = []
    for round_ in range(20):
        wire.send_numbers(range(round_ * 100, round_ * 100 + 50))
        got += wire.numbers()
        gate.word.close_gate(LONG_MS)
        wire.send_numbers(range(round_ * 100 + 50, round_ * 100 + 100))
        assert wire.numbers() == []
        gate.word.release()
        gate.put_back()
        got += wire.numbers()

    assert got == list(range(2000))


def test_nothing_that_was_sent_in_the_lease_passes_though_nobody_acts(wire, gate):
    """And what is sent afterwards does; the gate tells that it opened by itself."""
    until_ns = gate.word.close_gate(300)
    in_time, got, number = [], [], 0
    while not got:
        wire.send_numbers([number])
        if boottime_ns() < until_ns:
            in_time.append(number)
        got = wire.numbers()
        number += 1

    assert in_time
    assert got == [number - 1]
    assert got[0] not in in_time
    assert gate.word.lapsed > 0
    assert gate.word.state is word.State.CLOSED


def test_a_holder_that_lives_keeps_the_order_where_the_lease_ends(wire, gate):
    while True:
        until_ns = gate.word.close_gate(20)
        wire.send_numbers(range(500))
        while boottime_ns() < until_ns:
            pass
        wire.send_numbers([500])
        in_time = boottime_ns() < until_ns + way.GRACE_NS
        gate.put_back()
        wire.send_numbers([501])
        got = wire.numbers()
        if in_time:    # else this process was kept from it, and so would a holder be
            break

    assert got == list(range(502))
    assert gate.word.lapsed > 0


def test_a_gate_that_was_released_in_time_did_not_open_by_itself(wire, gate):
    gate.word.close_gate(LONG_MS)
    wire.send_numbers(range(10))
    gate.word.release()
    gate.put_back()
    wire.send_numbers(range(10))

    assert gate.word.lapsed == 0


@pytest.mark.parametrize('limit', [{'packets': 100}, {'size': 6000}], ids=['packets', 'bytes'])
def test_more_than_it_may_hold_is_dropped_and_counted(wire, limit):
    gate = kernel.KernelGate('test', (wire.nic.name,), **limit)
    try:
        gate.word.close_gate(LONG_MS)
        wire.send_numbers(range(150))
        gate.word.release()
        gate.put_back()

        assert wire.numbers() == list(range(100))
        assert gate.counters()[0].overflow == 50
    finally:
        gate.close()


def test_once_released_a_full_queue_is_rather_passed_than_dropped(wire):
    gate = kernel.KernelGate('test', (wire.nic.name,), packets=100)
    try:
        gate.word.close_gate(LONG_MS)
        wire.send_numbers(range(100))
        gate.word.release()
        wire.send_numbers([100])
        early = wire.numbers()
        gate.put_back()

        assert early == [100]
        assert wire.numbers() == list(range(100))
        assert gate.counters()[0].overflow == 0
    finally:
        gate.close()


# --- frames as guests send them ---

def test_every_kind_of_frame_arrives_as_it_would_without_a_gate(wire, gate):
    without, leaked, held = {}, {}, {}
    for name, frame in frames.ALL.items():
        wire.send(frame)
        without[name] = wire.receive(1)
    for name, frame in frames.ALL.items():
        gate.word.close_gate(LONG_MS)
        wire.send(frame)
        leaked[name] = wire.receive()
        gate.word.release()
        gate.put_back()
        held[name] = wire.receive(1)

    # Whole, not cut up on the way, or this would show nothing.
    assert {name: list(map(len, whole)) for name, whole in without.items()} == {
        name: [len(frame)] for name, frame in frames.ALL.items()}
    assert not any(leaked.values())
    assert held == without


# --- more than one ---

@pytest.mark.parametrize('kind', wires.KINDS)
def test_every_queue_of_a_device_is_held(kind):
    queues = 4
    with wires.own_network():
        wire = wires.KINDS[kind](queues)
        gate = kernel.KernelGate('test', (wire.nic.name,))
        gate.word.close_gate(LONG_MS)
        senders = [threading.Thread(
            target=wire.send_numbers, args=(range(queue << 32, (queue << 32) + BURST // queues),),
            kwargs={'queue': queue}) for queue in range(queues)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        leaked = wire.numbers()
        gate.word.release()
        gate.put_back()
        got = wire.numbers()
        gate.close()
        wire.close()

    assert leaked == []
    assert [[number & 0xffffffff for number in got if number >> 32 == queue]
            for queue in range(queues)] == [list(range(BURST // queues))] * queues


def test_one_write_closes_every_nic_of_a_gate(wire):
    second = wires.tap('hsguest2')
    wires.run('ip', 'link', 'set', 'hsguest2', 'up')
    gate = kernel.KernelGate('test', (wire.nic.name, 'hsguest2'))
    try:
        gate.word.close_gate(LONG_MS)
        wire.send_numbers([1])
        os.write(second, wires.numbered(2))

        assert [counters.held for counters in gate.counters()] == [1, 1]
    finally:
        gate.close()
        os.close(second)


def test_two_gates_know_nothing_of_each_other(wire):
    second = wires.tap('hsguest2')
    wires.run('ip', 'link', 'set', 'hsguest2', 'up')
    gates = [kernel.KernelGate('one', (wire.nic.name,)),
             kernel.KernelGate('two', ('hsguest2',))]
    try:
        gates[1].word.close_gate(LONG_MS)
        wire.send_numbers(range(10))

        assert wire.numbers() == list(range(10))
    finally:
        for gate in gates:
            gate.close()
        os.close(second)


# --- what the host and others do ---

def test_what_the_host_sends_into_a_holding_device_is_not_put_back(wire, gate):
    gate.word.close_gate(LONG_MS)
    wire.send_numbers([1])
    (name,) = (line.split(':')[1].strip() for line in wires.run(
        'ip', '-o', 'link', 'show', 'type', 'tun').splitlines() if ': hsg' in line
        and wires.GUEST not in line)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as host:
        host.bind((name, 0x88b5))
        with contextlib.suppress(OSError):    # it is told that nobody takes it
            host.send(wires.numbered(2)[len(wires.PLAIN):])
    gate.word.release()
    gate.put_back()

    assert wire.numbers() == [1]


def test_a_frame_longer_than_the_network_takes_harms_nobody(wire, gate):
    """Without a gate it is dropped as well."""
    gate.word.close_gate(LONG_MS)
    wire.send_numbers([1])
    wire.send_numbers([2], size=4000)
    wire.send_numbers([3])
    gate.word.release()
    gate.put_back()
    wire.send_numbers([4])

    assert wire.numbers() == [1, 3, 4]
