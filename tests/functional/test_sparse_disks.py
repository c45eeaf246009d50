# SPDX-License-Identifier: Apache-2.0
"""A snapshot of a large disk costs what is in it, and has all that is in it."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading

import libvirt_qemu
import pytest

from hotsnap_nova import exception
from hotsnap_nova.virt import host, monitor, records
from hotsnap_nova.virt.disks import extents
from tests.functional.bare import Bare, disk, image

_HMP = 1    # VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP
_MIB = 1 << 20


def write(path, *commands, form='qcow2'):
    words = [word for command in commands for word in ('-c', command)]
    done = subprocess.run(['qemu-io', '-f', form, *words, str(path)], check=True,
                          capture_output=True, text=True)
    assert 'verification failed' not in done.stdout + done.stderr


@pytest.fixture
def disks(lab):
    """Of a TiB each: an empty one, one over a base, a raw one; their paths by target."""
    base, over = lab.folder / 'base.qcow2', lab.folder / 'over.qcow2'
    image(base, '1T')
    write(base, 'write -P 1 100G 3M', 'write -P 2 900G 1M')
    image(over, '1T', 'qcow2', '-F', 'qcow2', '-b', str(base))
    write(over, 'write -P 3 0 1M', 'write -P 4 100G 64k', 'write -P 5 700G 5M',
          'write -z 900G 64k')
    raw = lab.folder / 'raw.img'
    image(raw, '1T', 'raw')
    write(raw, 'write -P 6 500G 1M', form='raw')
    return {'vdb': image(lab.folder / 'empty.qcow2', '1T'), 'vdc': str(over), 'vdd': str(raw)}


def qemu_io(guest, command, number=2):
    """Have something done to a guest's disk, vdc, as the guest would do it."""
    libvirt_qemu.qemuMonitorCommand(guest.domain, (
        f'qemu-io -d /machine/peripheral/virtio-disk{number}/virtio-backend "{command}"'), _HMP)


class Snapshot:
    """A snapshot of one guest by an engine of its own; a context manager.

    :param late: what the guest does to its disk vdc right before its cut
    """

    def __init__(self, lab, guest, folder, late=()):
        self._guest, self._late = guest, late
        self._engine = host.Engine(lab.uri)
        self._work = records.Work('one', 1, self._engine.find((guest.name,)), 'barrier',
                                  str(folder), 30_000, 60_000)
        self.folder = folder / self._work.members[0].id

    def __enter__(self):
        self._engine.prepare(self._work)
        for command in self._late:
            qemu_io(self._guest, command)
        self._engine.record(self._work)
        self._engine.release(self._work)
        return self

    @contextlib.contextmanager
    def hanging_store(self):
        """What the snapshot's disks are written by stands."""
        (member,) = self._engine._open['one'].members
        os.kill(member._daemon.pid, signal.SIGSTOP)
        yield
        os.kill(member._daemon.pid, signal.SIGCONT)

    def save(self):
        """How many bytes there were to copy and to save, in all."""
        told = []
        self._engine.save(self._work, told.append)
        self._engine.finish(self._work)
        assert self._engine.survey() == ()
        return told[-1].total_bytes

    def __exit__(self, *_error):
        self._engine.discard('one', self._work.members)
        self._engine.close()


def guest_of(lab, disks, memory_mb=32):
    return Bare(lab, ''.join(disk(path, 'raw' if path.endswith('.img') else 'qcow2', target)
                             for target, path in disks.items()), memory_mb=memory_mb)


def same(one, other):
    return subprocess.run(['qemu-img', 'compare', '-U', str(one), str(other)],
                          capture_output=True, check=False).returncode == 0


def test_what_is_copied_is_what_is_there_and_no_more(lab, disks, tmp_path):
    with guest_of(lab, disks) as guest, Snapshot(lab, guest, tmp_path) as snapshot:
        total_bytes = snapshot.save()

        for target, path in disks.items():
            assert same(snapshot.folder / f'{target}.qcow2', path), target

    assert total_bytes - 32 * _MIB - 16 * _MIB < 16 * _MIB    # of three TiB; vda has all of 16 MiB


