# SPDX-License-Identifier: Apache-2.0
"""``marker``: what a member's part of a snapshot asks and is told, around its cut."""

import contextlib
import os
import select
import time
import types

import pytest

from hotsnap_nova.virt import definitions, domain, records
from hotsnap_nova.virt.checks import marking
from hotsnap_nova.virt.gates import bpf, gate, hooks, inkernel, reach
from tests.functional import frames, wires

LONG_MS = 60_000
CODE = 11
MEMBER = records.MemberSpec('7d5a', 'web')
TOLD = {'code': CODE, 'codes': [CODE, 27], 'addresses': [
    {'mac': wires.GUEST_MAC.hex(':'), 'ips': list(frames.GUEST_IPS)},
    {'mac': wires.PEER_MAC.hex(':'), 'ips': list(frames.PEER_IPS)}]}


def make(keeper, device, max_hold_ms=LONG_MS, told=TOLD):
    work = records.Work(snapshot_id='s', epoch=1, members=(MEMBER,), gate='marker',
                        folder='/nowhere', max_hold_ms=max_hold_ms, marker=told)
    parsed = domain.DomainXml(
        "<domain type='kvm'><name>web</name><devices><interface type='bridge'>"
        f"<target dev='{device}'/></interface></devices></domain>")
    return gate.make(work, None, MEMBER, 'abc123', parsed, lambda: keeper, os.getpid())


@contextlib.contextmanager
def prepared(*asked, **more):
    made = make(*asked, **more)
    made.prepare()
    try:
        yield made
    finally:
        made.let_go(None)
        made.remove()


@pytest.fixture
def peer(keeper):
    """The gate of who is sent packets."""
    with prepared(keeper, wires.PEER) as made:
        yield made


def asked(made, timeout_s=20):
    return bool(select.select([made.asks], [], [], timeout_s)[0])


def numbers(received):
    return [frames.number_of(frame) for frame in received]


def send(wire, *each, dscp=0):
    for number in each:
        wire.send(frames.numbered(number, dscp))


def until(met, timeout_s=20):
    ends = time.monotonic() + timeout_s
    while not (found := met()) and time.monotonic() < ends:
        time.sleep(0.005)
    return found


def test_what_comes_behind_a_mark_is_had_after_the_cut_that_it_asks_for(wire, peer):
    send(wire, 0)
    before, asked_before = numbers(wire.receive()), asked(peer, 0)
    send(wire, 1, dscp=CODE)
    send(wire, 2)
    asked_for = asked(peer)
    peer.close()
    within = wire.receive()
    peer.deliver()
    after = []
    until(lambda: after.extend(numbers(wire.receive())) or len(after) > 1)
    peer.open()

    assert (before, asked_before, asked_for) == ([0], False, True)
    assert within == []
    assert after == [1, 2]
    assert not peer.opened_by_itself()
    assert peer.packets == records.Packets(held=0, marked=0, late=2)


def test_who_was_cut_unasked_has_marks_taken_off_from_then_on(wire, peer):
    peer.close()
    peer.deliver()
    send(wire, 1, dscp=CODE)
    got = wire.receive(2)
    peer.open()

    assert [frames.dscp_of(frame) for frame in got] == [0]
    assert not asked(peer, 0)
    assert not peer.opened_by_itself()


def test_what_was_delivered_before_the_cut_disowns_it(wire, keeper):
    """The time of a mark is over before anybody has taken the cut."""
    with prepared(keeper, wires.PEER, max_hold_ms=30) as peer:
        send(wire, 1, dscp=CODE)
        delivered = until(wire.receive)

        with pytest.raises(inkernel.MarkNotKept, match='web .* 30 ms'):
            peer.close()
        peer.deliver()

    assert numbers(delivered) == [1]


def test_a_cut_that_fails_delivers_what_waited_for_it(wire, peer):
    send(wire, 1, 2, dscp=CODE)
    waited = asked(peer) and not wire.receive()
    peer.deliver()
    peer.deliver()

    assert waited
    assert until(lambda: numbers(wire.receive())) in ([1], [1, 2])
    with pytest.raises(inkernel.MarkNotKept):
        peer.close()


