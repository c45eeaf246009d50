# SPDX-License-Identifier: Apache-2.0
"""The lab's own tests: its guests work, and its verdict notices what it must.

A lab that cannot fail would make every test that stands on it worthless, so
most of these hand the verdict something broken.
"""

import dataclasses
import json
import math
import os
import pathlib
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

import libvirt
import pytest

from tests.lab import WIDE, Disk, GuestSpec, Lab, LabError, image, verdict
from tests.lab import group as lab_group
from tests.lab.counters import NoTable, read, table_bytes
from tests.lab.enclosure import start_time
from tests.lab.loopback import Processes
from tests.lab.reaper import reap

BLOCK_BYTES = 4096
PATIENCE_S = 60


def kinds(findings):
    return {finding.kind for finding in findings}


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, 'waited in vain'
        time.sleep(0.02)


def changed_link(state, peer, kind, **changes):
    """The same counters, one link changed."""
    return dataclasses.replace(state, links=tuple(
        dataclasses.replace(link, **changes) if (link.peer, link.kind) == (peer, kind) else link
        for link in state.links))


def changed_disk(state, **changes):
    return dataclasses.replace(state, disks=(dataclasses.replace(state.disks[0], **changes),))


# -- the workload as processes of this host -----------------------------------------------------

@pytest.fixture
def talking(tmp_path):
    """Three workloads that have exchanged some messages and written some blocks."""
    with Processes(3, tmp_path, rate=200, disk_ms=5, slots=64) as processes:
        wait_until(lambda: all(processes.counters(number).disks[0].acked > 20
                               for number in range(3)))
        yield processes


@pytest.fixture
def stopped(talking):
    """The counters of three workloads that stand still."""
    for number in range(3):
        talking.pause(number)
    return [talking.counters(number) for number in range(3)]


def test_workloads_stopped_together_agree(talking, stopped):
    assert verdict.check_cut(stopped) == []
    for number in range(3):
        assert verdict.check_disk(stopped[number], 0, talking.disk(number)) == []


def test_workloads_go_on_after_a_stop(talking, stopped):
    for number in range(3):
        talking.resume(number)

    wait_until(lambda: not verdict.check_progress(
        stopped, [talking.counters(number) for number in range(3)], messages=50))


def test_states_of_different_instants_hold_orphans(talking):
    talking.pause(0)
    early = talking.counters(0)
    talking.resume(0)
    wait_until(lambda: talking.counters(1).link(0, 'tcp4').received
               > early.link(1, 'tcp4').sent)
    talking.pause(1)
    late = talking.counters(1)

    findings = verdict.check_cut([early, late])

    assert 'orphan' in kinds(findings)
    assert {finding.guest for finding in findings if finding.kind == 'orphan'} == {1}


def test_one_orphan_on_one_link_is_enough(stopped):
    one, two = stopped[0].link(1, 'tcp6'), stopped[1].link(0, 'tcp6')
    stopped[1] = changed_link(stopped[1], 0, 'tcp6', received=one.sent + 1,
                              received_sums={**two.received_sums, one.sent + 1: 7})

    findings = verdict.check_cut(stopped)

    assert [(finding.kind, finding.guest) for finding in findings] == [('orphan', 1)]


def test_other_message_under_the_same_number_is_divergence(stopped):
    sums = stopped[1].link(0, 'tcp4').received_sums
    last = max(sums.keys() & stopped[0].link(1, 'tcp4').sent_sums.keys())
    stopped[1] = changed_link(stopped[1], 0, 'tcp4',
                              received_sums={**sums, last: sums[last] ^ 1})

    findings = verdict.check_cut(stopped)

    assert [(finding.kind, finding.guest) for finding in findings] == [('diverged', 1)]


def test_states_too_far_apart_to_compare_are_no_proof(stopped):
    stopped[0] = changed_link(stopped[0], 1, 'tcp4', sent_sums={})

    assert 'unproven' in kinds(verdict.check_cut(stopped))


