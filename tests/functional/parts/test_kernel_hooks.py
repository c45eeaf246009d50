# SPDX-License-Identifier: Apache-2.0
"""Programs at a device beside those of others: nothing of theirs goes, nothing of ours stays."""

import socket
import subprocess
import sys

import pyroute2
import pytest
from pyroute2.netlink.rtnl import tcmsg

from hotsnap_nova.virt.gates import bpf, hooks, kernel, probe
from tests.functional import wires

#: Lets everything pass, and nobody behind it have a say.
PASSES = ('u32', 'match', 'u32', '0', '0', 'classid', '1:1')
FOREIGN = ('prio', '7', 'protocol', 'all', *PASSES)


@pytest.fixture
def side(wire):
    return 'ingress' if wire.nic.ingress else 'egress'


def test_what_came_with_a_gate_goes_with_it(wire):
    before = wires.qdiscs(), wires.filters(), wires.devices()

    gate = kernel.KernelGate('test', (wire.nic.name,))
    between = hooks.leftovers()
    gate.close()

    assert {hook.name for hook in between} == {'test'}
    assert (wires.qdiscs(), wires.filters(), wires.devices()) == before
    assert hooks.leftovers() == ()


def test_a_qdisc_of_others_stays_though_nothing_is_in_it(wire):
    wires.run('tc', 'qdisc', 'add', 'dev', wires.GUEST, 'clsact')
    before = wires.qdiscs(), wires.filters()

    kernel.KernelGate('test', (wire.nic.name,)).close()

    assert (wires.qdiscs(), wires.filters()) == before


@pytest.mark.parametrize('other', ['ingress', 'egress'])
def test_the_qdisc_and_filters_of_others_stay(wire, other):
    wires.run('tc', 'qdisc', 'add', 'dev', wires.GUEST, 'clsact')
    wires.run('tc', 'filter', 'add', 'dev', wires.GUEST, other, *FOREIGN)
    before = wires.qdiscs(), wires.filters()

    gate = kernel.KernelGate('test', (wire.nic.name,))
    gate.word.close_gate(60_000)
    wire.send_numbers([1])
    held = gate.counters()[0].held
    gate.close()

    assert held == 1    # though the other's filter would let it pass
    assert (wires.qdiscs(), wires.filters()) == before


def test_a_qdisc_of_ours_that_others_came_to_use_stays(wire, side):
    gate = kernel.KernelGate('test', (wire.nic.name,))
    wires.run('tc', 'filter', 'add', 'dev', wires.GUEST, side, *FOREIGN)
    gate.close()

    assert 'u32' in wires.filters()
    assert hooks.leftovers() == ()


def test_before_a_program_of_others_with_our_priority_ours_runs(wire):
    """Theirs drops everything; ours holds it first."""
    theirs = bpf.Loaded(kernel.object_path())
    wires.run('tc', 'qdisc', 'add', 'dev', wires.GUEST, 'clsact')
    with pyroute2.IPRoute() as ip:
        ip.tc('add-filter', 'bpf', socket.if_nametoindex(wires.GUEST), 0x77,
              fd=theirs.program('put_back'), name='theirs', direct_action=True, prio=1,
              parent=0xfffffff2 if wire.nic.ingress else 0xfffffff3, protocol=3)
    before = wires.qdiscs(), wires.filters()

    gate = kernel.KernelGate('test', (wire.nic.name,))
    gate.word.close_gate(60_000)
    wire.send_numbers([1])
    held = gate.counters()[0].held
    gate.close()
    theirs.close()

    assert held == 1
    assert 'theirs' in wires.filters()
    assert (wires.qdiscs(), wires.filters()) == before


@pytest.mark.parametrize('protocol', ['all', 'ip'])
def test_who_would_come_behind_a_filter_of_others_is_refused(wire, side, protocol):
    wires.run('tc', 'qdisc', 'add', 'dev', wires.GUEST, 'clsact')
    wires.run('tc', 'filter', 'add', 'dev', wires.GUEST, side, 'prio', '1', 'protocol', protocol,
              *PASSES)
    before = wires.qdiscs(), wires.filters(), wires.devices()

    with pytest.raises(bpf.GateUnavailable, match='u32 filter of priority 1'):
        kernel.KernelGate('test', (wire.nic.name,))

    assert (wires.qdiscs(), wires.filters(), wires.devices()) == before


def test_beside_an_ingress_qdisc_a_macvtap_is_refused():
    with wires.own_network():
        wire = wires.macvtap_wire()
        wires.run('tc', 'qdisc', 'add', 'dev', wires.GUEST, 'ingress')
        before = wires.qdiscs(), wires.filters(), wires.devices()

        with pytest.raises(bpf.GateUnavailable, match='ingress qdisc'):
            kernel.KernelGate('test', (wire.nic.name,))

        assert (wires.qdiscs(), wires.filters(), wires.devices()) == before
        wire.close()