def test_from_its_cut_to_the_release_a_guests_packets_are_marked_or_held(wire, keeper):
    with prepared(keeper, wires.GUEST) as guest:
        guest.close()
        guest.deliver()
        send(wire, 1)
        wire.send(frames.ALL['arp'])
        marked = wire.receive(2)
        guest.open()
        after = until(wire.receive)
        send(wire, 2)
        unmarked = until(wire.receive)

        assert [frames.dscp_of(frame) for frame in marked] == [CODE]
        assert frames.seen(after) == frames.seen([frames.ALL['arp']])
        assert [frames.dscp_of(frame) for frame in unmarked] == [0]
        assert not guest.opened_by_itself()
        assert guest.packets == records.Packets(held=1, marked=1, late=0)
        assert guest.carried_by == records.HOST_KERNEL


def test_a_lease_that_ended_before_the_release_is_told(wire, keeper):
    with prepared(keeper, wires.GUEST, max_hold_ms=20) as guest:
        guest.close()
        time.sleep(0.05)
        guest.open()

        assert guest.opened_by_itself()


def test_nothing_of_it_stays(wire, keeper):
    before = os.listdir('/proc/self/fd')
    with prepared(keeper, wires.PEER) as peer:
        peer.close()
        there = hooks.leftovers()

    assert there
    assert hooks.leftovers() == ()
    assert len(os.listdir('/proc/self/fd')) == len(before)


def test_a_device_that_shows_one_way_alone_is_told_beforehand(wire, keeper):
    wires.run('tc', 'qdisc', 'add', 'dev', wires.PEER, 'ingress')

    told = reach.missing(wires.PEER, os.getpid(), both_ways=True)

    assert 'ingress qdisc' in told[0]
    with pytest.raises(bpf.GateUnavailable, match='ingress qdisc'):
        make(keeper, wires.PEER).prepare()
    assert hooks.leftovers() == ()


def test_addresses_are_those_of_its_network_filter_and_those_that_its_owner_knows():
    parsed = domain.DomainXml("""<domain><devices>
      <interface type='bridge'><mac address='52:54:00:AA:00:01'/><filterref filter='clean-traffic'>
        <parameter name='IP' value='10.0.0.1'/><parameter name='CTRL_IP_LEARNING' value='any'/>
        <parameter name='IP' value='10.0.0.2'/></filterref></interface>
      <interface type='bridge'><mac address='52:54:00:aa:00:02'/></interface>
      </devices></domain>""")
    guest = types.SimpleNamespace(uuid='7d5a')

    class Owner(definitions.Definitions):
        def addresses(self, member_id):
            return {'7d5a': {'52:54:00:aa:00:01': ('fd00::1',)}}[member_id]

    asked = types.SimpleNamespace(parsed=parsed, guest=guest)
    assert marking.addresses([asked], None) == (
        records.Address('7d5a', '52:54:00:aa:00:01', ('10.0.0.1', '10.0.0.2')),
        records.Address('7d5a', '52:54:00:aa:00:02', ()))
    assert marking.addresses([asked], Owner())[0].ips == ('10.0.0.1', '10.0.0.2', 'fd00::1')


def test_a_policy_that_writes_over_marks_is_told_of_its_nic():
    parsed = domain.DomainXml("""<domain><devices><interface type='bridge'>
      <mac address='52:54:00:aa:00:01'/><target dev='tap1'/></interface></devices></domain>""")

    class Owner(definitions.Definitions):
        def dscp_policies(self, member_id):
            return {'7d5a': (('52:54:00:aa:00:01', 'gold'),)}[member_id]

    asked = types.SimpleNamespace(
        parsed=parsed, guest=types.SimpleNamespace(uuid='7d5a', spec=MEMBER))
    (found,) = marking.policies([asked], Owner())

    assert (found.member, found.device, found.rules_out) == (MEMBER, 'tap1', ('marker',))
    assert 'policy gold sets the DSCP' in found.cause
    assert not [*marking.policies([asked], None)]


@pytest.mark.parametrize('told', [None, {}, TOLD | {'code': 5}, TOLD | {'addresses': [{}]}],
                         ids=['nothing', 'too little', 'another code', 'no address'])
def test_who_was_not_told_how_to_mark_makes_no_gate(wire, keeper, told):
    with pytest.raises(bpf.GateUnavailable, match='how to mark'):
        make(keeper, wires.PEER, told=told)

    assert hooks.leftovers() == ()