@pytest.mark.parametrize('kind', ['tcp4', 'tcp6'])
def test_dead_peer_is_a_lost_connection_for_ever(talking, kind):
    talking.kill(2)
    wait_until(lambda: talking.counters(0).link(2, kind).state != 'up')

    findings = verdict.check_health([talking.counters(0)])

    assert any(finding.kind == 'lost_connection' and kind in finding.detail
               for finding in findings)


def test_silent_connection_is_stalled(stopped):
    findings = verdict.check_progress(stopped, stopped, messages=1)

    assert kinds(findings) == {'stalled'}
    assert len(findings) == 3 * 2 * 2


def test_half_a_write_is_a_torn_block(talking, stopped):
    data = bytearray(talking.disk(0))
    newest = stopped[0].disks[0].acked
    here, before = (seq % 64 * BLOCK_BYTES for seq in (newest, newest - 1))
    data[here + 2048:here + BLOCK_BYTES] = data[before + 2048:before + BLOCK_BYTES]

    findings = verdict.check_disk(stopped[0], 0, bytes(data))

    assert kinds(findings) == {'torn_block'}


def test_flipped_bit_is_a_torn_block(talking, stopped):
    data = bytearray(talking.disk(0))
    data[stopped[0].disks[0].acked % 64 * BLOCK_BYTES + 1000] ^= 4

    assert kinds(verdict.check_disk(stopped[0], 0, bytes(data))) == {'torn_block'}


def test_acknowledged_block_that_the_disk_lacks_is_missing(talking, stopped):
    data = bytearray(talking.disk(0))
    at = stopped[0].disks[0].acked % 64 * BLOCK_BYTES
    data[at:at + BLOCK_BYTES] = bytes(BLOCK_BYTES)

    assert kinds(verdict.check_disk(stopped[0], 0, bytes(data))) == {'missing_block'}


def test_older_disk_misses_blocks_and_newer_disk_is_ahead(talking):
    # Every slot used once, so that a lost write leaves an older block, not nothing.
    wait_until(lambda: talking.counters(0).disks[0].acked > 64)
    talking.pause(0)
    early, early_disk = talking.counters(0), talking.disk(0)
    talking.resume(0)
    wait_until(lambda: talking.counters(0).disks[0].acked > early.disks[0].started + 2)
    talking.pause(0)
    late, late_disk = talking.counters(0), talking.disk(0)

    assert kinds(verdict.check_disk(late, 0, early_disk)) == {'missing_block'}
    assert 'disk_ahead' in kinds(verdict.check_disk(early, 0, late_disk))


def test_write_that_memory_does_not_remember_is_foreign(talking, stopped):
    disk = stopped[0].disks[0]
    state = changed_disk(stopped[0], sums={**disk.sums, disk.acked: disk.sums[disk.acked] ^ 1})

    assert kinds(verdict.check_disk(state, 0, talking.disk(0))) == {'foreign_block'}


@pytest.mark.parametrize(('change', 'kind'), [
    ({'errors': 1}, 'io_error'), ({'bad_reads': 1}, 'bad_read')])
def test_trouble_a_guest_has_seen_itself_is_reported(stopped, change, kind):
    assert kinds(verdict.check_cut([changed_disk(stopped[0], **change), *stopped[1:]])) == {kind}


def test_damage_on_its_disk_is_noticed_by_the_workload(talking):
    damage = os.urandom(64 * BLOCK_BYTES)

    def damaged():
        with open(talking.folder / 'disk0', 'r+b') as disk:
            disk.write(damage)
        return talking.counters(0).disks[0].bad_reads

    wait_until(damaged)


def mix(x):
    """workload.h's mix()."""
    for shift, factor in ((30, 0xbf58476d1ce4e5b9), (27, 0x94d049bb133111eb)):
        x = ((x ^ x >> shift) * factor) & (1 << 64) - 1
    return x ^ x >> 31


def message(seq, previous):
    """A whole message from guest 1 to guest 0 over IPv4, its own hash right."""
    total = mix(previous ^ mix(seq ^ mix(seq ^ 1 << 8)))
    return struct.pack('<4I4Q', 0x4d42414c, 48, 1, 0, seq, seq, previous, total), total


