# SPDX-License-Identifier: Apache-2.0
"""A store that is a folder; hosts may share it if it locks and renames as POSIX says.

::

    <store>/<snapshot id>/manifest.json          published: whole, or not there
    <store>/<snapshot id>/<member id>/<file>
    <store>/.drafts/<snapshot id>/<host>/<member id>/<file>
    <store>/.drafts/<snapshot id>/.whole         being put together by publish
    <store>/.trash/                              going away
    <store>/.lock                                held while a snapshot is put together

A member's files are where they will stay from the first byte: publishing
renames and never copies, so holes stay holes. The manifest is written after
every file is on the disk, and the last rename makes all of it visible.
"""

import contextlib
import errno
import fcntl
import os

from hotsnap_nova import exception
from hotsnap_nova.storage import base, durable, verification
from hotsnap_nova.storage import manifest as manifests

_WHOLE = '.whole'
#: A manifest of thousands of members stays far below it.
_MAX_MANIFEST_BYTES = 64 << 20


class LocalStore(base.Store):
    """See the module's and the base's words.

    :param path: folder, made if its parent exists
    """

    def __init__(self, path: str):
        self.root = os.path.realpath(path)
        self._drafts = os.path.join(self.root, '.drafts')
        self._trash = os.path.join(self.root, '.trash')
        with self._working():
            for folder in (self.root, self._drafts, self._trash):
                durable.make_folder(folder)

    # -- growing ---------------------------------------------------------------

    def begin(self, snapshot_id, host):
        base.check_name(host, 'host')
        draft = self._draft(snapshot_id)
        if durable.is_folder(self._place(snapshot_id)):
            raise exception.SnapshotBusy(snapshot=snapshot_id, status='published already')
        folder = os.path.join(draft, host)
        with self._working():
            durable.make_folder(draft)
            durable.make_folder(folder)
        return folder

    def sync(self, snapshot_id, host):
        base.check_name(host, 'host')
        with self._working():
            durable.sync_tree(os.path.join(self._draft(snapshot_id), host))

    def publish(self, snapshot_id, manifest):
        reason = manifests.fault(manifest)
        if reason or manifest['snapshot_id'] != snapshot_id:
            raise exception.Bug(reason=f'manifest: {reason or "of another snapshot"}')
        with self._working(), self._lock():
            # Another host that shares the store may have been quicker.
            if not self._published_as(snapshot_id, manifest):
                self._assemble(self._draft(snapshot_id), manifest)
                durable.rename(os.path.join(self._draft(snapshot_id), _WHOLE),
                               self._place(snapshot_id))
            self._forget_draft(snapshot_id)

    def _assemble(self, draft, manifest):
        """Bring the hosts' members together in one folder; goes on where a crash cut it off."""
        hosts = self._hosts(draft)
        kept = [member for member in manifest['members'] if member['host'] in hosts]
        if not kept:
            raise exception.SnapshotNotFound(snapshot=manifest['snapshot_id'])
        for host in hosts:
            durable.sync_tree(os.path.join(draft, host))
        whole = os.path.join(draft, _WHOLE)
        durable.make_folder(whole)
        for member in kept:
            source = os.path.join(draft, member['host'], member['id'])
            target = os.path.join(whole, member['id'])
            if not durable.is_folder(target):
                verification.compare_sizes(source, member, manifest['snapshot_id'])
                durable.rename(source, target)
        durable.write(os.path.join(whole, base.MANIFEST), manifests.dump(
            {**manifest, 'kept_here': [member['id'] for member in kept]}))

    def discard(self, snapshot_id, host):
        base.check_name(host, 'host')
        draft = self._draft(snapshot_id)
        with self._working():
            found = durable.remove(os.path.join(draft, host), self._trash)
            durable.remove(os.path.join(draft, _WHOLE), self._trash)
            with contextlib.suppress(OSError):    # other hosts' drafts are still in it
                os.rmdir(draft)
        return found

    def drafts(self):
        with self._working():
            return tuple(
                base.Draft(snapshot_id, host, *_extent(os.path.join(self._drafts, snapshot_id,
                                                                    host)))
                for snapshot_id in sorted(os.listdir(self._drafts))
                for host in self._hosts(os.path.join(self._drafts, snapshot_id)))

    # -- grown -----------------------------------------------------------------

    def list(self):
        with self._working(), os.scandir(self.root) as entries:
            return tuple(sorted(
                entry.name for entry in entries
                if not entry.name.startswith('.') and entry.is_dir(follow_symlinks=False)))

    def load(self, snapshot_id):
        folder = self._place(snapshot_id)
        if not durable.is_folder(folder):
            raise exception.SnapshotNotFound(snapshot=snapshot_id)
        try:
            with verification.open_regular(folder, base.MANIFEST) as fd:
                content = os.read(fd, _MAX_MANIFEST_BYTES)
        except OSError as exc:
            raise exception.ManifestDamaged(snapshot=snapshot_id, reason=exc.strerror) from exc
        return manifests.load(content, snapshot_id)

    def path(self, snapshot_id, member, file):
        found = [
            entry for kept in manifests.kept_members(self.load(snapshot_id))
            if kept['id'] == member for entry in kept['files'] if entry['name'] == file]
        folder = self._place(snapshot_id)
        if not found:
            reason = 'this store does not have it'
        else:
            try:
                with verification.open_regular(folder, member, file):
                    return os.path.join(folder, member, file)
            except OSError as exc:
                reason = exc.strerror
        raise exception.SnapshotDamaged(
            snapshot=snapshot_id, member=member, file=file, reason=reason)

    def verify(self, snapshot_id, on_progress=None, only=None, manifest=None):
        manifest = manifest or self.load(snapshot_id)
        return verification.verify(self._place(snapshot_id), manifest, on_progress, only,
                                   self.reading)

    def delete(self, snapshot_id):
        with self._working():
            return durable.remove(self._place(snapshot_id), self._trash)

    def sweep(self):
        with self._working():
            for snapshot_id in os.listdir(self._drafts):
                if durable.is_folder(self._place(snapshot_id)):
                    self._forget_draft(snapshot_id)
            return durable.empty(self._trash)

    def free_bytes(self):
        with self._working():
            state = os.statvfs(self.root)
        return state.f_bavail * state.f_frsize

    # -- inside ----------------------------------------------------------------

    def _place(self, snapshot_id):
        return os.path.join(self.root, base.check_name(snapshot_id, 'snapshot'))

    def _draft(self, snapshot_id):
        return os.path.join(self._drafts, base.check_name(snapshot_id, 'snapshot'))

    def _hosts(self, draft):
        try:
            names = os.listdir(draft)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name for name in names if name != _WHOLE)

    def _published_as(self, snapshot_id, manifest):
        """Whether exactly this snapshot is published.

        :raises SnapshotBusy: another has its id
        """
        if not durable.is_folder(self._place(snapshot_id)):
            return False
        if not manifests.same(self.load(snapshot_id), manifest):
            raise exception.SnapshotBusy(
                snapshot=snapshot_id, status='published with another manifest')
        return True

    def _forget_draft(self, snapshot_id):
        durable.remove(self._draft(snapshot_id), self._trash)

    @contextlib.contextmanager
    def _lock(self):
        """Between hosts and processes; the kernel lets go when its holder dies."""
        fd = os.open(os.path.join(self.root, '.lock'),
                     os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, durable.FILE_MODE)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def _working(self):
        """Tell the operator what the file system says."""
        try:
            yield
        except OSError as exc:
            reason = exc.strerror or str(exc)
            if exc.errno == errno.ENOSPC:
                reason = 'the file system is full'
            place = f' ({exc.filename})' if exc.filename else ''
            raise exception.StoreUnavailable(store=self.root, reason=reason + place) from exc


def _extent(folder):
    """(bytes taken, time of the last change) of a folder's files."""
    taken, changed = 0, 0.0
    with contextlib.suppress(FileNotFoundError):    # it is being published or discarded
        changed = os.stat(folder).st_mtime
        for _, _, files, folder_fd in os.fwalk(folder):
            for name in files:
                status = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
                taken += status.st_blocks * 512
                changed = max(changed, status.st_mtime)
    return taken, changed
