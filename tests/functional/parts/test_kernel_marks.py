# SPDX-License-Identifier: Apache-2.0
"""What a gate that marks does to packets, at a tap and at a macvtap.

The sender's gate marks what goes straight to a member and holds the rest; the receiver's takes
marks off, and keeps what comes from the first of them on. Each test has a network of its own.
"""

import select
import socket
import threading
import time

import pytest

from hotsnap_nova.virt.gates import bpf, hooks, kernel, marks, word
from tests.functional import frames, wires

LONG_MS = 60_000
CODE, EARLIER, FOREIGN = 11, 27, 46
BURST = 5_000
GUEST = marks.Address(wires.GUEST_MAC.hex(':'), frames.GUEST_IPS)
PEER = marks.Address(wires.PEER_MAC.hex(':'), frames.PEER_IPS)


def marker(addresses=(GUEST, PEER), wait_ms=LONG_MS, code=CODE):
    return marks.Marker(code, (CODE, EARLIER), addresses, wait_ms)


@pytest.fixture
def sender(wire):
    """The guest's gate."""
    made = kernel.KernelGate('test', (wires.GUEST,), marker=marker())
    yield made
    made.close()


@pytest.fixture
def receiver(wire):
    """The peer's gate, armed."""
    made = kernel.KernelGate('test', (wires.PEER,), marker=marker())
    yield made
    made.close()


def boottime_ns():
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def until_ended(a_word):
    while boottime_ns() < a_word.until_ns:
        time.sleep(0.0005)


def passed(wire, frame):
    """What the peer has of it."""
    wire.send(frame)
    return frames.seen(wire.receive(0.1))


def passed_each(wire, named):
    return {name: passed(wire, frame) for name, frame in named.items()}


def each_seen(named):
    return {name: frames.seen([frame]) for name, frame in named.items()}


def numbers(received):
    return [frames.number_of(frame) for frame in received]


# --- the sender's ---

def test_what_goes_straight_to_a_member_is_marked_and_not_held(wire, sender):
    sender.word.close_gate(LONG_MS)

    got = passed_each(wire, frames.straight())

    assert got == each_seen(frames.straight(CODE))
    assert sender.counters()[0].held == 0
    assert sender.marked().marked == len(got)


def test_what_might_take_a_detour_is_held_and_arrives_as_it_would_without_a_gate(wire, sender):
    without = passed_each(wire, frames.DETOURS)
    leaked, got = {}, {}
    for count, (name, frame) in enumerate(frames.DETOURS.items(), 1):
        sender.word.close_gate(LONG_MS)
        wire.send(frame)
        leaked[name] = wire.receive()
        assert sender.counters()[0].held == count, name
        sender.word.release()
        sender.put_back()
        got[name] = frames.seen(wire.receive(0.1))

    assert not any(leaked.values())
    assert sum(map(len, without.values())) > len(without) / 2    # or this would show nothing
    assert got == without
    assert sender.marked().marked == 0


@pytest.mark.parametrize('known', [(GUEST,), (PEER,)], ids=['to others', 'from others'])
def test_who_is_no_member_is_neither_marked_to_nor_from(wire, known):
    gate = kernel.KernelGate('test', (wires.GUEST,), marker=marker(known))
    gate.word.close_gate(LONG_MS)
    for frame in frames.straight().values():
        wire.send(frame)
    leaked = wire.receive()
    held = gate.counters()[0].held
    gate.close()

    assert leaked == []
    assert held == len(frames.straight())


def test_before_the_cut_and_after_the_release_nothing_is_marked(wire, sender):
    before = passed_each(wire, frames.straight())
    sender.word.close_gate(LONG_MS)
    wire.send(frames.ALL['arp'])
    sender.word.release(LONG_MS)
    # At once, though something is still held: everybody is past his cut.
    after = passed_each(wire, frames.straight())
    sender.put_back()

    assert before == after == each_seen(frames.straight())
    assert frames.seen(wire.receive(0.1)) == frames.seen([frames.ALL['arp']])


