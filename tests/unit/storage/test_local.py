# SPDX-License-Identifier: Apache-2.0
"""The local store: the suite, and what only a file system can do to it."""

import json
import os
import pathlib
import threading
import tracemalloc

import pytest

from hotsnap_nova import exception, storage
from hotsnap_nova.storage import digest, durable, local
from tests.unit.storage import samples, suite
from tests.unit.storage.samples import SNAPSHOT


@pytest.fixture
def store(tmp_path):
    return local.LocalStore(str(tmp_path / 'store'))


def published(store, *parts):
    return pathlib.Path(store.root, SNAPSHOT, *parts)


class TestLocalStore(suite.StoreSuite):

    @pytest.fixture
    def store(self, tmp_path):
        return local.LocalStore(str(tmp_path / 'store'))

    def overwrite(self, store, snapshot_id, member, file, content):
        pathlib.Path(store.root, snapshot_id, member, file).write_bytes(content)

    def remove(self, store, snapshot_id, member, file):
        pathlib.Path(store.root, snapshot_id, member, file).unlink()

    def add(self, store, snapshot_id, member, file):
        pathlib.Path(store.root, snapshot_id, member, file).write_bytes(b'surplus')


def test_it_is_found_by_its_entry_point(tmp_path):
    assert isinstance(storage.open_store('local', str(tmp_path / 's')), local.LocalStore)

    with pytest.raises(exception.StoreUnavailable, match='no such store'):
        storage.open_store('elsewhere', str(tmp_path / 's'))


def test_layout_is_as_documented(store):
    samples.publish(store)

    found = sorted(str(p.relative_to(store.root)) for p in pathlib.Path(store.root).rglob('*'))
    assert found == sorted([
        '.drafts', '.trash', '.lock', SNAPSHOT, f'{SNAPSHOT}/manifest.json',
        *(f'{SNAPSHOT}/{member}' for member in samples.CONTENT),
        *(f'{SNAPSHOT}/{member}/{name}'
          for member, files in samples.CONTENT.items() for name in files)])


def test_everything_published_is_private(store):
    samples.publish(store)

    for path in published(store).rglob('*'):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
    assert published(store).stat().st_mode & 0o777 == 0o700


class Killed(BaseException):
    """The process is gone before its next change of the file system."""


class Power:
    """Counts changes of the file system, and cuts the process off before a chosen one."""

    CHANGES = ('rename', 'mkdir', 'rmdir', 'unlink', 'fsync', 'fchmod')

    def __init__(self, monkeypatch):
        self.log = []
        self.kill_before = None
        for name in self.CHANGES:
            monkeypatch.setattr(os, name, self._watched(name, getattr(os, name)))

    def _watched(self, name, real):
        def call(*args, **kwargs):
            if self.kill_before is not None and len(self.log) >= self.kill_before:
                raise Killed
            target = args[0]
            if isinstance(target, int):
                target = os.readlink(f'/proc/self/fd/{target}')
            elif kwargs.get('dir_fd') is not None:
                target = os.path.join(
                    os.readlink(f'/proc/self/fd/{kwargs["dir_fd"]}'), target)
            self.log.append((name, str(target), *map(str, args[1:2])))
            return real(*args, **kwargs)
        return call


@pytest.fixture
def power(monkeypatch):
    return Power(monkeypatch)


def filled(store):
    folder = store.begin(SNAPSHOT, 'host-a')
    samples.fill(folder, 'alpha')
    samples.fill(folder, 'beta')


def until_done(power, make_store, arrange, act, check):
    """Run ``act`` killed before its first, second, … change, until it comes to its end."""
    for step in range(500):
        store = make_store(step)
        arrange(store)
        power.log.clear()
        power.kill_before = step
        try:
            act(store)
        except Killed:
            power.kill_before = None
            check(local.LocalStore(store.root), killed=True)
        else:
            power.kill_before = None
            check(store, killed=False)
            return step
    raise AssertionError('never came to an end')


def test_publish_killed_before_any_change_leaves_all_or_nothing(tmp_path, power):
    def check(store, killed):
        if store.list():
            store.verify(SNAPSHOT)
        else:
            assert killed
            assert [d.snapshot_id for d in store.drafts()] == [SNAPSHOT]
        store.publish(SNAPSHOT, samples.manifest())
        store.verify(SNAPSHOT)
        assert store.drafts() == ()

    steps = until_done(
        power, lambda step: local.LocalStore(str(tmp_path / str(step))), filled,
        lambda store: store.publish(SNAPSHOT, samples.manifest()), check)

    assert steps > 20


