# SPDX-License-Identifier: Apache-2.0
"""A store that keeps published snapshots in memory; drafts need a real folder."""

import os
import pathlib
import shutil
import tempfile

import blake3

from hotsnap_nova import exception
from hotsnap_nova.storage import base
from hotsnap_nova.storage import manifest as manifests


class MemoryStore(base.Store):
    """Passes the suite that real stores pass; forgets everything with its process."""

    def __init__(self, path=None):
        self._own = None if path else tempfile.TemporaryDirectory(prefix='hotsnap-fake-')
        self._folder = pathlib.Path(path or self._own.name)
        self.published = {}    # id → (manifest file, {(member, file): content})

    def begin(self, snapshot_id, host):
        self._check(snapshot_id, host)
        if snapshot_id in self.published:
            raise exception.SnapshotBusy(snapshot=snapshot_id, status='published already')
        folder = self._folder / 'drafts' / snapshot_id / host
        folder.mkdir(0o700, parents=True, exist_ok=True)
        return str(folder)

    def sync(self, snapshot_id, host):
        self._check(snapshot_id, host)

    def publish(self, snapshot_id, manifest):
        reason = manifests.fault(manifest)
        if reason or manifest['snapshot_id'] != snapshot_id:
            raise exception.Bug(reason=f'manifest: {reason}')
        if snapshot_id in self.published:
            if not manifests.same(self.load(snapshot_id), manifest):
                raise exception.SnapshotBusy(snapshot=snapshot_id, status='another')
            return
        draft = self._folder / 'drafts' / snapshot_id
        hosts = {path.name for path in draft.iterdir()} if draft.exists() else set()
        kept = [member for member in manifest['members'] if member['host'] in hosts]
        if not kept:
            raise exception.SnapshotNotFound(snapshot=snapshot_id)
        content = {}
        for member in kept:
            place = draft / member['host'] / member['id']
            found = {path.name: path.read_bytes() for path in place.iterdir()} \
                if place.exists() else {}
            content.update({(member['id'], name): data for name, data in found.items()})
        self._compare(snapshot_id, kept, content, digests=())
        told = {**manifest, 'kept_here': [member['id'] for member in kept]}
        self.published[snapshot_id] = (manifests.dump(told), content)
        shutil.rmtree(draft)

    def discard(self, snapshot_id, host):
        self._check(snapshot_id, host)
        folder = self._folder / 'drafts' / snapshot_id / host
        found = folder.exists()
        shutil.rmtree(folder, ignore_errors=True)
        return found

    def delete(self, snapshot_id):
        self._check(snapshot_id)
        return self.published.pop(snapshot_id, None) is not None

    def list(self):
        return tuple(sorted(self.published))

    def load(self, snapshot_id):
        self._check(snapshot_id)
        if snapshot_id not in self.published:
            raise exception.SnapshotNotFound(snapshot=snapshot_id)
        return manifests.load(self.published[snapshot_id][0], snapshot_id)

    def path(self, snapshot_id, member, file):
        self.load(snapshot_id)
        content = self.published[snapshot_id][1].get((member, file))
        if content is None:
            raise exception.SnapshotDamaged(
                snapshot=snapshot_id, member=member, file=file, reason='missing')
        place = self._folder / 'read' / snapshot_id / member
        place.mkdir(parents=True, exist_ok=True)
        (place / file).write_bytes(content)
        return str(place / file)

    def verify(self, snapshot_id, on_progress=None, only=None, manifest=None):
        members = manifests.kept_members(manifest or self.load(snapshot_id))
        if only is None:
            only = {member['id'] for member in members}
        return self._compare(snapshot_id, members, self.published[snapshot_id][1],
                             digests=only, on_progress=on_progress)

    def drafts(self):
        return tuple(
            base.Draft(host.parent.name, host.name,
                       sum(p.stat().st_size for p in host.rglob('*') if p.is_file()),
                       host.stat().st_mtime)
            for host in sorted(self._folder.glob('drafts/*/*')))

    def sweep(self):
        return 0

    def free_bytes(self):
        state = os.statvfs(self._folder)
        return state.f_bavail * state.f_frsize

    def _check(self, snapshot_id, host='host'):
        base.check_name(snapshot_id, 'snapshot')
        base.check_name(host, 'host')

    def _compare(self, snapshot_id, members, content, digests, on_progress=None):
        left, done = dict(content), 0
        wanted = [(member['id'], file) for member in members for file in member['files']]

        def damaged(member, file, reason):
            return exception.SnapshotDamaged(
                snapshot=snapshot_id, member=member, file=file, reason=reason)

        for member, file in wanted:
            data = left.pop((member, file['name']), None)
            if data is None:
                raise damaged(member, file['name'], 'missing')
            if len(data) != file['size_bytes']:
                raise damaged(member, file['name'], f'{len(data)} bytes')
        if left:
            raise damaged(*min(left), 'not in the manifest')
        read = [(member, file) for member, file in wanted if member in digests]
        total = sum(file['size_bytes'] for _, file in read)
        for member, file in read:
            data = content[member, file['name']]
            if blake3.blake3(data).hexdigest() != file['blake3']:
                raise damaged(member, file['name'], 'other content')
            done += len(data)
            if on_progress:
                on_progress(member, file['name'], done, total)
        return base.Verified(files=len(read), size_bytes=total)