def test_when_the_lease_ends_nothing_is_marked_any_more_though_nobody_acts(wire, sender):
    sender.word.close_gate(30)
    until_ended(sender.word)

    got = passed_each(wire, frames.straight())

    assert got == each_seen(frames.straight())
    assert sender.word.lapsed == len(got)


# --- the receiver's ---

def test_an_armed_gate_keeps_a_mark_and_all_behind_it_until_it_is_released(wire, receiver):
    marked = list(frames.straight(CODE).values())
    behind = [*frames.straight().values(), frames.ALL['arp'], frames.ALL['vlan']]
    early = passed(wire, frames.numbered(1))
    for frame in (*marked, *behind):
        wire.send(frame)
    leaked = wire.receive()
    closed = receiver.inward_way.word.holds
    told = select.select(receiver.inward_way.fds, [], [], 0)[0]
    receiver.inward_way.word.release()
    receiver.inward_way.put_back()

    assert early == frames.seen([frames.numbered(1)])
    assert leaked == []
    assert closed
    assert told == list(receiver.inward_way.fds)
    assert frames.seen(wire.receive(0.1)) == frames.seen([*frames.straight().values(), *behind])
    assert receiver.inward_way.word.state is word.State.OPEN
    assert receiver.marked() == marks.Marked(marked=0, stripped=len(marked), asked=1)


def test_without_a_mark_an_armed_gate_keeps_nothing(wire, receiver):
    assert passed_each(wire, frames.ALL) == each_seen(frames.ALL)
    assert receiver.inward_way.word.state is word.State.ARMED
    assert receiver.inward_way.counters()[0].held == 0


@pytest.mark.parametrize(('frame', 'arrives'), [
    (frames.numbered(1, EARLIER), frames.numbered(1)),
    (frames.numbered(1, FOREIGN), frames.numbered(1, FOREIGN)),
    (frames.ALL['vlan'], frames.ALL['vlan']),
    (frames.virtio() + frames.ethernet(0x0800)
     + frames.ipv4(frames.udp(9), 17, CODE, target='10.0.0.99'),) * 2,
], ids=["another epoch's is stripped", 'no mark at all', 'a vlan', 'to no member'])
def test_what_is_no_mark_of_this_epoch_asks_for_no_cut(wire, receiver, frame, arrives):
    assert passed(wire, frame) == frames.seen([arrives])
    assert receiver.inward_way.word.state is word.State.ARMED


def test_from_who_is_no_member_a_code_point_is_his_own_affair(wire):
    gate = kernel.KernelGate('test', (wires.PEER,), marker=marker((PEER,)))
    got = passed(wire, frames.numbered(1, CODE))
    state = gate.inward_way.word.state
    gate.close()

    assert got == frames.seen([frames.numbered(1, CODE)])
    assert state is word.State.ARMED


def test_a_mark_behind_a_vlan_tag_is_one(wire, receiver):
    """As where a network hands a member's packets to another as those of a trunk's."""
    tagged = frames.virtio() + frames.ethernet(0x0800, tags=frames.VLAN)

    wire.send(tagged + frames.ipv4(frames.udp(100), 17, CODE))
    leaked = wire.receive()
    receiver.inward_way.word.release()
    receiver.inward_way.put_back()

    assert leaked == []
    assert frames.seen(wire.receive(0.1)) == frames.seen(
        [tagged + frames.ipv4(frames.udp(100), 17)])


def test_past_its_cut_a_member_has_late_marks_taken_off_and_waits_for_nothing(wire, receiver):
    receiver.inward_way.word.release()
    receiver.inward_way.put_back()

    got = passed_each(wire, frames.straight(CODE))

    assert got == each_seen(frames.straight())
    assert receiver.marked().asked == 0
    assert receiver.inward_way.word.state is word.State.OPEN


