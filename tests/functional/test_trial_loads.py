# SPDX-License-Identifier: Apache-2.0
"""Members are loaded on trial beside themselves, on real QEMUs, and feel nothing of it."""

import contextlib
import hashlib
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import threading
import time
import types

import libvirt
import pytest
import zstandard

from hotsnap_nova import exception
from hotsnap_nova.virt import guest, host, records
from hotsnap_nova.virt.definition import aside
from hotsnap_nova.virt.restore import trial
from tests.functional import bare
from tests.functional.command import until

#: What people's guests have, ports that there can be one of among it.
DEVICES = """
<interface type='bridge'><source bridge='brtrial'/><mac address='52:54:00:aa:00:01'/>
  <model type='virtio'/><driver queues='2'/><rom file='{folder}/nic.rom'/></interface>
<interface type='user'><mac address='52:54:00:aa:00:02'/><model type='e1000e'/></interface>
<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
<serial type='file'><source path='{folder}/console'/><log file='{folder}/log' append='off'/>
  <target port='0'/></serial>
<serial type='tcp'><source mode='bind' host='127.0.0.1' service='10998'/>
  <target port='1'/></serial>
<graphics type='vnc' port='5931' listen='127.0.0.1' passwd='before'/>
<video><model type='vga'/></video><sound model='ich9'/><input type='tablet' bus='virtio'/>
<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>"""
_ROM_BYTES = 1 << 15
#: A process of ours that begins a restore, as a service does.
_BEGIN = """
import pickle, sys
from hotsnap_nova.virt import host
engine = host.Engine(sys.argv[1])
engine.tries_loads = True
engine.restore_prepare(pickle.load(sys.stdin.buffer))
"""


class Member:
    """A guest that runs, and was snapshotted before.

    :ivar folder: with all its files but its first disk
    """

    def __init__(self, lab, folder: pathlib.Path, running: bare.Bare):
        self.lab = lab
        self.folder = folder
        self._running = running
        self.spec = records.MemberSpec(self.domain.UUIDString(), 'web')
        self.snapshot = folder / 'snapshot'
        self.snapshot.mkdir()
        (self.snapshot / 'domain.xml').write_text(self.domain.XMLDesc(
            libvirt.VIR_DOMAIN_XML_SECURE | libvirt.VIR_DOMAIN_XML_MIGRATABLE))
        self.domain.save(str(self.snapshot / 'memory.save'))
        for target, (path, form) in self.disks.items():
            subprocess.run(['qemu-img', 'convert', '-f', form, '-O', 'qcow2', path,
                            self.snapshot / f'{target}.qcow2'], check=True)
        self.domain.create()

    @property
    def domain(self):
        return self._running.domain

    @property
    def pid(self):
        return self._running.pid

    @property
    def disks(self):
        """Paths and formats by target."""
        return {'vda': (self._running.disk, 'qcow2'), 'vdb': (f'{self.folder}/two.raw', 'raw')}

    @property
    def work(self):
        return records.RestoreWork('s1', 'r1', (records.RestoreMember(
            self.spec, str(self.snapshot), {'disks': [
                {'target': target, 'file': f'{target}.qcow2'} for target in self.disks]}),))

    def beside(self):
        """What a restore has put beside its disks."""
        return sorted(path.name.partition('.hotsnap-')[2] for folder in
                      {os.path.dirname(path) for path, _form in self.disks.values()}
                      for path in pathlib.Path(folder).glob('*.hotsnap-*'))

    def on_trial(self):
        """The process of QEMU on trial, or None."""
        with contextlib.suppress(ValueError):    # its file is being written
            return self.lab.pid_of(aside.name_of(self.spec.id))
        return None

    def log(self):
        """What QEMU on trial has said."""
        return (self.lab.folder / f'log/qemu/{aside.name_of(self.spec.id)}.log').read_text()

    def links(self):
        """All there are in the lab, as ip says them."""
        return self.lab.run_inside('ip', '-o', 'link').splitlines()

    def trials(self):
        """Domains that are none of ours."""
        return [each.name() for each in self.lab.connection.listAllDomains()
                if aside.member_of(each.name())]


@pytest.fixture(scope='module')
def member(shared_lab, tmp_path_factory):
    folder = tmp_path_factory.mktemp('trials')
    (folder / 'cd.iso').write_bytes(bytes(1 << 20))
    (folder / 'nic.rom').write_bytes(bytes(_ROM_BYTES))
    (folder / 'nvram').write_bytes(b'\xaa' * bare.FLASH_BYTES)
    shared_lab.run_inside('ip', 'link', 'add', 'brtrial', 'type', 'bridge')
    devices = (bare.disk(bare.image(folder / 'two.raw', '16M', 'raw'), 'raw', 'vdb')
               + bare.drive(folder / 'cd.iso') + DEVICES.format(folder=folder))
    firmware = (f"<loader readonly='yes' type='pflash'>{bare.halted(folder / 'firmware')}</loader>"
                f'<nvram>{folder}/nvram</nvram>')
    with bare.Bare(shared_lab, devices, firmware=firmware) as running:
        yield Member(shared_lab, folder, running)
    shared_lab.run_inside('ip', 'link', 'del', 'brtrial')


