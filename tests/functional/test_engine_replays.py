# SPDX-License-Identifier: Apache-2.0
"""Minimal replays of defects the engine once had, each on a real guest."""

import contextlib
import dataclasses
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid

import libvirt
import pytest

from hotsnap_nova import exception
from hotsnap_nova.virt import guardian, host, records
from hotsnap_nova.virt.disks import freezing, relay, targets
from tests.functional.command import until
from tests.functional.witness import qmp
from tests.lab import LabError

NOBODY = 65534
#: Index in the guest's own histogram of what is longer than two seconds.
LONG_GAP = 22
#: For how long a daemon hangs: far longer than a gap that counts as long.
HANG_S = 4.0
FOREVER_MS = 600_000


@pytest.fixture(scope='module')
def engine(shared_lab):
    engine = host.Engine(shared_lab.uri)
    yield engine
    engine.close()


@pytest.fixture(scope='module')
def lone():
    made = []
    yield made
    for guest in made[-1:]:
        with contextlib.suppress(libvirt.libvirtError):
            guest.domain.destroy()


@pytest.fixture
def guest(shared_lab, engine, lone):
    """A running guest that talks to nobody: the same from test to test, while it is well."""
    if not lone or engine.survey() or not runs(lone[-1]):
        for spoiled in lone[-1:]:
            spoiled.domain.destroy()
        lone.append(shared_lab.start(1, wait=True)[0])
    return lone[-1]


@pytest.fixture
def work(engine, tmp_path):
    """Makes the engine's orders for a guest; what is under way then ends with the test."""
    begun = []

    def make(guest, gate='hold', max_hold_ms=FOREVER_MS):
        member = records.MemberSpec(guest.uuid, guest.domain_name)
        begun.append(records.Work(
            str(uuid.uuid4()), 1, (member,), gate, str(tmp_path), max_pause_ms=FOREVER_MS,
            max_hold_ms=max_hold_ms))
        return begun[-1]
    yield make
    for each in begun:
        with contextlib.suppress(exception.HotsnapError, libvirt.libvirtError):
            engine.discard(each.snapshot_id, each.members)


def discard(engine, work):
    engine.discard(work.snapshot_id, work.members)


def runs(guest):
    return qmp(guest, 'query-status')['status'] == 'running'


def is_of_background_kind(guest):
    """Whether a migration that began now would be a background snapshot."""
    return {'capability': 'background-snapshot', 'state': True} in qmp(
        guest, 'query-migrate-capabilities')


def drive(guest):
    return next(row['inserted']['node-name'] for row in qmp(guest, 'query-block')
                if row.get('inserted'))


def test_an_overlay_put_under_our_filter_stays_in_use(guest, engine, work, tmp_path):
    under_way = work(guest)
    engine.prepare(under_way)
    engine.record(under_way)
    engine.release(under_way)
    guest.domain.snapshotCreateXML(
        f'''<domainsnapshot><disks><disk name='vda' snapshot='external'>
        <source file='{tmp_path}/overlay.qcow2'/></disk></disks></domainsnapshot>''',
        libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
        | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA)

    discard(engine, under_way)

    used = {node['node-name']: node['file'] for node in qmp(guest, 'query-named-block-nodes')}
    assert used[drive(guest)] == f'{tmp_path}/overlay.qcow2'
    assert engine.survey() == ()
    acked = guest.counters().disks[0].acked
    assert until(lambda: guest.counters().disks[0].acked > acked + 10)
    assert guest.troubles() == []


def test_the_guardian_frees_a_guest_over_a_restart_of_libvirtd(shared_lab, guest, engine, work):
    under_way = work(guest, 'barrier', max_hold_ms=3000)
    engine.prepare(under_way)
    engine.record(under_way)

    shared_lab.kill9_libvirtd()

    assert until(lambda: runs(guest))    # nobody but the guardian acts
    discard(engine, under_way)
    assert engine.survey() == ()


def test_a_discard_succeeds_over_a_restart_of_libvirtd(shared_lab, guest, engine, work):
    under_way = work(guest, 'barrier')
    engine.prepare(under_way)
    engine.record(under_way)
    shared_lab.kill9_libvirtd()
    stood = not runs(guest)

    discard(engine, under_way)

    assert stood
    assert runs(guest)
    assert engine.survey() == ()


def test_a_resume_by_another_before_the_release_spoils_the_cut(guest, engine, work):
    under_way = work(guest, 'barrier')
    engine.prepare(under_way)
    engine.record(under_way)

    guest.domain.resume()
    released, = engine.release(under_way)

    assert released.opened_by_itself
    discard(engine, under_way)


def test_a_barrier_that_nobody_touched_holds_until_the_release(guest, engine, work):
    under_way = work(guest, 'barrier')
    engine.prepare(under_way)
    engine.record(under_way)

    released, = engine.release(under_way)

    assert not released.opened_by_itself
    assert runs(guest)
    discard(engine, under_way)