def test_what_a_guest_does_to_its_disk_between_cut_and_copy_is_not_in_it(lab, disks, tmp_path):
    """It overwrites, discards, writes zeros, and writes where nothing was."""
    before = tmp_path / 'before.qcow2'
    shutil.copy(disks['vdc'], before)

    with guest_of(lab, disks) as guest, Snapshot(lab, guest, tmp_path) as snapshot:
        for command in ('write -P 9 100G 1M', 'discard 700G 2M', 'write -z 702G 1M',
                        'write -z 700G 3M', 'write -P 9 300G 1M', 'discard 0 1M', 'flush'):
            qemu_io(guest, command)
        snapshot.save()

        assert same(snapshot.folder / 'vdc.qcow2', before)
        assert not same(snapshot.folder / 'vdc.qcow2', disks['vdc'])


def test_what_a_guest_wrote_right_before_its_cut_is_in_it_though_it_flushed_nothing(
        lab, disks, tmp_path):
    with guest_of(lab, disks) as guest, Snapshot(
            lab, guest, tmp_path, ['write -P 8 200G 1M', 'write -P 8 100G 64k']) as snapshot:
        snapshot.save()

    write(snapshot.folder / 'vdc.qcow2', 'read -P 8 200G 1M', 'read -P 8 100G 64k',
          'read -P 1 107374247936 64k')


def test_an_empty_disk_whose_filter_gave_up_fails_the_snapshot(lab, disks, tmp_path):
    with guest_of(lab, {'vdb': disks['vdb']}) as guest, Snapshot(lab, guest, tmp_path) as snapshot:
        with snapshot.hanging_store():
            qemu_io(guest, 'write -P 9 300G 1M', number=1)    # for longer than the filter waits

        with pytest.raises(exception.TargetFailed, match='about to overwrite failed'):
            snapshot.save()


@pytest.mark.parametrize('fails', ['of', 'merge'])
def test_where_it_cannot_be_told_all_is_looked_at(lab, tmp_path, monkeypatch, fails):
    path = image(lab.folder / 'small.qcow2', '600M')
    write(path, 'write -P 7 300M 1M')

    def refuse(*_asked):
        raise extents.Unknown('no') if fails == 'of' else monitor.MonitorError(
            member='a', reason='no')
    monkeypatch.setattr(*((extents, 'of') if fails == 'of' else (monitor.Monitor, 'merge_bitmap')),
                        refuse)

    with guest_of(lab, {'vdb': path}) as guest, Snapshot(lab, guest, tmp_path) as snapshot:
        assert snapshot.save() > 600 * _MIB
        assert same(snapshot.folder / 'vdb.qcow2', path)


def test_a_base_that_another_file_has_taken_the_place_of_is_still_in_it(lab, tmp_path):
    base = lab.folder / 'replaced.qcow2'
    image(base, '300M')
    write(base, 'write -P 7 100M 1M')
    path = image(lab.folder / 'over-it.qcow2', '300M', 'qcow2', '-F', 'qcow2', '-b', str(base))

    with guest_of(lab, {'vdb': path}) as guest, Snapshot(lab, guest, tmp_path) as snapshot:
        base.rename(lab.folder / 'aside.qcow2')
        image(base, '300M')
        snapshot.save()

    write(snapshot.folder / 'vdb.qcow2', 'read -P 7 100M 1M')


@pytest.fixture
def stretches():
    """What is found in an image that this process has open."""
    with contextlib.ExitStack() as held:
        def found(image):
            layer = image
            while layer:
                held.enter_context(open(layer['filename'], 'rb'))
                layer = layer.get('backing-image')
            return extents.of(image, os.getpid())
        yield found


def test_stretches_are_found_through_all_layers_and_joined_over_small_gaps(disks, stretches):
    chain = {'format': 'qcow2', 'filename': disks['vdc'], 'backing-filename': 'base.qcow2',
             'backing-image': {'format': 'qcow2', 'filename': disks['vdc'].replace(
                 'over', 'base')}}
    gib = 1 << 30

    assert stretches(chain) == [(0, _MIB), (100 * gib, 100 * gib + 3 * _MIB),
                                (700 * gib, 700 * gib + 5 * _MIB),
                                (900 * gib + (64 << 10), 900 * gib + _MIB)]
    assert stretches({'format': 'file', 'filename': disks['vdd']})[-1] == (
        500 * gib, 500 * gib + _MIB)
    assert stretches({'format': 'qcow2', 'filename': disks['vdb']}) == []


@pytest.mark.parametrize('more', [
    {'filename': '/no/such'}, {'filename': '/dev/null'}, {'format': 'raw', 'filename': 'json:{}'},
    {'format': 'vmdk'}, {'backing-filename': 'unknown'}])