@pytest.fixture
def engine(member):
    """One that tries loads; its guest feels nothing, and nothing is left of trials."""
    made = host.Engine(member.lab.uri)
    made.tries_loads = True
    born = member.pid
    with made._guest(member.spec.id).watched() as watch:
        yield made
        stops = watch.count('STOP')
    assert (member.pid, stops, member.domain.state()[0]) == (
        born, 0, libvirt.VIR_DOMAIN_RUNNING)
    assert member.trials() == []
    made.restore_undo(member.work)
    assert [name for name in member.beside() if 'trial' in name] == []
    made.restore_clear(member.work)
    assert member.beside() == []
    made.close()


@pytest.fixture
def seen(member, monkeypatch):
    """What there was while a QEMU on trial stood."""
    seen, proof = types.SimpleNamespace(), trial._require_awake

    def look(part, connect):
        domain = connect().lookupByName(aside.name_of(member.spec.id))
        seen.state, seen.xml = domain.state(), domain.XMLDesc()
        seen.links = member.links()
        seen.files = {path.name.partition('trial-')[2]: path.read_bytes()
                      for path in sorted(pathlib.Path(part.on_trial('memory')).parent.glob(
                          '*.hotsnap-trial-*'))}
        proof(part, connect)
    monkeypatch.setattr(trial, '_require_awake', look)
    return seen


def link_name(line):
    return line.split(':')[1]


def digests(*paths):
    return {str(path): (hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest(),
                        os.stat(path).st_mtime_ns) for path in paths}


# --- what it is like ---


def test_a_member_wakes_beside_itself_paused_and_without_network(member, engine, seen, caplog):
    before = {link_name(line) for line in member.links()}    # guests of other tests have some, too

    engine.restore_prepare(member.work)

    assert seen.state == [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION]
    assert '<graphics' not in seen.xml
    (tap,) = [line for line in seen.links if link_name(line) not in before]
    assert 'vnet' in tap
    assert 'master' not in tap
    assert not caplog.records
    assert [name for name in member.beside() if 'trial' in name] == []


def test_a_paused_load_writes_nothing(member, engine, seen):
    work = member.work
    engine.restore_prepare(work)    # so that there is what one is loaded from
    own = [path for path, _form in member.disks.values()]
    kept = [*(f'{path}.hotsnap-new-r1' for path in own), member.folder / 'cd.iso',
            member.folder / 'nic.rom', member.snapshot / 'memory.save', member.folder / 'nvram']
    part, before = engine._part(work, work.members[0]), digests(*kept)
    engine._load_on_trial(part, lambda: None)

    assert digests(*kept) == before
    empty = {}
    for target in part.disks:
        path = part.on_trial(f'disk-{target}')
        trial._lay_over(part.disks[target], path, engine.files)
        empty[f'disk-{target}-r1'] = pathlib.Path(path).read_bytes()
    part.drop_trial()
    assert {name: seen.files[name] == content for name, content in empty.items()} == {
        'disk-vda-r1': True, 'disk-vdb-r1': True}
    assert seen.files['nvram-r1'] == bytes(bare.FLASH_BYTES)


def test_memory_that_was_compressed_is_tried_too(member, engine, seen, monkeypatch, tmp_path):
    plain = member.snapshot / 'memory.save'
    packed = member.snapshot / 'memory.save.zst'
    packed.write_bytes(zstandard.ZstdCompressor().compress(plain.read_bytes()))
    plain.rename(tmp_path / 'memory')
    try:
        engine.restore_prepare(member.work)
    finally:
        packed.unlink()
        (tmp_path / 'memory').rename(plain)

    assert seen.state[0] == libvirt.VIR_DOMAIN_PAUSED


# --- what would fail after the stop ---


@contextlib.contextmanager
def upgraded_rom(member):
    (member.folder / 'nic.rom').write_bytes(bytes(_ROM_BYTES * 4))
    yield
    (member.folder / 'nic.rom').write_bytes(bytes(_ROM_BYTES))


@contextlib.contextmanager
def missing_device(member):
    """A device has state in memory, and there is no such device."""
    kept = member.snapshot / 'domain.xml'
    before = kept.read_text()
    begin, end = before.index('<rng'), before.index('</rng>') + len('</rng>')
    kept.write_text(before[:begin] + before[end:])
    yield
    kept.write_text(before)


@pytest.mark.parametrize(('change', 'words'), [
    (upgraded_rom, 'Size mismatch: '), (missing_device, 'Unknown savevm section')],
    ids=lambda value: getattr(value, '__name__', ''))
def test_what_does_not_load_is_refused_while_it_runs_and_told_where_qemu_says_why(
        member, engine, change, words):
    with change(member), pytest.raises(exception.Refused) as refused:
        engine.restore_prepare(member.work)

    assert str(refused.value).startswith('web, memory: ')
    assert 'load of migration failed' in str(refused.value)
    assert aside.name_of(member.spec.id) in str(refused.value)
    assert words in member.log()
    engine.restore_prepare(member.work)    # and when that is as it was, it is restored