@pytest.mark.parametrize('gate', ['hold', 'barrier'])
def test_a_resume_by_another_inside_the_cut_spoils_it(gate, guest, engine, work, monkeypatch):
    freeze = freezing.FrozenDisks.freeze

    def resumed_before(frozen):
        guest.domain.resume()
        freeze(frozen)
    monkeypatch.setattr(freezing.FrozenDisks, 'freeze', resumed_before)
    under_way = work(guest, gate)
    engine.prepare(under_way)

    with pytest.raises(exception.CutNotClean, match='somebody resumed it'):
        engine.record(under_way)

    discard(engine, under_way)
    assert runs(guest)
    assert engine.survey() == ()


def test_the_capability_is_off_before_the_disks_are_copied(guest, engine, work, monkeypatch):
    under_way = work(guest)
    engine.prepare(under_way)
    engine.record(under_way)
    engine.release(under_way)
    seen = []
    progress = freezing.FrozenDisks.progress

    def not_copied(frozen):
        seen.append(is_of_background_kind(guest))
        done, total, copied = progress(frozen)
        return done + len(seen), total, copied and (not seen[-1] or len(seen) > 200)
    monkeypatch.setattr(freezing.FrozenDisks, 'progress', not_copied)

    engine.save(under_way, lambda _progress: None)

    assert not seen[-1]
    engine.finish(under_way)
    assert engine.survey() == ()


def test_a_snapshot_of_a_domain_that_vanished_can_be_discarded(shared_lab, engine, work):
    vanishing = shared_lab.start(1)[0]
    under_way = work(vanishing)
    engine.prepare(under_way)
    engine.record(under_way)
    vanishing.domain.undefine()
    vanishing.domain.destroy()

    discard(engine, under_way)

    with pytest.raises(exception.MemberNotFound):
        engine.find((under_way.members[0].id,))


class Feeling:
    """What the guest itself feels of a block of code."""

    def __init__(self, guest):
        self._guest = guest

    def __enter__(self):
        self._before = self._guest.counters()
        return self

    def __exit__(self, *_error):
        def ticks_since():
            with contextlib.suppress(LabError):
                return self._guest.counters().ticks - self._before.ticks
            return 0
        assert until(lambda: ticks_since() > 100)
        self.long_gaps = (sum(self._guest.counters().tick_gaps[LONG_GAP:])
                          - sum(self._before.tick_gaps[LONG_GAP:]))


def at_connect(monkeypatch, before=None, after=None):
    """Do something to a storage daemon before or after we connect to it."""
    connect = targets.StorageDaemon.connect

    def disturbed(daemon):
        if before:
            before(daemon.pid)
        answer = connect(daemon)
        if after:
            after(daemon.pid)
        return answer
    monkeypatch.setattr(targets.StorageDaemon, 'connect', disturbed)


def stop(pid):
    os.kill(pid, signal.SIGSTOP)


def stop_for_a_while(pid):
    stop(pid)
    threading.Timer(HANG_S, os.kill, (pid, signal.SIGCONT)).start()


def test_a_storage_daemon_slow_to_start_keeps_no_guest_waiting(
        guest, engine, work, monkeypatch):
    at_connect(monkeypatch, before=stop_for_a_while)
    under_way = work(guest)

    with Feeling(guest) as felt:
        engine.prepare(under_way)

    assert felt.long_gaps == 0
    discard(engine, under_way)
    assert engine.survey() == ()


@pytest.mark.parametrize('killed', [
    {'before': lambda pid: os.kill(pid, signal.SIGKILL)},
    {'after': lambda pid: os.kill(pid, signal.SIGKILL)},
    {'after': stop},
], ids=['dead-at-start', 'dead-in-negotiation', 'hung-in-negotiation'])
def test_a_storage_daemon_that_never_answers_fails_the_preparation_and_no_guest(
        killed, guest, engine, work, monkeypatch):
    daemons = []
    at_connect(monkeypatch, **{'before': daemons.append} | killed)
    under_way = work(guest)

    with Feeling(guest) as felt:
        with pytest.raises(exception.HotsnapError):
            engine.prepare(under_way)
        for pid in daemons:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)    # else its end is waited for
        discard(engine, under_way)

    assert felt.long_gaps == 0
    assert runs(guest)
    assert engine.survey() == ()


def test_nobody_else_reaches_a_target(tmp_path):
    daemon = targets.StorageDaemon({'vda': (f'{tmp_path}/vda.qcow2', 1 << 20)})
    try:
        address = daemon._listener.getsockname()
        stranger = subprocess.run(
            [sys.executable, '-c', f'''
import os, socket
os.setgid({NOBODY}); os.setuid({NOBODY})
client = socket.socket(socket.AF_UNIX)
client.settimeout(5)
try:
    client.connect({address!r})
    print('greeted' if client.recv(18) else 'refused')
except OSError:
    print('refused')'''], capture_output=True, text=True, check=True)
        assert stranger.stdout == 'refused\n'

        ours, greeting = daemon.connect()
        with ours:
            assert greeting.startswith(b'NBDMAGIC')
            # Not even root, once every disk has its link.
            with socket.socket(socket.AF_UNIX) as late, pytest.raises(OSError):
                late.connect(address)
    finally:
        daemon.close()


