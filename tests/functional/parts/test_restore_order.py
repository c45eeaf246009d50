# SPDX-License-Identifier: Apache-2.0
"""What a restore has on the disk before it touches a guest, and whom it does not wait for."""

import threading

import pytest

from hotsnap_nova import exception
from hotsnap_nova.virt import guest, records
from hotsnap_nova.virt.restore import clocks, parts, restorer
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
            <target type='virtio' name='org.qemu.guest_agent.0'/></channel></devices></domain>"""

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

    def set_clock(self, _seconds):
        self.told('set_clock')


WORK = records.RestoreWork('s1', 'r1', (
    records.RestoreMember(records.MemberSpec('a', 'a'), '', {}),))


@pytest.fixture
def make(tmp_path, monkeypatch):
    """A guest in a state, and an engine that knows it alone."""
    def make(state):
        made, engine = Guest(tmp_path, state), restorer.Restorer()
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
    answers.set()


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