def test_draft_killed_while_published_can_still_be_discarded(tmp_path, power):
    def check(store, killed):
        store.discard(SNAPSHOT, 'host-a')
        store.sweep()
        assert store.drafts() == ()
        if not store.list():
            assert os.listdir(os.path.join(store.root, '.drafts')) == []
            store.begin(SNAPSHOT, 'host-a')

    until_done(power, lambda step: local.LocalStore(str(tmp_path / str(step))), filled,
               lambda store: store.publish(SNAPSHOT, samples.manifest()), check)


def test_delete_killed_before_any_change_leaves_all_or_nothing(tmp_path, power):
    def check(store, killed):
        if store.list():
            assert killed
            store.verify(SNAPSHOT)
        store.sweep()
        store.delete(SNAPSHOT)
        assert store.list() == ()
        assert os.listdir(os.path.join(store.root, '.trash')) == []

    until_done(power, lambda step: local.LocalStore(str(tmp_path / str(step))), samples.publish,
               lambda store: store.delete(SNAPSHOT), check)


def test_every_file_and_folder_is_on_the_disk_before_the_last_rename(store, power):
    filled(store)
    power.log.clear()

    store.publish(SNAPSHOT, samples.manifest())

    final = next(i for i, entry in enumerate(power.log)
                 if entry[0] == 'rename' and entry[2] == store._place(SNAPSHOT))
    synced = [pathlib.Path(entry[1]) for entry in power.log[:final] if entry[0] == 'fsync']
    for member, files in samples.CONTENT.items():
        for name in files:
            assert any(path.parts[-2:] == (member, name) for path in synced), name
        assert any(path.name == member for path in synced)
    assert any(path.name.startswith('manifest.json') for path in synced)
    whole = [i for i, entry in enumerate(power.log[:final])
             if entry[0] == 'fsync' and entry[1].endswith('.whole')]
    manifest_named = max(i for i, entry in enumerate(power.log[:final])
                         if entry[0] == 'rename' and entry[2].endswith('manifest.json'))
    assert max(whole) > manifest_named
    assert any(entry[:2] == ('fsync', store.root) for entry in power.log[final:])