@pytest.fixture
def accepting(tmp_path):
    """Connections over IPv4 and IPv6 to a workload whose only peer is this test."""
    with socket.create_server(('127.77.77.2', 0)) as server:
        port = server.getsockname()[1]
        process = subprocess.Popen(
            [image.workload(), 'guest=0', 'guests=2', 'address4=127.77.77.%d', 'address6=::1',
             'address_udp=127.77.77.%d', f'base_port={port - 1}', f'table={tmp_path}/table'])
        try:
            over4, _address = server.accept()
            over6 = socket.create_connection(('::1', port - 1))
            over6.sendall(struct.pack('<4I', 0x4d42414c, 1, 1, 0))
            yield over4, lambda: read((tmp_path / 'table').read_bytes()).link(1, 'tcp4')
        finally:
            process.kill()
            process.wait()


def test_workload_takes_a_chain_that_continues(accepting):
    connection, link = accepting
    first, total = message(1, previous=0)

    connection.sendall(first + message(2, previous=total)[0])

    wait_until(lambda: link().received == 2)
    assert link().breaks == 0


@pytest.mark.parametrize('wrong', ['chain', 'gap', 'content', 'repeat'])
def test_workload_notices_a_chain_that_does_not_continue(accepting, wrong):
    connection, link = accepting
    first, total = message(1, previous=0)
    second = {'chain': message(2, previous=total ^ 1)[0],
              'gap': message(3, previous=total)[0],
              'content': message(2, previous=total)[0][:-1] + b'?',
              'repeat': first}[wrong]

    connection.sendall(first + second)

    wait_until(lambda: link().breaks)
    assert (link().received, link().state) == (1, 'broken')


def test_too_little_of_a_table_is_no_table(talking):
    data = (talking.folder / 'table0').read_bytes()

    for part in (b'', data[:100], data[:table_bytes(3) - 8], bytes(len(data))):
        with pytest.raises(NoTable):
            read(part)


# -- real guests --------------------------------------------------------------------------------

MEMBERS = [GuestSpec(), WIDE, GuestSpec(disks=(Disk('raw'), Disk('qcow2', backing='qcow2')))]


@pytest.fixture(scope='module')
def group(lab):
    return lab.start(MEMBERS, wait=True)


@pytest.fixture
def paused(group):
    for guest in group:
        guest.domain.suspend()
    yield group
    for guest in group:
        if guest.domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED:
            guest.domain.resume()


def test_guests_paused_together_agree_and_go_on(paused):
    before = paused.counters()

    assert paused.verdict() == []
    assert paused.counters() == before, 'reading must not disturb'

    for guest in paused:
        guest.domain.resume()
    assert paused.wait_messages(50, before) == []


def test_guests_saved_killed_and_restored_carry_on(lab, paused):
    before = paused.counters()
    for guest in paused:
        guest.domain.save(str(guest.folder / 'saved'))
    for guest in paused:
        lab.connection.restoreFlags(str(guest.folder / 'saved'), None,
                                    libvirt.VIR_DOMAIN_SAVE_PAUSED)

    assert paused.verdict() == []
    assert paused.counters() == before

    for guest in paused:
        guest.domain.resume()
    assert paused.wait_messages(50, before) == []
    assert [guest.troubles() for guest in paused] == [[], [], []]


def test_guests_of_different_instants_hold_orphans(group):
    group[0].domain.suspend()
    early = group[0].counters()
    group[0].domain.resume()
    wait_until(lambda: group[1].counters().link(0, 'tcp4').received
               > early.link(1, 'tcp4').sent)

    assert 'orphan' in kinds(verdict.check_cut([early, group[1].counters()]))


def snapshot_with_libvirt(guest, flags):
    """libvirt's own snapshot of memory and disk, files beside the guest's."""
    guest.domain.snapshotCreateXML(
        f"""<domainsnapshot>
              <memory snapshot='external' file='{guest.folder}/memory'/>
              <disks><disk name='vda' snapshot='external'>
                <source file='{guest.folder}/overlay'/>
              </disk></disks>
            </domainsnapshot>""", flags | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA)


