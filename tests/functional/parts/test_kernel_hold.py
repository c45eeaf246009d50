# SPDX-License-Identifier: Apache-2.0
"""``hold`` as the host kernel carries it: what a member's part of a snapshot asks and is told."""

import os
import signal
import socket
import subprocess
import time

import pyroute2
import pytest

from hotsnap_nova import exception
from hotsnap_nova.virt import domain, records
from hotsnap_nova.virt.gates import (
    bpf,
    gate,
    holder,
    holding,
    hooks,
    inkernel,
    kernel,
    reach,
    word,
)
from tests.functional import wires

MEMBER = records.MemberSpec('7d5a', 'web')
INTERFACE = '''<interface type='{kind}'><mac address='02:00:00:00:0a:01'/><target dev='hsguest'/>
  <model type='virtio'/><driver {driver}/><alias name='net0'/></interface>'''


def guest(kind, driver="name='vhost' queues='4'"):
    return domain.DomainXml(
        "<domain type='kvm'><name>web</name><uuid>7d5a</uuid><memory>1</memory><devices>"
        f"{INTERFACE.format(kind=kind, driver=driver)}</devices></domain>")


def work(kind='hold', max_hold_ms=60_000):
    return records.Work(snapshot_id='s', epoch=1, members=(MEMBER,), gate=kind,
                        max_pause_ms=100, max_hold_ms=max_hold_ms, folder='/nowhere')


@pytest.fixture(params=wires.KINDS)
def wire(request):
    with wires.own_network():
        made = wires.KINDS[request.param]()
        made.xml_kind = {'tap': 'bridge', 'macvtap': 'direct'}[request.param]
        yield made
        made.close()


def made(wire, keeper, **asked):
    found = gate.make(work(**asked), None, MEMBER, 'abc123', guest(wire.xml_kind), lambda: keeper,
                      os.getpid())
    found.prepare()
    return found


def until(met, timeout_s=20):
    ends = time.monotonic() + timeout_s
    while not (found := met()) and time.monotonic() < ends:
        time.sleep(0.005)
    return found


def test_from_close_to_open_nothing_passes_and_afterwards_all_has(wire, keeper):
    hold = made(wire, keeper)
    wire.send_numbers([0])
    hold.close()
    wire.send_numbers(range(1, 100))
    early = wire.numbers()
    hold.open()
    hold.open()

    assert early == [0]
    assert hold.opened_by_itself() is False
    assert wire.numbers() == list(range(1, 100))
    hold.remove()
    hold.remove()
    assert hooks.leftovers() == ()


def test_packets_that_passed_because_the_lease_had_ended_are_told_of(wire, keeper):
    """The holder stands still, or it would have opened the gate by then."""
    hold = made(wire, keeper, max_hold_ms=1)
    os.kill(keeper.pid, signal.SIGSTOP)
    hold.close()
    time.sleep(0.05)
    wire.send_numbers([1])
    got = wire.numbers(5)
    os.kill(keeper.pid, signal.SIGCONT)
    hold.open()

    assert got == [1]
    assert hold.opened_by_itself() is True
    hold.remove()


def test_a_device_that_the_xml_calls_ethernet_is_held_as_what_it_is(wire, keeper):
    """As who makes taps and macvtaps by himself tells libvirt of both."""
    hold = gate.make(work(), None, MEMBER, 'abc123', guest('ethernet'), lambda: keeper,
                     os.getpid())
    hold.prepare()
    hold.close()
    wire.send_numbers([1])
    early = wire.numbers()
    hold.open()

    assert reach.missing(wires.GUEST, os.getpid()) is None
    assert early == []
    assert hold.opened_by_itself() is False
    assert wire.numbers() == [1]
    hold.remove()


