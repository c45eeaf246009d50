# SPDX-License-Identifier: Apache-2.0
"""What a restore has on the disk before it touches a guest, and whom it does not wait for."""

import contextlib
import dataclasses
import subprocess
import threading
import time
import types

import libvirt
import pytest

from hotsnap_nova import exception
from hotsnap_nova.virt import guest, records
from hotsnap_nova.virt.restore import clocks, parts, restorer, telling
from tests.fakes import power

_STATES = {'running': guest.State('running'), 'off': guest.State('shut off'),
           'at the cut': guest.State('paused', loaded=True)}


class Guest:
    """Stands in for `guest.Guest`, with an agent.

    :ivar told: called with what is done to it, before it is
    """

    uuid = 'a'
    spec = records.MemberSpec(uuid, 'a')

    def __init__(self, folder, state):
        self._folder = folder
        self.is_ = state
        self.told = lambda _what: None

    def state(self):
        return _STATES[self.is_]

    def xml(self, live=True):
        return f"""<domain><devices><disk type='file' device='disk'><driver type='raw'/>
            <source file='{self._folder}/disk.raw'/><target dev='vda'/></disk><channel>
            <target type='virtio' name='org.qemu.guest_agent.0' state='connected'/></channel>
            </devices></domain>"""

    full_xml = xml

    def destroy(self):
        self.told('destroy')
        self.is_ = 'off'

    def resume(self):
        self.told('resume')
        self.is_ = 'running'

    def boot(self):
        self.told('boot')
        self.is_ = 'running'

    def set_clock(self, _wall_ns):
        self.told('set_clock')

    def clock_ns(self):
        return time.time_ns()


class Libvirt:
    """Knows of no load on trial."""

    def lookupByUUIDString(self, _name):
        unknown = libvirt.libvirtError('no such domain')
        unknown.err = (libvirt.VIR_ERR_NO_DOMAIN, 0, '', 2, '', '', '', -1, -1)
        raise unknown

    def lookupByName(self, name):
        return self.lookupByUUIDString(name)


WORK = records.RestoreWork('s1', 'r1', (
    records.RestoreMember(records.MemberSpec('a', 'a'), '', {}),))


@pytest.fixture
def make(tmp_path, monkeypatch):
    """A guest in a state, and an engine that knows it alone."""
    def make(state):
        made, engine = Guest(tmp_path, state), restorer.Restorer()
        engine._libvirt = Libvirt
        if state == 'at the cut':
            (tmp_path / f'a.hotsnap-{parts.LOADED}-r1').write_text('a')
        monkeypatch.setattr(engine, '_member', lambda _spec: made, raising=False)
        return made, engine
    (tmp_path / 'disk.raw').write_bytes(bytes(8192))
    return make


@pytest.mark.parametrize(('step', 'state', 'done', 'mark'), [
    ('stop', 'running', 'destroy', parts.STOPPED),
    ('resume', 'at the cut', 'resume', parts.RESUMED)])
def test_a_mark_outlives_a_loss_of_power_before_a_guest_is_touched(
        make, tmp_path, monkeypatch, step, state, done, mark):
    member, engine = make(state)
    disk, found = power.Disk(tmp_path, monkeypatch), []
    member.told = lambda what: found.append((what, [
        f'a.hotsnap-{mark}-r1' in names for names in disk.worlds()]))

    getattr(engine, f'restore_{step}')(WORK)

    assert (done, [True]) in found
    disk.close()


def test_an_agent_that_never_answers_is_not_waited_for(make, monkeypatch):
    monkeypatch.setattr(clocks, '_TIMEOUT_S', 0.1)
    member, engine = make('at the cut')
    asked, answers, answered = threading.Event(), threading.Event(), threading.Event()
    member.told = lambda what: what == 'set_clock' and (
        asked.set(), answers.wait(10), answered.set())

    outcome = engine.restore_resume(WORK)

    assert asked.is_set()
    assert not answered.is_set()
    assert (member.is_, outcome.faults) == ('running', ())
    (warning,) = outcome.warnings
    assert (warning.member.id, warning.device, warning.refuses) == ('a', 'clock', False)
    answers.set()


def test_where_members_are_left_standing_their_clocks_are_too_and_that_is_said(make):
    member, engine = make('at the cut')
    told = []
    member.told = told.append

    outcome = engine.restore_resume(dataclasses.replace(WORK, paused=True))

    assert told == []
    (warning,) = outcome.warnings
    assert (warning.member.id, warning.device, warning.refuses) == ('', 'clock', False)


def test_the_clock_of_a_guest_that_a_dead_process_let_run_is_set_by_the_next(make, tmp_path):
    member, engine = make('at the cut')
    (tmp_path / f'a.hotsnap-{parts.RESUMED}-r1').write_text('r1')
    member.is_, told = 'running', []
    member.told = told.append

    outcome = engine.restore_resume(WORK)

    assert told == ['set_clock']
    assert (outcome.faults, outcome.warnings) == ((), ())