def test_an_image_that_is_not_understood_is_not_guessed_at(disks, more):
    before = os.listdir('/proc/self/fd')

    with open(disks['vdb']), pytest.raises(extents.Unknown):
        extents.of({'format': 'qcow2', 'filename': disks['vdb']} | more, os.getpid())

    assert os.listdir('/proc/self/fd') == before


def test_nor_is_one_that_qemu_has_not_open_or_where_that_is_not_seen(tmp_path):
    chain = {'format': 'qcow2', 'filename': image(tmp_path / 'over.qcow2'),
             'backing-filename': 'base.qcow2',
             'backing-image': {'format': 'qcow2', 'filename': image(tmp_path / 'base.qcow2')}}

    with open(tmp_path / 'over.qcow2'), open(tmp_path / 'base.qcow2'):
        assert extents.of(chain, os.getpid()) == []
        for process in (None, 1 << 30):
            with pytest.raises(extents.Unknown, match='not to be seen'):
                extents.of(chain, process)
        (tmp_path / 'base.qcow2').rename(tmp_path / 'aside.qcow2')
        image(tmp_path / 'base.qcow2')
        with pytest.raises(extents.Unknown, match='base.qcow2 is not what its QEMU has open'):
            extents.of(chain, os.getpid())


@pytest.fixture
def qemu_img(tmp_path, monkeypatch):
    """What a disk of a TiB is told to have by a qemu-img that is this script."""
    def of(script):
        program = tmp_path / 'bin/qemu-img'
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/bash\n{script}\n')
        program.chmod(0o755)
        monkeypatch.setenv('PATH', f'{program.parent}:{os.environ["PATH"]}')
        (tmp_path / 'disk').touch()
        with open(tmp_path / 'disk') as disk:
            return extents.of({'format': 'raw', 'filename': disk.name}, os.getpid())
    return of


MANY = r"""echo -n '['
seq 1 30000 | awk '{
    printf "{\"start\": %.0f, \"length\": 4096, \"zero\": false, \"data\": true},\n",
           $1 * $1 * 1000 }'
echo ']'"""


def test_of_many_stretches_few_are_kept_and_never_are_many_read_at_once(qemu_img, monkeypatch):
    """Whoever else is in this process carries the memory of guests."""
    longest, real = [0], json.loads

    def loads(text):
        longest[0] = max(longest[0], len(text))
        return real(text)
    monkeypatch.setattr(json, 'loads', loads)

    found = qemu_img(MANY)

    assert 1000 < len(found) <= extents._MOST
    assert (found[0][0], found[-1][1]) == (1000, 900_000_000_000 + 4096)
    assert longest[0] < 200


def test_a_program_that_does_not_end_is_not_waited_for(qemu_img, tmp_path, monkeypatch):
    """Its child stands for what keeps its output open though it was killed: the kernel."""
    monkeypatch.setattr(extents, '_TIMEOUT_S', 0.5)

    with pytest.raises(extents.Unknown, match='more than 0.5 s'):
        qemu_img(f'sleep 60 & echo $! $$ >{tmp_path}/pids; wait')

    child, program = map(int, (tmp_path / 'pids').read_text().split())
    os.kill(child, signal.SIGKILL)    # it was alive
    assert not os.path.exists(f'/proc/{program}')


@pytest.mark.parametrize('script', ['echo no >&2; exit 1', 'echo {', 'echo "{}"'])
def test_a_program_that_fails_has_told_nothing(qemu_img, script):
    with pytest.raises(extents.Unknown, match='no|qemu-img map'):
        qemu_img(script)


def test_only_a_few_disks_are_looked_at_at_once(qemu_img, monkeypatch):
    monkeypatch.setattr(extents, '_few', threading.BoundedSemaphore(1))
    monkeypatch.setattr(extents, '_TIMEOUT_S', 0.2)

    with extents._few, pytest.raises(extents.Unknown, match='other disks'):
        qemu_img('echo []')

    assert qemu_img('echo []') == []


def test_there_are_never_too_many_stretches(monkeypatch):
    monkeypatch.setattr(extents, '_MOST', 3)
    found, few = extents._Stretches(), extents._Stretches()

    for start in range(40):
        found.add(start << 30, (start << 30) + 1)
        assert 0 < len(found.kept) <= 3
    few.add(0, 1)
    few.add(5 * _MIB, 6 * _MIB)
    few.add(7 * _MIB, 8 * _MIB)

    assert (found.kept[0][0], found.kept[-1][1]) == (0, (39 << 30) + 1)
    assert few.kept == [(0, 1), (5 * _MIB, 8 * _MIB)]
