# SPDX-License-Identifier: Apache-2.0
"""Gates that mark, in the process that outlives the service: who is told of a mark, and when."""

import contextlib
import os
import select
import signal
import time

import pytest

from hotsnap_nova.virt.gates import bpf, holder, hooks, kept, kernel, marks, word
from tests.functional import frames, wires

LONG_MS = 60_000
CODE = 11
MEMBERS = (marks.Address(wires.GUEST_MAC.hex(':'), frames.GUEST_IPS),
           marks.Address(wires.PEER_MAC.hex(':'), frames.PEER_IPS))


def marker(wait_ms=LONG_MS, addresses=MEMBERS):
    return marks.Marker(CODE, (CODE,), addresses, wait_ms)


@pytest.fixture
def armed(keeper):
    """The peer's gate."""
    with contextlib.closing(keeper.arm_marker('test', (wires.PEER,), marker())) as gate:
        yield gate


def asked(gate, timeout_s=20):
    """Whether a mark has asked for the cut by then."""
    return bool(select.select([gate.asks], [], [], timeout_s)[0])


def until(met, timeout_s=20):
    ends = time.monotonic() + timeout_s
    while not (found := met()) and time.monotonic() < ends:
        time.sleep(0.005)
    return found


def numbers(received):
    return [frames.number_of(frame) for frame in received]


def send(wire, *each, dscp=0):
    for number in each:
        wire.send(frames.numbered(number, dscp))


def test_of_a_mark_whoever_armed_is_told_and_has_it_delivered_when_he_says_so(
        wire, keeper, armed):
    send(wire, 0)
    early, told_early = numbers(wire.receive()), asked(armed, 0)
    send(wire, 1, dscp=CODE)
    send(wire, 2, 3)
    told = asked(armed)
    leaked, state = wire.receive(), armed.inward.state
    armed.inward.release()
    keeper.released('test')
    account = keeper.put_back('test')

    assert early == [0]
    assert not told_early
    assert told
    assert leaked == []
    assert state is word.State.CLOSED
    assert numbers(wire.receive()) == [1, 2, 3]
    assert armed.inward.state is word.State.OPEN
    assert (account.kept, account.kept_lapsed, account.overflow, account.outstanding) == (
        3, 0, 0, 0)


def test_what_is_kept_waits_though_others_ask_and_the_way_outward_is_released(
        wire, keeper, armed):
    send(wire, 1, dscp=CODE)
    armed.outward.close_gate(LONG_MS)
    armed.outward.release()
    keeper.released('test')
    account = keeper.put_back('test')
    leaked = wire.receive()

    assert leaked == []
    assert armed.inward.holds
    assert account.kept == account.outstanding == 1


def test_what_was_sent_with_a_mark_is_counted_and_what_was_held_goes_on_its_way(wire, keeper):
    with contextlib.closing(keeper.arm_marker('test', (wires.GUEST,), marker())) as gate:
        gate.outward.close_gate(LONG_MS)
        send(wire, 1, 2)
        wire.send(frames.ALL['arp'])
        early = wire.receive()
        gate.outward.release()
        account = keeper.put_back('test')

        assert [frames.dscp_of(frame) for frame in early] == [CODE, CODE]
        assert frames.seen(wire.receive(0.1)) == frames.seen([frames.ALL['arp']])
        assert (account.marked, account.held, account.delivered) == (2, 1, 1)


def test_a_cut_that_nobody_takes_delivers_in_order_when_the_time_of_a_mark_is_over(wire, keeper):
    with contextlib.closing(
            keeper.arm_marker('test', (wires.PEER,), marker(wait_ms=50))) as gate:
        send(wire, 0, dscp=CODE)
        send(wire, *range(1, 100))

        assert until(lambda: gate.inward.state is word.State.OPEN)
        assert asked(gate, 0)
        assert numbers(wire.receive()) == list(range(100))


@pytest.mark.parametrize('ends', [
    lambda keeper: keeper.disarm('test'),
    lambda keeper: keeper.close(),
], ids=['disarmed', 'participant died'])
def test_what_is_kept_is_delivered_when_the_gate_goes(wire, keeper, armed, ends):
    send(wire, 0, dscp=CODE)
    send(wire, *range(1, 100))
    assert asked(armed)
    leaked = wire.receive()
    ends(keeper)

    assert leaked == []
    assert numbers(wire.receive(0.1)) == list(range(100))
    assert hooks.leftovers() == ()


def test_what_is_about_to_go_is_closed_by_no_mark_any_more(wire):
    """Its holding devices go next, with all that were in them."""
    gate = kernel.KernelGate('test', (wires.PEER,), marker=marker())
    each = kept.started(gate)
    each.release()
    send(wire, 1, dscp=CODE)
    got = numbers(wire.receive(0.1))
    each.end()

    assert got == [1]
    assert hooks.leftovers() == ()


def test_an_armed_gate_that_goes_with_all_of_ours_leaves_marks_to_the_clock(wire):
    """No holding device is there any more: what comes until then is lost, as with `hold`."""
    keeper = holder.Holder()
    with contextlib.closing(
            keeper.arm_marker('test', (wires.PEER,), marker(wait_ms=50))) as gate:
        os.kill(keeper.pid, signal.SIGKILL)
        keeper.close()
        send(wire, 1, dscp=CODE)
        got = until(lambda: send(wire, 2) or wire.receive())

        assert numbers(got) == [2]
        assert gate.inward.state is word.State.CLOSED
        assert not gate.inward.holds
        assert hooks.leftovers() != ()


@pytest.mark.parametrize('wrong', [
    marks.Address('no mac', ()), marks.Address('02:00:00:00:0a:01', ('10.0.0.256',)),
], ids=['mac', 'ip'])
def test_what_is_no_address_fails_that_gate_and_no_other(wire, keeper, wrong):
    with pytest.raises(bpf.GateUnavailable, match='ValueError'):
        keeper.arm_marker('test', (wires.PEER,), marker(addresses=(wrong,)))

    assert keeper.alive()
    assert hooks.leftovers() == ()