@pytest.mark.parametrize('keeps', [True, False], ids=['put back', 'holder stands still'])
def test_a_lease_that_ended_is_told_of_though_no_packet_came(wire, keeper, keeps):
    hold = made(wire, keeper, max_hold_ms=1)
    if not keeps:
        os.kill(keeper.pid, signal.SIGSTOP)
    hold.close()
    until_ns = hold._word.until_ns
    if keeps:    # it looks at its word, as it would for a packet
        keeper.released('abc123.7d5a')
        assert until(lambda: hold._word.state is word.State.OPEN)
    while time.clock_gettime_ns(time.CLOCK_BOOTTIME) < until_ns:
        time.sleep(0.001)
    hold.open()
    hold.open()
    os.kill(keeper.pid, signal.SIGCONT)

    assert hold.opened_by_itself() is True
    hold.remove()


def theirs_first(side, place):
    """A program of others of our priority, put there later."""
    theirs = bpf.Loaded(kernel.object_path())
    with pyroute2.IPRoute() as ip:
        ip.tc('add-filter', 'bpf', socket.if_nametoindex(wires.GUEST), 0x77, prio=1, protocol=3,
              fd=theirs.program('put_back'), name='theirs', direct_action=True, parent=place)
    theirs.close()


@pytest.mark.parametrize('does', [
    lambda side, _: wires.run('tc', 'qdisc', 'del', 'dev', wires.GUEST, 'clsact'),
    lambda side, _: wires.run('tc', 'filter', 'del', 'dev', wires.GUEST, side),
    theirs_first,
], ids=['qdisc deleted', 'filters deleted', 'theirs is first'])
def test_a_gate_that_somebody_took_out_or_led_around_opened_by_itself(wire, keeper, does):
    """As who sets a limit of bandwidth does; no packet need have come."""
    hold = made(wire, keeper)
    hold.close()
    does(*(('ingress', 0xfffffff2) if wire.nic.ingress else ('egress', 0xfffffff3)))
    hold.open()

    assert hold.opened_by_itself() is True
    hold.remove()


def test_filters_of_others_behind_ours_are_no_matter(wire, keeper):
    side = 'ingress' if wire.nic.ingress else 'egress'
    wires.run('tc', 'qdisc', 'add', 'dev', wires.GUEST, 'clsact')
    hold = made(wire, keeper)
    hold.close()
    wires.run('tc', 'filter', 'add', 'dev', wires.GUEST, side, 'prio', '2', 'protocol', 'all',
              'u32', 'match', 'u32', '0', '0', 'classid', '1:1')
    hold.open()

    assert hold.opened_by_itself() is False
    hold.remove()


def test_packets_that_were_dropped_fail_the_snapshot(wire, keeper, monkeypatch):
    monkeypatch.setattr(keeper, 'arm',
                        lambda name, nics: holder.Holder.arm(keeper, name, nics, packets=10))
    hold = made(wire, keeper)
    hold.close()
    wire.send_numbers(range(15))
    hold.open()

    with pytest.raises(inkernel.GateOverflowed, match='web sent more .* 5 packets'):
        hold.opened_by_itself()
    hold.remove()


def test_what_was_armed_too_late_for_the_answer_is_taken_out(wire, keeper, monkeypatch):
    assert keeper.alive()
    os.kill(keeper.pid, signal.SIGSTOP)
    hold = gate.make(work(), None, MEMBER, 'abc123', guest(wire.xml_kind), lambda: keeper,
                     os.getpid())
    with monkeypatch.context() as patch:
        patch.setattr(holder, '_ANSWER_S', 0.1)
        with pytest.raises(exception.HostUnreachable):
            hold.prepare()
    os.kill(keeper.pid, signal.SIGCONT)
    assert keeper.alive()    # it has done what it was asked to
    late = hooks.leftovers()
    hold.remove()

    assert late
    assert hooks.leftovers() == ()


def test_a_holder_that_died_fails_the_snapshot_and_keeps_nobody(wire, keeper):
    hold = made(wire, keeper)
    hold.close()
    os.kill(keeper.pid, signal.SIGKILL)

    hold.open()
    hold.let_go(None)

    assert hold.opened_by_itself() is True
    hold.remove()