def test_kept_is_nothing_beyond_the_lease_that_the_mark_began_though_nobody_acts(wire):
    gate = kernel.KernelGate('test', (wires.PEER,), marker=marker(wait_ms=30))
    wire.send(frames.numbered(0, CODE))
    inward = gate.inward_way
    in_time, got, number = [], [], 0
    while not got:
        number += 1
        wire.send(frames.numbered(number, CODE))
        if boottime_ns() < inward.word.until_ns:
            in_time.append(number)
        got = wire.receive()
    lapsed, state = inward.word.lapsed, inward.word.state
    inward.put_back()
    later = wire.receive(0.1)
    gate.close()

    assert numbers(got) == [number]
    assert number not in in_time
    assert lapsed > 0
    assert state is word.State.CLOSED
    assert numbers(later) == list(range(number))


def test_more_than_a_member_may_have_kept_is_dropped_and_counted(wire):
    gate = kernel.KernelGate('test', (wires.PEER,), marker=marker(), packets=100)
    for number in range(150):
        wire.send(frames.numbered(number, CODE))
    gate.inward_way.word.release()
    gate.inward_way.put_back()
    got = wire.receive()
    overflow = gate.inward_way.counters()[0].overflow
    gate.close()

    assert numbers(got) == list(range(100))
    assert overflow == 50


def test_every_kind_of_frame_that_is_kept_arrives_as_it_would_without_a_gate(wire, receiver):
    without = passed_each(wire, frames.ALL)
    leaked, kept = {}, {}
    for name, frame in frames.ALL.items():
        receiver.inward_way.word.close_gate(LONG_MS)
        wire.send(frame)
        leaked[name] = wire.receive()
        receiver.inward_way.word.release()
        receiver.inward_way.put_back()
        kept[name] = frames.seen(wire.receive(0.1))

    assert not any(leaked.values())
    assert kept == without == each_seen(frames.ALL)


# --- from one to the other ---

def test_what_is_sent_after_a_cut_waits_for_the_other_and_nothing_else_does(
        wire, sender, receiver):
    """Nothing is lost, doubled or overtaken, at full speed."""
    for number in range(100):
        wire.send(frames.numbered(number))
    early = numbers(wire.receive())
    sender.word.close_gate(LONG_MS)
    for number in range(100, 100 + BURST):
        wire.send(frames.numbered(number))
    leaked = wire.receive()
    receiver.inward_way.word.release()
    receiver.inward_way.put_back()
    late = wire.receive()
    wire.send(frames.numbered(7))
    past_both = frames.seen(wire.receive(0.1))

    assert early == list(range(100))
    assert leaked == []
    assert numbers(late) == list(range(100, 100 + BURST))
    assert {frames.dscp_of(frame) for frame in late} == {0}
    assert past_both == frames.seen([frames.numbered(7)])
    assert sender.counters()[0].held == 0
    assert sender.marked().marked == BURST + 1
    assert receiver.marked() == marks.Marked(marked=0, stripped=BURST + 1, asked=1)


def test_what_comes_while_what_was_kept_is_delivered_comes_behind_it(wire, sender, receiver):
    """The sender goes on throughout, with gaps that a guest whose peer was silent has."""
    ends = threading.Event()
    sent = []

    def send_on():
        for number in range(1000, 1 << 30):
            if ends.is_set():
                return
            wire.send(frames.numbered(number))
            sent.append(number)
            time.sleep(0.0001)

    sender.word.close_gate(LONG_MS)
    for number in range(1000):
        wire.send(frames.numbered(number))
    receiver.inward_way.word.release(LONG_MS)
    going_on = threading.Thread(target=send_on)
    going_on.start()
    while len(sent) < 10:
        time.sleep(0.001)
    receiver.inward_way.put_back()
    ends.set()
    going_on.join()

    assert receiver.inward_way.counters()[0].held > 1000    # or it was sent too late
    assert numbers(wire.receive()) == [*range(1000), *sent]