def test_what_nobody_expected_of_a_member_keeps_no_other(make, tmp_path, monkeypatch):
    other, engine = make('at the cut')

    def member(spec):
        if spec.id == 'a':
            raise RuntimeError('of a library')
        return other
    monkeypatch.setattr(engine, '_member', member)
    (tmp_path / f'b.hotsnap-{parts.LOADED}-r1').write_text('b')
    noted = {'folder': str(tmp_path), 'disks': {}}
    work = records.RestoreWork('s1', 'r1', tuple(
        records.RestoreMember(records.MemberSpec(name, name), '', {}) for name in 'ab'),
        notes={'members': {'a': noted, 'b': noted}})

    outcome = engine.restore_resume(work)

    assert other.is_ == 'running'
    (fault,) = outcome.faults
    assert (fault.member, 'of a library' in str(fault.error)) == ('a', True)


def test_what_an_undo_cannot_boot_for_a_moment_it_boots_then(make, tmp_path, monkeypatch):
    monkeypatch.setattr(restorer, '_BOOT_AGAIN_S', 0.01)
    member, engine = make('off')
    (tmp_path / f'a.hotsnap-{parts.STOPPED}-r1').write_text('running')
    passing = [OSError('of privsep'), exception.HypervisorError(member='a', reason='busy')]

    def told(_what):
        if passing:
            raise passing.pop()
    member.told = told

    outcome = engine.restore_undo(WORK)

    (fault,) = outcome.faults
    assert isinstance(fault.error, exception.MemberRebooted)
    assert member.is_ == 'running'


def test_an_undo_that_meets_what_nobody_expected_keeps_its_marks_and_is_tried_again(
        make, tmp_path, monkeypatch):
    member, engine = make('off')
    mark = tmp_path / f'a.hotsnap-{parts.STOPPED}-r1'
    mark.write_text('running')

    def fail():
        raise RuntimeError('no thread can be started')
    monkeypatch.setattr(member, 'state', fail)
    with pytest.raises(RuntimeError):
        engine.restore_undo(WORK)
    assert mark.exists()
    monkeypatch.undo()

    monkeypatch.setattr(engine, '_member', lambda _spec: member, raising=False)
    engine.restore_undo(WORK)

    assert member.is_ == 'running'
    assert mark.exists()
    engine.restore_clear(WORK)
    assert not mark.exists()


@pytest.fixture
def small(tmp_path):
    """A file system of 1 MiB, which is real; `remount` changes its options, `fill` fills it."""
    folder = tmp_path / 'small'
    folder.mkdir()

    def mount(*options):
        subprocess.run(['mount', *options, str(folder)], check=True)
    mount('-t', 'tmpfs', '-o', 'size=1m', 'small')

    def fill():
        with contextlib.suppress(OSError), open(folder / 'full', 'wb', buffering=0) as file:
            while file.write(bytes(4096)) == 4096:
                pass
        with pytest.raises(OSError, match='No space'):
            (folder / 'more').write_bytes(bytes(1))
    yield types.SimpleNamespace(
        folder=folder, fill=fill, remount=lambda how: mount('-o', f'remount,{how}'))
    subprocess.run(['umount', '--lazy', str(folder)], check=True)


@pytest.fixture
def two(make, small, tmp_path, monkeypatch):
    """(members at the cut by name, an engine, their work); the disks of ``a`` are on `small`."""
    monkeypatch.setattr(telling, '_FILES_TIMEOUT_S', 0.3)
    found, folders = {}, {'a': small.folder, 'b': tmp_path}
    for name in folders:
        found[name], engine = make('at the cut')
    noted = {}
    for name, folder in folders.items():
        for what in (parts.LOADED, parts.READY):
            (folder / f'{name}.hotsnap-{what}-r1').write_text('a')
        noted[name] = {'folder': str(folder), 'disks': {}}
    monkeypatch.setattr(engine, '_member', lambda spec: found[spec.id])
    return found, engine, records.RestoreWork('s1', 'r1', tuple(
        records.RestoreMember(records.MemberSpec(name, name), '', {}) for name in folders),
        notes={'members': noted})


def names(folder):
    return {each.name for each in folder.iterdir() if '.hotsnap-' in each.name}


def test_a_full_disk_has_room_for_the_mark_that_a_member_runs(two, small):
    members, engine, work = two
    small.fill()

    outcome = engine.restore_resume(work)

    assert outcome.faults == ()
    assert [members[name].is_ for name in 'ab'] == ['running'] * 2
    assert 'a.hotsnap-resumed-r1' in names(small.folder)
    engine.restore_finish(work)
    assert not names(small.folder)


def test_a_disk_that_can_only_be_read_keeps_no_other_member_from_its_end(two, small, tmp_path):
    members, engine, work = two
    small.remount('ro')

    outcome = engine.restore_resume(work)

    (fault,) = outcome.faults
    assert fault.member == 'a'
    assert 'Read-only file system' in str(fault.error)
    assert [members[name].is_ for name in 'ab'] == ['at the cut', 'running']
    (fault,) = engine.restore_finish(work).faults
    assert (fault.member, 'Read-only file system' in str(fault.error)) == ('a', True)
    assert not [each for each in names(tmp_path) if each.startswith('b.')]
    assert 'a.hotsnap-ready-r1' in names(small.folder)
    small.remount('rw')


def test_a_file_system_that_fails_for_a_moment_costs_nobody_his_member(two, small):
    members, engine, work = two
    small.remount('ro')
    members['b'].told = lambda _what: small.remount('rw')    # which goes first then

    outcome = engine.restore_resume(work)

    assert outcome.faults == ()
    assert [members[name].is_ for name in 'ab'] == ['running'] * 2