def test_guests_that_qemu_itself_can_hold_are_left_to_it():
    def never():
        raise AssertionError('no holder is needed')

    plain = guest('bridge', "name='qemu'")

    assert isinstance(gate.make(work(), None, MEMBER, 't', plain, never, None), gate.HoldGate)
    for kind, expected in (('barrier', gate.BarrierGate), ('none', gate.NoGate)):
        assert isinstance(gate.make(work(kind), None, MEMBER, 't', guest('bridge'), never,
                                    None),
                          expected)


def test_a_device_of_another_kind_is_neither_armed_nor_promised():
    """Some end of a link of which nobody knows where a guest's packets come in."""
    with wires.own_network():
        wires.links('link add hsguest type veth peer name hspeer')

        assert 'neither a tap nor a macvtap' in reach.missing('hsguest', None)[0]
        with pytest.raises(bpf.GateUnavailable, match='neither a tap nor a macvtap'):
            kernel.KernelGate('test', ('hsguest',))
        assert hooks.leftovers() == ()


@pytest.fixture
def unasked(monkeypatch):
    """Nobody has tried what the host has."""
    monkeypatch.setattr(reach, '_told', (None, 0.0))


@pytest.mark.parametrize(('patched', 'reason'), [
    ({'_PROBE_S': 0.001}, 'took more than 0.001 s'),
    ({'sys.executable': '/bin/echo'}, "says '-P -m"),
    ({'sys.executable': '/bin/false'}, 'it ended'),
    ({'sys.executable': '/nowhere/python'}, 'cannot be tried'),
])
def test_a_host_that_cannot_be_tried_is_a_finding(unasked, monkeypatch, patched, reason):
    with wires.own_network():
        wire = wires.tap_wire()
        for name, value in patched.items():
            monkeypatch.setattr(f'hotsnap_nova.virt.gates.reach.{name}', value)
        told, remedy = reach.missing('hsguest', None)
        wire.close()

    assert reason in told
    assert remedy


def test_what_a_host_lacks_is_asked_for_again_after_a_while_alone(unasked, monkeypatch):
    with wires.own_network():
        wire = wires.tap_wire()
        with monkeypatch.context() as patch:
            patch.setattr(reach.sys, 'executable', '/bin/false')
            first = reach.missing('hsguest', None)
        soon = reach.missing('hsguest', None)
        monkeypatch.setattr(reach, '_told', (first, 0.0))    # it is over
        later = reach.missing('hsguest', None)
        wire.close()

    assert first
    assert soon == first
    assert later is None


def test_a_host_without_ipv6_is_not_asked_to_switch_it_off(monkeypatch, tmp_path):
    """Such a kernel refuses the whole request; here one takes it either way."""
    asked = []

    def link(ip, command, **what):
        asked.append(what)
        return ip.__getattr__('link')(command, **what)

    monkeypatch.setattr(pyroute2.IPRoute, 'link', link, raising=False)
    with wires.own_network():
        holding.HoldingDevice(1).close()
        monkeypatch.setattr(holding, '_IPV6', str(tmp_path / 'none'))
        holding.HoldingDevice(1).close()

    assert ['IFLA_AF_SPEC' in what for what in asked] == [True, False]


def test_a_device_that_is_not_here_is_out_of_reach_and_one_that_is_is_not():
    with wires.own_network():
        reason, remedy = reach.missing('hsguest', None)
        wire = wires.tap_wire()

        assert reach.missing('hsguest', os.getpid()) is None
        assert 'hsguest is not seen' in reason
        assert remedy
        wire.close()


def test_a_device_of_that_name_is_not_taken_for_that_of_a_qemu_in_another_network(wire, keeper):
    with subprocess.Popen(['unshare', '--net', 'sleep', '60']) as elsewhere:
        try:
            while not reach.elsewhere(elsewhere.pid):
                time.sleep(0.01)
            hold = gate.make(work(), None, MEMBER, 't', guest(wire.xml_kind), lambda: keeper,
                             elsewhere.pid)

            assert 'another network' in reach.missing('hsguest', elsewhere.pid)[0]
            with pytest.raises(bpf.GateUnavailable, match='web is in another network'):
                hold.prepare()
            assert hooks.leftovers() == ()
        finally:
            elsewhere.kill()
