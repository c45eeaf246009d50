# SPDX-License-Identifier: Apache-2.0
"""Whether a folder holds what its manifest says: no less, no more, no other."""

import contextlib
import os
import stat
from collections.abc import Collection

from hotsnap_nova import exception
from hotsnap_nova.storage import base, digest
from hotsnap_nova.storage import manifest as manifests


@contextlib.contextmanager
def open_regular(folder: str, *names: str):
    """A descriptor to read a regular file in or below ``folder``.

    No link is followed, the folder's own name included, and no FIFO waited for.

    :raises OSError: with a one-line ``strerror``
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    fd = os.open(folder, flags | os.O_DIRECTORY)
    try:
        for name in names:
            parent, fd = fd, os.open(name, flags, dir_fd=fd)
            os.close(parent)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(0, 'no regular file')
        yield fd
    finally:
        os.close(fd)


def compare_sizes(folder: str, member: dict, snapshot_id: str) -> None:
    """Prove that a member's folder has exactly its files, each of its size.

    :raises SnapshotDamaged: names the first that is not so
    """
    def damaged(file, reason):
        return exception.SnapshotDamaged(
            snapshot=snapshot_id, member=member['id'], file=file, reason=reason)

    try:
        if not stat.S_ISDIR(os.lstat(folder).st_mode):
            raise damaged('(its folder)', 'no folder')
        with os.scandir(folder) as entries:
            found = {entry.name: entry.stat(follow_symlinks=False) for entry in entries}
    except OSError as exc:
        raise damaged('(its folder)', exc.strerror) from exc
    for file in member['files']:
        status = found.pop(file['name'], None)
        if status is None:
            raise damaged(file['name'], 'missing')
        if not stat.S_ISREG(status.st_mode):
            raise damaged(file['name'], 'no regular file')
        if status.st_size != file['size_bytes']:
            raise damaged(file['name'], f'{status.st_size} bytes instead of {file["size_bytes"]}')
    if found:
        raise damaged(min(found), 'not in the manifest')


def verify(folder: str, manifest: dict, on_progress: base.OnProgress | None,
           only: Collection[str] | None = None,
           reading: digest.Reading = base.Store.reading) -> base.Verified:
    """Compare a published snapshot's folder with its manifest, digests last.

    :param only: the digests of these members; None: of all
    :param reading: how
    :raises SnapshotDamaged: names the first member and file that differ
    """
    snapshot_id = manifest['snapshot_id']
    members = manifests.kept_members(manifest)
    surplus = set(os.listdir(folder)) - {base.MANIFEST} - {member['id'] for member in members}
    if surplus:
        raise exception.SnapshotDamaged(
            snapshot=snapshot_id, member='(none)', file=min(surplus), reason='not in the manifest')
    for member in members:
        compare_sizes(os.path.join(folder, member['id']), member, snapshot_id)

    if only is not None:
        members = [member for member in members if member['id'] in only]
    total = sum(file['size_bytes'] for member in members for file in member['files'])
    done = count = 0
    for member in members:
        for file in member['files']:
            def on_bytes(step, member=member['id'], name=file['name']):
                nonlocal done
                done += step
                if on_progress:
                    on_progress(member, name, done, total)

            _compare_digest(folder, member['id'], file, snapshot_id, on_bytes, reading)
            count += 1
    return base.Verified(files=count, size_bytes=total)


def _compare_digest(folder, member, file, snapshot_id, on_bytes, reading):
    try:
        with open_regular(folder, member, file['name']) as fd:
            found = digest.file_digest(fd, on_bytes, reading)
        reason = None if found == file['blake3'] else 'its content is not what was saved'
    except OSError as exc:
        reason = exc.strerror
    if reason:
        raise exception.SnapshotDamaged(
            snapshot=snapshot_id, member=member, file=file['name'], reason=reason)