def kill_and_restore_paused(lab, group):
    for guest in group:
        guest.kill9()
    for guest in group:
        lab.connection.restoreFlags(str(guest.folder / 'memory'), None,
                                    libvirt.VIR_DOMAIN_SAVE_PAUSED)


@pytest.fixture
def quiet_lab(lab):
    """The lab with all its guests paused meanwhile, to leave the machine to others."""
    running = lab.connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_RUNNING)
    for domain in running:
        domain.suspend()
    yield lab
    for domain in running:
        domain.resume()


@pytest.fixture
def fresh(quiet_lab):
    lab = quiet_lab
    group = lab.start(3, wait=True)
    yield group
    for guest in group:
        guest.domain.destroy()


def test_snapshot_of_guests_that_all_stand_still_lives_on(lab, fresh):
    for guest in fresh:
        guest.domain.suspend()
    for guest in fresh:
        snapshot_with_libvirt(guest, flags=0)
    for guest in fresh:
        guest.domain.resume()

    kill_and_restore_paused(lab, fresh)

    assert fresh.verdict() == []
    before = fresh.counters()
    for guest in fresh:
        guest.domain.resume()
    assert fresh.wait_messages(100, before) == []


def test_snapshots_one_after_another_are_found_out(lab, fresh):
    for guest in fresh:
        snapshot_with_libvirt(guest, libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_LIVE)

    kill_and_restore_paused(lab, fresh)

    assert 'orphan' in kinds(fresh.verdict())
    before = fresh.counters()
    for guest in fresh:
        guest.domain.resume()
    assert fresh.wait_messages(100, before, timeout_s=20) != []


def test_base_written_into_is_noticed(lab, paused):
    (path, image_format), base = paused[1].disk_images[0], paused[1].folder / 'base0.raw'
    untouched = base.read_bytes()
    past_the_blocks = paused[1].counters().disks[0].slots * BLOCK_BYTES

    try:
        with open(base, 'r+b') as file:
            file.seek(past_the_blocks)
            file.write(b'!')
        assert kinds(paused[1].check_disks()) == {'lost_base'}
    finally:
        base.write_bytes(untouched)
    assert (path.suffix, image_format) == ('.qcow2', 'qcow2')
    assert paused[1].check_disks() == []


def test_guests_outlive_libvirtd(lab, group):
    pids = [guest.pid for guest in group]

    lab.kill9_libvirtd()

    assert [guest.pid for guest in group] == pids
    assert all(guest.domain.isActive() for guest in group)


def test_each_guest_says_how_it_does_once_a_second(group):
    status = group[0].statuses()[-1]

    assert status['ready'] == 1
    assert status['breaks'] == status['io_errors'] == status['dirty_bad'] == 0


def test_guests_of_two_hosts_share_a_network_alone(quiet_lab):
    with Lab(hosts=2) as lab:
        group = lab.start([GuestSpec(host=0), GuestSpec(host=1)], wait=True)

        assert group.wait_messages(20) == []
        assert [[domain.name() for domain in libvirt.open(uri).listAllDomains()]
                for uri in lab.uris] == [[name] for name in group.names]


def test_second_lab_has_its_own_guests_and_network(lab, group):
    with Lab() as other:
        assert other.connection.listAllDomains() == []
        assert 'vnet' in lab.run_inside('ip', '-o', 'link')
        assert 'vnet' not in other.run_inside('ip', '-o', 'link')


@pytest.fixture
def own_labs_folder(monkeypatch):
    """A place for labs where reaping finds nobody else's."""
    with tempfile.TemporaryDirectory(prefix='hsl', dir='/tmp') as folder:
        monkeypatch.setenv('HOTSNAP_LAB_DIR', folder)
        yield


