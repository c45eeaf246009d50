# SPDX-License-Identifier: Apache-2.0
"""What every store must pass: subclass StoreSuite and give it fixture ``store``.

A subclass also says how its published things get damaged: ``overwrite``,
``remove`` and ``add`` act on a published file behind the store's back.
"""

import os
import pathlib

import pytest

from hotsnap_nova import exception
from tests.unit.storage import samples
from tests.unit.storage.samples import SNAPSHOT

HOSTILE_NAMES = ['', '.', '..', '../x', 'a/b', '/etc', '.hidden', 'a\0b', 'a b', 'x' * 300, 'é',
                 'ok\n', '.drafts', None, 7]


class StoreSuite:
    """The promises of ``storage.base.Store``, one a test.

    Each store says below how to damage what it keeps: a store's own class has no such thing.
    """

    def overwrite(self, store, snapshot_id, member, file, content):
        raise NotImplementedError

    def remove(self, store, snapshot_id, member, file):
        raise NotImplementedError

    def add(self, store, snapshot_id, member, file):
        raise NotImplementedError

    def test_published_snapshot_is_listed_loaded_and_verified(self, store):
        told = samples.publish(store)

        verified = store.verify(SNAPSHOT)

        assert store.list() == (SNAPSHOT,)
        loaded = store.load(SNAPSHOT)
        assert loaded.pop('kept_here') == ['alpha', 'beta']
        assert loaded == told
        sizes = [len(c) for files in samples.CONTENT.values() for c in files.values()]
        assert (verified.files, verified.size_bytes) == (len(sizes), sum(sizes))

    def test_published_files_read_back_byte_for_byte(self, store):
        samples.publish(store)

        for member, files in samples.CONTENT.items():
            for name, content in files.items():
                assert pathlib.Path(store.path(SNAPSHOT, member, name)).read_bytes() == content

    def test_draft_is_invisible_until_published(self, store):
        samples.fill(store.begin(SNAPSHOT, 'host-a'), 'alpha')

        assert store.list() == ()
        with pytest.raises(exception.SnapshotNotFound):
            store.load(SNAPSHOT)
        with pytest.raises(exception.SnapshotNotFound):
            store.verify(SNAPSHOT)
        assert [(d.snapshot_id, d.host) for d in store.drafts()] == [(SNAPSHOT, 'host-a')]
        assert store.drafts()[0].data_bytes >= len(samples.CONTENT['alpha']['memory.save'])

    def test_published_snapshot_leaves_no_draft(self, store):
        samples.publish(store)

        assert store.drafts() == ()
        assert store.sweep() == 0

    def test_draft_folder_is_private(self, store):
        folder = store.begin(SNAPSHOT, 'host-a')

        assert os.stat(folder).st_mode & 0o777 == 0o700

    def test_beginning_twice_gives_the_same_folder_and_keeps_its_files(self, store):
        folder = store.begin(SNAPSHOT, 'host-a')
        samples.fill(folder, 'alpha')

        assert store.begin(SNAPSHOT, 'host-a') == folder
        assert os.listdir(folder) == ['alpha']

    def test_beginning_what_is_published_is_refused(self, store):
        samples.publish(store)

        with pytest.raises(exception.SnapshotBusy):
            store.begin(SNAPSHOT, 'host-a')

    def test_publishing_twice_is_once(self, store):
        told = samples.publish(store)

        store.publish(SNAPSHOT, told)

        assert store.list() == (SNAPSHOT,)

    def test_publishing_another_manifest_over_a_snapshot_is_refused(self, store):
        told = samples.publish(store)

        with pytest.raises(exception.SnapshotBusy):
            store.publish(SNAPSHOT, {**told, 'epoch': 4})
        assert store.load(SNAPSHOT)['epoch'] == 3

    def test_publishing_what_was_never_begun_is_refused(self, store):
        with pytest.raises(exception.SnapshotNotFound):
            store.publish(SNAPSHOT, samples.manifest())
        assert store.list() == ()

    def test_publishing_a_draft_without_all_files_is_refused(self, store):
        folder = store.begin(SNAPSHOT, 'host-a')
        samples.fill(folder, 'alpha')

        with pytest.raises(exception.SnapshotDamaged, match='beta'):
            store.publish(SNAPSHOT, samples.manifest())
        assert store.list() == ()
        assert [d.snapshot_id for d in store.drafts()] == [SNAPSHOT]

        samples.fill(folder, 'beta')
        store.publish(SNAPSHOT, samples.manifest())
        store.verify(SNAPSHOT)

    def test_publishing_a_file_cut_short_is_refused(self, store):
        folder = store.begin(SNAPSHOT, 'host-a')
        samples.fill(folder, 'alpha')
        samples.fill(folder, 'beta')
        os.truncate(os.path.join(folder, 'beta', 'memory.save'), 19_999)

        with pytest.raises(exception.SnapshotDamaged, match=r'beta.*memory\.save.*19999'):
            store.publish(SNAPSHOT, samples.manifest())
        assert store.list() == ()

    def test_publishing_an_invalid_manifest_is_our_bug(self, store):
        samples.fill(store.begin(SNAPSHOT, 'host-a'), 'alpha')

        with pytest.raises(exception.Bug):
            store.publish(SNAPSHOT, {**samples.manifest(), 'gate': 'open'})
        with pytest.raises(exception.Bug):
            store.publish(SNAPSHOT, samples.manifest('another'))

    def test_two_hosts_that_share_the_store_publish_one_snapshot(self, store):
        told = samples.manifest(hosts=('host-a', 'host-b'))
        samples.fill(store.begin(SNAPSHOT, 'host-a'), 'alpha')
        samples.fill(store.begin(SNAPSHOT, 'host-b'), 'beta')

        store.publish(SNAPSHOT, told)
        store.publish(SNAPSHOT, told)

        assert store.load(SNAPSHOT)['kept_here'] == ['alpha', 'beta']
        store.verify(SNAPSHOT)

    def test_a_store_of_one_host_keeps_that_hosts_members_and_tells_of_all(self, store):
        samples.fill(store.begin(SNAPSHOT, 'host-b'), 'beta')

        store.publish(SNAPSHOT, samples.manifest(hosts=('host-a', 'host-b')))

        loaded = store.load(SNAPSHOT)
        assert loaded['kept_here'] == ['beta']
        assert [member['id'] for member in loaded['members']] == ['alpha', 'beta']
        assert store.verify(SNAPSHOT).files == 3
        with pytest.raises(exception.SnapshotDamaged, match='alpha'):
            store.path(SNAPSHOT, 'alpha', 'memory.save')

    def test_discarding_removes_one_hosts_draft_only(self, store):
        samples.fill(store.begin(SNAPSHOT, 'host-a'), 'alpha')
        samples.fill(store.begin(SNAPSHOT, 'host-b'), 'beta')

        assert store.discard(SNAPSHOT, 'host-a') is True

        assert [d.host for d in store.drafts()] == ['host-b']

    def test_discarding_nothing_is_harmless(self, store):
        assert store.discard(SNAPSHOT, 'host-a') is False
        store.begin(SNAPSHOT, 'host-a')

        assert store.discard(SNAPSHOT, 'host-a') is True
        assert store.discard(SNAPSHOT, 'host-a') is False
        assert store.drafts() == ()

    def test_discarding_leaves_what_is_published(self, store):
        samples.publish(store)

        assert store.discard(SNAPSHOT, 'host-a') is False

        store.verify(SNAPSHOT)

    def test_deleting_removes_the_snapshot_once(self, store):
        samples.publish(store)
        samples.publish(store, 'other')

        assert store.delete(SNAPSHOT) is True
        assert store.delete(SNAPSHOT) is False

        assert store.list() == ('other',)
        store.verify('other')

    def test_deleting_leaves_a_draft(self, store):
        store.begin(SNAPSHOT, 'host-a')

        assert store.delete(SNAPSHOT) is False

        assert len(store.drafts()) == 1

    @pytest.mark.parametrize(('member', 'file'), [
        ('alpha', 'memory.save'), ('beta', 'vda.qcow2'), ('alpha', 'domain.xml')])
    def test_one_changed_byte_is_found_and_named(self, store, member, file):
        samples.publish(store)
        content = bytearray(samples.CONTENT[member][file])
        content[len(content) // 2] ^= 1
        self.overwrite(store, SNAPSHOT, member, file, bytes(content))

        with pytest.raises(exception.SnapshotDamaged) as caught:
            store.verify(SNAPSHOT)
        assert f'member {member}, file {file}:' in str(caught.value)

    def test_a_file_of_another_size_is_found_before_any_digest(self, store):
        samples.publish(store)
        self.overwrite(store, SNAPSHOT, 'beta', 'memory.save', b'short')
        seen = []

        with pytest.raises(exception.SnapshotDamaged, match=r'beta.*memory\.save.*5 bytes'):
            store.verify(SNAPSHOT, lambda *progress: seen.append(progress))
        assert seen == []

    def test_one_hosts_members_alone_are_read_where_it_is_asked_for(self, store):
        samples.publish(store)
        content = samples.CONTENT['beta']['memory.save']
        self.overwrite(store, SNAPSHOT, 'beta', 'memory.save', b'B' + content[1:])

        assert store.verify(SNAPSHOT, only={'alpha'}).files == len(samples.CONTENT['alpha'])
        with pytest.raises(exception.SnapshotDamaged, match='beta'):
            store.verify(SNAPSHOT, only={'beta'})
        self.remove(store, SNAPSHOT, 'beta', 'vda.qcow2')
        with pytest.raises(exception.SnapshotDamaged, match='beta'):
            store.verify(SNAPSHOT, only={'alpha'})

    def test_a_missing_file_is_found_and_named(self, store):
        samples.publish(store)
        self.remove(store, SNAPSHOT, 'beta', 'vda.qcow2')

        with pytest.raises(exception.SnapshotDamaged, match=r'beta.*vda\.qcow2.*missing'):
            store.verify(SNAPSHOT)
        with pytest.raises(exception.SnapshotDamaged, match=r'beta.*vda\.qcow2'):
            store.path(SNAPSHOT, 'beta', 'vda.qcow2')

    def test_a_surplus_file_is_found_and_named(self, store):
        samples.publish(store)
        self.add(store, SNAPSHOT, 'alpha', 'vdb.qcow2')

        with pytest.raises(exception.SnapshotDamaged, match=r'alpha.*vdb\.qcow2'):
            store.verify(SNAPSHOT)

    def test_progress_grows_by_file_up_to_the_whole(self, store):
        samples.publish(store)
        seen = []

        verified = store.verify(SNAPSHOT, lambda *progress: seen.append(progress))

        assert [done for _, _, done, _ in seen] == sorted(done for _, _, done, _ in seen)
        assert seen[-1][2:] == (verified.size_bytes, verified.size_bytes)
        assert {member for member, *_ in seen} == {'alpha', 'beta'}

    def test_what_progress_raises_ends_the_verification(self, store):
        samples.publish(store)

        def stop(*_progress):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            store.verify(SNAPSHOT, stop)

    @pytest.mark.parametrize('name', HOSTILE_NAMES, ids=repr)
    def test_a_name_that_leads_elsewhere_is_refused(self, store, name):
        for attempt in (lambda: store.begin(name, 'host-a'),
                        lambda: store.begin(SNAPSHOT, name),
                        lambda: store.discard(name, 'host-a'),
                        lambda: store.discard(SNAPSHOT, name),
                        lambda: store.delete(name),
                        lambda: store.load(name),
                        lambda: store.verify(name)):
            with pytest.raises(exception.InvalidValue):
                attempt()

    def test_a_file_the_manifest_does_not_know_has_no_path(self, store):
        samples.publish(store)

        for member, file in (('alpha', '../../other'), ('alpha', 'x'), ('gamma', 'memory.save')):
            with pytest.raises(exception.SnapshotDamaged):
                store.path(SNAPSHOT, member, file)

    def test_free_space_is_told(self, store):
        assert store.free_bytes() > 0