def test_a_relay_closed_twice_touches_nobody_elses_descriptor(tmp_path):
    link = relay.Relay()
    link.close()
    with open(tmp_path / 'victim', 'w+b', buffering=0) as victim:
        victim.write(b'precious')
        copies = [os.dup(victim.fileno()) for _ in range(8)]
        victim.seek(0)

        link.close()

        for copy in copies:
            os.close(copy)
        assert victim.read() == b'precious'


def test_a_definition_with_a_backing_file_is_refused_at_restore(
        shared_lab, guest, engine, work):
    under_way = work(guest)
    facts = dataclasses.asdict(engine.prepare(under_way)[0])
    discard(engine, under_way)
    flat = re.sub('<backingStore.*</backingStore>', '',
                  guest.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE), flags=re.DOTALL)
    member = records.RestoreMember(
        under_way.members[0], under_way.member_folder(under_way.members[0]), facts)
    restore = records.RestoreWork(under_way.snapshot_id, str(uuid.uuid4()), (member,))

    def refused(backing):
        shared_lab.connection.defineXML(
            flat.replace("<target dev='vda'", f"{backing}<target dev='vda'"))
        return [finding.device for finding in engine.restore_check(restore).findings
                if 'backing file' in finding.cause]

    assert refused('') == []
    try:
        assert refused('''<backingStore type='file'><format type='raw'/>
                          <source file='/base.raw'/></backingStore>''') == ['vda']
    finally:
        shared_lab.connection.defineXML(flat)


@contextlib.contextmanager
def guarded(lab):
    """A guardian of the test's own, ready."""
    watcher = guardian.Guardian(lab.uri)
    try:
        watcher.wait_ready()
        yield watcher
    finally:
        watcher.close()


def arm(watcher, guest, deadline_s):
    ours, _theirs = socket.socketpair()
    with ours, _theirs:
        watcher.arm(guest.uuid, (), time.monotonic_ns() + int(deadline_s * 1e9), ours)


def test_the_guardian_acts_again_until_it_is_disarmed(shared_lab, guest):
    with guarded(shared_lab) as watcher:
        arm(watcher, guest, deadline_s=0)
        for _stop_that_came_late in range(3):
            qmp(guest, 'stop')
            assert until(lambda: runs(guest))

        assert watcher.disarm((guest.uuid,)) == {guest.uuid}

        qmp(guest, 'stop')
        assert not until(lambda: runs(guest), 1)    # five times its interval
        qmp(guest, 'cont')


def test_the_guardian_lets_all_go_when_the_participant_dies(shared_lab, guest):
    with guarded(shared_lab) as watcher:
        arm(watcher, guest, deadline_s=3600)
        qmp(guest, 'stop')
        stood = not runs(guest)

        watcher.close()

    assert stood
    assert runs(guest)


def test_the_guardian_takes_out_its_own_snapshot_only_and_resumes_nobody_for_it(
        shared_lab, guest, engine, work):
    others = work(guest)
    engine.prepare(others)
    tags = {'abcdef', engine.tag_of(others.snapshot_id)}
    netdev = next(each['name'].removeprefix('/') for each in qmp(guest, 'query-rx-filter'))
    netdev = f'host{netdev}'
    qmp(guest, 'object-add', **{'qom-type': 'filter-buffer', 'id': 'hotsnap-gate-abcdef-0',
                                'netdev': netdev, 'queue': 'rx', 'interval': 1, 'status': 'off'})
    assert set(engine.survey()[0].snapshot_tag.split(',')) == tags
    with guarded(shared_lab) as watcher:
        watcher.watch((guest.uuid,), 'abcdef')
        qmp(guest, 'stop')    # as in the cut of another

        watcher.close()

    stood = not runs(guest)
    qmp(guest, 'cont')
    assert stood
    assert engine.survey()[0].snapshot_tag == engine.tag_of(others.snapshot_id)
    assert is_of_background_kind(guest)
    engine.record(others)
    discard(engine, others)
    assert engine.survey() == ()


def test_a_pause_after_the_release_is_not_ended_by_finish(guest, engine, work):
    under_way = work(guest)
    engine.prepare(under_way)
    engine.record(under_way)
    engine.release(under_way)
    engine.save(under_way, lambda _progress: None)
    qmp(guest, 'stop')    # no reason that libvirt knows, as after our own

    engine.finish(under_way)

    stood = not runs(guest)
    qmp(guest, 'cont')
    assert stood
    assert engine.survey() == ()