@pytest.mark.parametrize('kind', wires.KINDS)
def test_of_marks_on_several_queues_at_once_none_gets_through_and_one_asks(kind):
    queues = 4
    with wires.own_network():
        wire = wires.KINDS[kind](queues)
        gate = kernel.KernelGate('test', (wires.PEER,), marker=marker())

        def send(queue):
            for number in range(BURST // queues):
                wire.send(frames.numbered(queue << 32 | number, CODE), queue)

        senders = [threading.Thread(target=send, args=(queue,)) for queue in range(queues)]
        for each in senders:
            each.start()
        for each in senders:
            each.join()
        leaked, asked = wire.receive(), gate.marked().asked
        gate.inward_way.word.release()
        gate.inward_way.put_back()
        got = numbers(wire.receive())
        gate.close()
        wire.close()

    assert leaked == []
    assert asked == 1
    assert [[number & 0xffffffff for number in got if number >> 32 == queue]
            for queue in range(queues)] == [list(range(BURST // queues))] * queues


# --- beside others ---

@pytest.mark.parametrize('foreign', [False, True], ids=['alone', 'beside a qdisc of others'])
def test_what_came_with_a_gate_that_marks_goes_with_it(wire, foreign):
    if foreign:
        wires.run('tc', 'qdisc', 'add', 'dev', wires.GUEST, 'clsact')
    before = wires.qdiscs(), wires.filters(), wires.devices()

    gate = kernel.KernelGate('test', (wires.GUEST,), marker=marker())
    at_device = hooks.leftovers(socket.if_nametoindex(wires.GUEST))
    gate.close()

    assert {hook.ingress for hook in at_device} == {True, False}
    assert (wires.qdiscs(), wires.filters(), wires.devices()) == before
    assert hooks.leftovers() == ()


def test_a_later_process_takes_out_both_sides_of_what_a_dead_one_left(wire):
    before = wires.qdiscs(), wires.filters()
    left = kernel.KernelGate('test', (wires.GUEST,), marker=marker())

    kernel.remove(wires.GUEST)

    assert (wires.qdiscs(), wires.filters()) == before
    left.close()


def test_a_tap_with_a_limit_of_bandwidth_has_no_place_for_it_and_stays_as_it_was():
    """Neutron's and libvirt's ingress qdisc bars the egress, where a tap's guest is sent to."""
    with wires.own_network():
        wire = wires.tap_wire()
        wires.run('tc', 'qdisc', 'add', 'dev', wires.GUEST, 'ingress')
        before = wires.qdiscs(), wires.filters(), wires.devices()

        with pytest.raises(bpf.GateUnavailable, match='ingress qdisc'):
            kernel.KernelGate('test', (wires.GUEST,), marker=marker())

        assert (wires.qdiscs(), wires.filters(), wires.devices()) == before
        wire.close()


@pytest.mark.parametrize('side', ['ingress', 'egress'])
def test_that_somebody_took_either_program_out_is_told(wire, sender, side):
    before = sender.bypassed()
    wires.run('tc', 'filter', 'del', 'dev', wires.GUEST, side)

    assert before == ()
    assert sender.bypassed() == (wires.GUEST,)


# --- what is asked for ---

@pytest.mark.parametrize('code', [0, 64, FOREIGN], ids=['none', 'too large', 'not of them'])
def test_what_is_no_code_point_of_ours_is_no_marker(code):
    with pytest.raises(ValueError, match='no mark'):
        marks.Marker(code, (CODE,), (), LONG_MS)


def test_the_lease_that_a_mark_begins_is_as_long_as_was_asked_for(wire):
    gate = kernel.KernelGate('test', (wires.PEER,), marker=marker(wait_ms=5000))
    before = boottime_ns()
    wire.send(frames.numbered(1, CODE))
    after = boottime_ns()
    until_ns = gate.inward_way.word.until_ns
    gate.close()

    assert before <= until_ns - 5_000_000_000 <= after