def test_hosts_publishing_at_once_publish_one_whole(store):
    told = samples.manifest(hosts=('host-a', 'host-b'))
    failures = []

    def run(other):
        try:
            local.LocalStore(store.root).publish(f's{other}', {**told, 'snapshot_id': f's{other}'})
        except BaseException as exc:
            failures.append(exc)

    for round_number in range(10):
        samples.fill(store.begin(f's{round_number}', 'host-a'), 'alpha')
        samples.fill(store.begin(f's{round_number}', 'host-b'), 'beta')
        threads = [threading.Thread(target=run, args=(round_number,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        store.verify(f's{round_number}')

    assert failures == []
    assert store.drafts() == ()


@pytest.mark.parametrize('at', ['file', 'member', 'snapshot', 'manifest'])
def test_a_symbolic_link_is_never_followed(store, tmp_path, at):
    samples.publish(store)
    place = {'file': published(store, 'alpha', 'memory.save'),
             'member': published(store, 'alpha'), 'snapshot': published(store),
             'manifest': published(store, 'manifest.json')}[at]
    place.rename(tmp_path / 'real')
    place.symlink_to(tmp_path / 'real')

    with pytest.raises(exception.HotsnapError):
        store.verify(SNAPSHOT)
    with pytest.raises(exception.HotsnapError):
        store.path(SNAPSHOT, 'alpha', 'memory.save')


def test_a_link_in_a_draft_is_not_published(store, tmp_path):
    filled(store)
    secret = tmp_path / 'secret'
    secret.write_bytes(b'x')
    os.chmod(secret, 0o644)
    os.symlink(secret, os.path.join(store.root, '.drafts', SNAPSHOT, 'host-a', 'alpha', 'link'))

    with pytest.raises(exception.HotsnapError):
        store.publish(SNAPSHOT, samples.manifest())

    assert store.list() == ()
    assert secret.stat().st_mode & 0o777 == 0o644


def test_a_pipe_in_place_of_a_file_does_not_block(store):
    samples.publish(store)
    place = published(store, 'alpha', 'memory.save')
    place.unlink()
    os.mkfifo(place)

    with pytest.raises(exception.SnapshotDamaged, match='no regular file'):
        store.verify(SNAPSHOT)
    with pytest.raises(exception.SnapshotDamaged, match='no regular file'):
        store.path(SNAPSHOT, 'alpha', 'memory.save')


def test_what_is_no_file_in_a_draft_is_neither_touched_nor_published(store):
    filled(store)
    pipe = os.path.join(store.root, '.drafts', SNAPSHOT, 'host-a', 'alpha', 'pipe')
    os.mkfifo(pipe, 0o640)

    with pytest.raises(exception.HotsnapError):
        store.publish(SNAPSHOT, samples.manifest())

    assert store.list() == ()
    assert os.stat(pipe).st_mode & 0o777 == 0o640


def test_a_draft_left_after_publishing_is_swept(store, power):
    filled(store)
    power.log.clear()
    store.publish(SNAPSHOT, samples.manifest())
    final = next(i for i, entry in enumerate(power.log)
                 if entry[0] == 'rename' and entry[2] == store._place(SNAPSHOT))
    store.delete(SNAPSHOT)
    filled(store)
    power.log.clear()
    power.kill_before = final + 1
    with pytest.raises(Killed):
        store.publish(SNAPSHOT, samples.manifest())
    power.kill_before = None
    assert store.list() == (SNAPSHOT,)
    assert len(store.drafts()) == 1

    store.sweep()

    assert store.drafts() == ()
    store.verify(SNAPSHOT)


def test_every_changed_byte_of_the_manifest_is_noticed(store):
    samples.publish(store)
    place = published(store, 'manifest.json')
    good = place.read_bytes()

    for position in range(0, len(good), 7):
        bad = bytearray(good)
        bad[position] ^= 0x11
        place.write_bytes(bad)
        try:
            unchanged = json.loads(bad) == json.loads(good)
        except ValueError:
            unchanged = False
        if not unchanged:
            with pytest.raises((exception.ManifestDamaged, exception.ManifestTooNew)):
                store.load(SNAPSHOT)


def test_a_manifest_that_is_gone_is_damage_and_the_snapshot_stays_listed(store):
    samples.publish(store)
    published(store, 'manifest.json').unlink()

    with pytest.raises(exception.ManifestDamaged, match='No such file'):
        store.load(SNAPSHOT)
    assert store.list() == (SNAPSHOT,)
    assert store.delete(SNAPSHOT)


def test_a_surplus_folder_is_found(store):
    samples.publish(store)
    published(store, 'gamma').mkdir()

    with pytest.raises(exception.SnapshotDamaged, match='gamma'):
        store.verify(SNAPSHOT)


def sparse(path, size, data_at=(), data=b'\x5a' * 4096):
    with open(path, 'wb') as file:
        file.truncate(size)
        for position in data_at:
            file.seek(position)
            file.write(data)


def test_publishing_keeps_holes(store):
    folder = store.begin(SNAPSHOT, 'host-a')
    samples.fill(folder, 'beta')
    os.mkdir(os.path.join(folder, 'alpha'))
    size = 1 << 30
    path = os.path.join(folder, 'alpha', 'memory.save')
    sparse(path, size, [512 << 20])
    taken = os.stat(path).st_blocks
    with open(path, 'rb') as file:
        blake3 = digest.file_digest(file.fileno())
    told = samples.manifest()
    told['members'][0]['files'] = [{'name': 'memory.save', 'size_bytes': size, 'blake3': blake3}]
    told['members'][0]['disks'] = []

    store.publish(SNAPSHOT, told)

    assert published(store, 'alpha', 'memory.save').stat().st_blocks <= taken
    store.verify(SNAPSHOT)


def test_verifying_needs_memory_for_a_chunk_only(store):
    samples.publish(store)
    big = published(store, 'alpha', 'memory.save')
    big.write_bytes(os.urandom(16 * digest.CHUNK_BYTES))

    tracemalloc.start()
    with big.open('rb') as file:
        digest.file_digest(file.fileno())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 3 * digest.CHUNK_BYTES


def test_a_store_that_cannot_be_made_is_unavailable(tmp_path):
    (tmp_path / 'file').write_bytes(b'')

    with pytest.raises(exception.StoreUnavailable, match='file'):
        local.LocalStore(str(tmp_path / 'file'))
    with pytest.raises(exception.StoreUnavailable):
        local.LocalStore(str(tmp_path / 'no' / 'such' / 'parent'))


def test_a_full_file_system_is_told_in_one_line(store, monkeypatch):
    filled(store)

    def full(*_args):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(durable, 'write', full)

    with pytest.raises(exception.StoreUnavailable, match='full'):
        store.publish(SNAPSHOT, samples.manifest())
    assert store.list() == ()


def test_files_are_read_as_gently_as_the_store_is_told(store, monkeypatch):
    samples.publish(store)
    store.reading = digest.Reading(limit_bytes_s=1 << 40, direct=True)
    asked, real = [], digest.file_digest
    monkeypatch.setattr(digest, 'file_digest', lambda fd, on_bytes, reading: (
        asked.append(reading), real(fd, on_bytes, reading))[1])

    store.verify(SNAPSHOT)

    assert set(asked) == {store.reading}