def test_killed_guest_is_gone_and_no_status_of_it_is_invented(quiet_lab):
    alone = quiet_lab.start(1, wait=True)[0]
    pid, began = alone.pid, start_time(alone.pid)

    alone.kill9()

    assert start_time(pid) != began
    assert not alone.domain.isActive()
    with pytest.raises((LabError, libvirt.libvirtError)):
        alone.counters()


@pytest.fixture
def hanging(quiet_lab, monkeypatch):
    """Two guests; the second hangs as it boots, as often as its list says."""
    monkeypatch.setattr(lab_group, 'BOOT_S', 1.0)
    group = quiet_lab.start(2)
    group[1].domain.suspend()            # as silent as one whose kernel hangs
    hangs = [True]
    start = group[1].start_afresh

    def start_afresh():
        start()
        if len(hangs) > 1:
            group[1].domain.suspend()
        hangs.pop()
    monkeypatch.setattr(group[1], 'start_afresh', start_afresh)
    yield group, hangs
    for guest in group:
        guest.domain.destroy()


def test_guest_that_hangs_as_it_boots_is_started_afresh(hanging, capsys):
    group, hangs = hanging

    group.wait_ready()

    assert hangs == []
    assert group.wait_messages(20) == []
    for guest in group:
        guest.domain.suspend()
    assert group.verdict() == []
    told = capsys.readouterr().err
    assert told.count('\n') == 1
    assert f'{group[1].domain_name} has not booted' in told


def test_guest_that_hangs_each_time_is_given_up_with_its_last_words(hanging, capsys,
                                                                    monkeypatch):
    group, hangs = hanging
    hangs += [True] * 2
    monkeypatch.setattr(lab_group, 'SLOWER', 0)

    with pytest.raises(LabError, match=r'did not boot, 3 times\n(.*\n)*.*\(nothing\)'):
        group.wait_ready()

    assert len(hangs) == 1
    assert capsys.readouterr().err.count('started afresh') == 2


class Quiet:
    """A guest that took so long to boot, or is still silent."""

    def __init__(self, boot_s):
        self.boot_s = boot_s


@pytest.mark.parametrize(('others_s', 'limit_s'), [
    ((4.0, 5.0), 40), ((5.0, 30.0), 90), ((5.0, None), 40), ((None, None), math.inf), ((), 80)])
def test_how_long_a_guest_may_take_to_boot_goes_by_the_others(others_s, limit_s):
    group = lab_group.Group([Quiet(None), *map(Quiet, others_s)])

    assert group._boot_limit_s(group[0]) == limit_s


def test_nothing_runs_on_when_the_owner_is_killed(own_labs_folder):
    program = ('import signal; from tests.lab import Lab; lab = Lab(); guest = lab.start(1)[0]\n'
               'print(lab.folder, guest.pid, flush=True); signal.pause()')
    owner = subprocess.Popen([sys.executable, '-c', program], stdout=subprocess.PIPE, text=True,
                             cwd=pathlib.Path(__file__).parents[2])
    folder, guest = owner.stdout.readline().split()
    processes = json.loads((pathlib.Path(folder) / 'processes.json').read_text())
    pids = [int(guest), *(process['pid'] for process in processes)]
    assert all(start_time(pid) for pid in pids)

    owner.send_signal(signal.SIGKILL)
    owner.wait()

    wait_until(lambda: not any(start_time(pid) for pid in pids))
    assert pathlib.Path(folder) in reap()
    assert not pathlib.Path(folder).exists()


def test_logs_are_kept_where_something_failed_alone(own_labs_folder, capsys):
    with Lab() as well:
        pass
    with pytest.raises(ZeroDivisionError), Lab() as failed:
        raise ZeroDivisionError

    assert not well.folder.exists()
    assert (failed.folder / 'log/libvirtd.log').exists()
    assert str(failed.folder) in capsys.readouterr().err
    assert not start_time(json.loads((failed.folder / 'processes.json').read_text())[1]['pid'])


def test_reap_leaves_a_living_lab_alone(own_labs_folder):
    with Lab() as living:
        assert reap() == []
        assert living.connection.isAlive()