# --- what becomes of a trial that ends otherwise ---


def test_a_qemu_that_dies_on_trial_is_a_refusal(member, engine, monkeypatch):
    def load(*args):
        guest_load(*args)
        os.kill(pid := member.on_trial(), signal.SIGKILL)
        assert until(lambda: not os.path.exists(f'/proc/{pid}'))
    guest_load = guest.load
    monkeypatch.setattr(guest, 'load', load)

    with pytest.raises(exception.Refused, match='gone|shut off|crashed'):
        engine.restore_prepare(member.work)


@pytest.fixture
def standing(member, monkeypatch):
    """QEMU on trial stands still as soon as it is there, until that is to end.

    :returns: an event: it stands
    """
    stands, over, end = threading.Event(), threading.Event(), trial.end
    stands.pid = None

    def stop():
        while not over.is_set():
            if pid := member.on_trial():
                os.kill(pid, signal.SIGSTOP)
                stands.pid = pid
                stands.set()
                return
            time.sleep(0.001)

    def end_it(*args):
        if stands.pid:    # libvirt waits for seconds before it kills what stands still
            with contextlib.suppress(ProcessLookupError):
                os.kill(stands.pid, signal.SIGCONT)
        end(*args)
    monkeypatch.setattr(trial, 'end', end_it)
    stopping = threading.Thread(target=stop)
    stopping.start()
    yield stands
    over.set()
    stopping.join()


def test_a_trial_that_is_of_no_use_any_more_ends(member, engine, standing):
    def tell(_done, _total):
        if standing.is_set():
            raise exception.Aborted(who='its user')

    with pytest.raises(exception.Aborted):
        engine.restore_prepare(member.work, tell)

    assert standing.is_set()


def test_a_trial_that_takes_too_long_is_a_refusal(member, engine, monkeypatch):
    for name, value in (('_PATIENCE_S', 0.0), ('_BYTES_S', 1 << 60), ('_LOOK_S', 0.001)):
        monkeypatch.setattr(trial, name, value)

    with pytest.raises(exception.Refused, match='has not been loaded after'):
        engine.restore_prepare(member.work)


def test_a_libvirt_that_dies_meanwhile_costs_the_restore_alone(member, engine, standing):
    def tell(_done, _total):
        if standing.is_set():
            standing.clear()
            member.lab.kill9_libvirtd()

    with pytest.raises(exception.HostUnreachable):
        engine.restore_prepare(member.work, tell)


@pytest.fixture
def killed(member):
    """What a process has left that was killed with QEMU on trial half loaded."""
    environment = os.environ | {'PYTHONPATH': str(pathlib.Path(__file__).parents[2])}
    with subprocess.Popen([sys.executable, '-c', _BEGIN, member.lab.uri], stdin=subprocess.PIPE,
                          env=environment) as begun:
        begun.stdin.write(pickle.dumps(member.work))
        begun.stdin.close()
        assert until(lambda: member.on_trial() or begun.poll() is not None, every_s=0.001)
        os.kill(begun.pid, signal.SIGSTOP)    # or it might end the trial before it is killed
        assert member.trials()
        begun.kill()


@pytest.mark.parametrize('next_one', [
    lambda engine, work: engine.restore_prepare(work),
    lambda engine, work: engine.restore_undo(work),
    lambda engine, work: engine.clean(tuple(each.spec for each in work.members))],
    ids=['prepare', 'undo', 'clean'])
def test_what_a_process_left_that_was_killed_is_ended_by_the_next(
        member, killed, engine, next_one):
    assert [(each.member, each.what) for each in engine.survey()] == [
        (member.spec.id, ('a load on trial',))]

    next_one(engine, member.work)

    assert engine.survey() == ()


# --- where there is no room ---


@pytest.mark.parametrize('lacks', ['memory', 'disk'])
def test_without_room_for_both_it_is_not_tried_and_that_is_said(
        member, engine, seen, caplog, lacks):
    setattr(engine, {'memory': 'trial_reserve_bytes', 'disk': 'reserve_bytes'}[lacks], 1 << 60)

    engine.restore_prepare(member.work)

    assert not vars(seen)
    (said,) = caplog.messages
    assert said.startswith('web is restored without a load on trial: ')
    assert ' are needed' in said


# --- through the command, by which it is on ---


def test_a_restore_that_would_fail_after_the_stop_stops_nobody(member, hotsnap):
    running = types.SimpleNamespace(domain_name=member.domain.name())
    made = hotsnap.create('cut', [running])
    assert made.status == 0, made.errors
    born = member.pid

    with upgraded_rom(member):
        refused = hotsnap.run('snapshot', 'restore', 'cut')

    assert refused.status == 1
    assert 'load of migration failed' in refused.errors
    assert (member.pid, member.domain.state()[0]) == (born, libvirt.VIR_DOMAIN_RUNNING)
    assert (member.trials(), member.beside()) == ([], [])
    restored = hotsnap.run('snapshot', 'restore', 'cut')
    assert restored.status == 0, restored.errors
    assert member.pid != born