def test_limits_of_bandwidth_at_a_tap_stay():
    """Neutron's and libvirt's, at an ingress qdisc, which bars a clsact."""
    with wires.own_network():
        wire = wires.tap_wire()
        wires.run('tc', 'qdisc', 'add', 'dev', wires.GUEST, 'ingress')
        wires.run('tc', 'filter', 'add', 'dev', wires.GUEST, 'parent', 'ffff:', 'protocol', 'all',
                  'prio', '49', *PASSES)
        before = wires.qdiscs(), wires.filters()

        gate = kernel.KernelGate('test', (wire.nic.name,))
        gate.word.close_gate(60_000)
        wire.send_numbers(range(100))
        leaked = wire.numbers()
        gate.word.release()
        gate.put_back()
        got, bypassed = wire.numbers(), gate.bypassed()
        gate.close()

        assert leaked == []
        assert got == list(range(100))
        assert bypassed == ()
        assert (wires.qdiscs(), wires.filters()) == before
        wire.close()


def test_a_later_process_takes_out_what_a_dead_one_left(wire, side):
    wires.run('tc', 'qdisc', 'add', 'dev', wires.GUEST, 'clsact')
    wires.run('tc', 'filter', 'add', 'dev', wires.GUEST, side, *FOREIGN)
    before = wires.qdiscs(), wires.filters()
    left = kernel.KernelGate('test', (wire.nic.name,))

    kernel.remove(wires.GUEST)
    kernel.remove(wires.GUEST)

    assert (wires.qdiscs(), wires.filters()) == before
    left.close()


def test_a_filter_of_a_kind_that_is_not_decoded_keeps_nobody_from_ours(wire, monkeypatch):
    """flower at priority 5, as the kernel tells of it; the test machine's kernel has none."""
    flower = tcmsg.tcmsg()
    flower['handle'], flower['info'] = 1, 5 << 16 | socket.htons(3)
    flower['attrs'] = [('TCA_KIND', 'flower'), ('TCA_OPTIONS', '08:00:08:00:01:00:00:00')]
    flower.encode()
    told = tcmsg.tcmsg(flower.data)
    told.decode()
    assert isinstance(told.get_attr('TCA_OPTIONS'), str)

    def get_filters(ip, *asked, **more):
        return [told, *ip.__getattr__('get_filters')(*asked, **more)]

    monkeypatch.setattr(pyroute2.IPRoute, 'get_filters', get_filters, raising=False)

    gate = kernel.KernelGate('test', (wire.nic.name,))
    left = kernel.leftovers(wires.GUEST)
    gate.close()

    assert left == ('test',)
    assert hooks.leftovers() == ()


def test_to_remove_from_a_device_that_is_gone_is_no_failure():
    with wires.own_network():
        kernel.remove('hsgone')


# --- what a host may lack ---

def probed(privileges):
    """What a process of root's says that has these privileges alone."""
    return wires.run(
        'setpriv', f'--bounding-set=-all,{privileges}', sys.executable, '-c',
        'from hotsnap_nova.virt.gates import probe; print(probe.missing())').strip()


def test_here_nothing_is_missing_and_nothing_stays_of_having_tried():
    with wires.own_network():
        assert probe.missing() is None
        assert wires.devices() == ''


def test_two_privileges_suffice():
    with wires.own_network():
        assert probed('+bpf,+net_admin') == 'None'


@pytest.mark.parametrize(('privileges', 'missing'),
                         [('+net_admin', 'CAP_BPF'), ('+bpf', 'CAP_NET_ADMIN')])
def test_a_privilege_that_is_missing_is_named(privileges, missing):
    with wires.own_network():
        assert missing in probed(privileges)
        assert wires.devices() == ''


def test_a_library_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(bpf, 'LIBRARY', 'libbpf.so.none')
    bpf.library.cache_clear()
    try:
        reason, remedy = probe.missing()
    finally:
        bpf.library.cache_clear()

    assert 'libbpf.so.none is not installed' in reason
    assert 'libbpf1' in remedy


def test_a_package_that_was_built_without_the_programs_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(kernel, 'OBJECT', tmp_path / 'gate.bpf.o')

    reason, remedy = probe.missing()

    assert 'built without gate.bpf.o' in reason
    assert 'clang' in remedy


def test_a_kernel_that_refuses_the_programs_is_quoted(monkeypatch, tmp_path):
    """An object that is none stands for a verifier's refusal."""
    broken = tmp_path / 'gate.bpf.o'
    broken.write_bytes(b'no programs')
    monkeypatch.setattr(kernel, 'OBJECT', broken)

    reason, remedy = probe.missing()

    assert str(broken) in reason
    assert 'Linux 5.14' in remedy


def test_what_cannot_be_armed_leaves_a_device_as_it_was(wire):
    code = ('from hotsnap_nova.virt.gates import kernel\n'
            f'kernel.KernelGate("test", ({wires.GUEST!r},))')
    before = wires.qdiscs(), wires.filters(), wires.devices()

    failed = subprocess.run(['setpriv', '--bounding-set=-all,+net_admin', sys.executable, '-c',
                             code], capture_output=True, text=True)

    assert 'GateUnavailable' in failed.stderr
    assert (wires.qdiscs(), wires.filters(), wires.devices()) == before
