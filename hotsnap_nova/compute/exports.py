# SPDX-License-Identifier: Apache-2.0
"""What a host keeps of a snapshot, as files for plain ``virsh restore --xml``.

Asked by who sits at the host, and not over the bus: it writes where it is told.
"""

import os
import shutil
from collections.abc import Mapping

from hotsnap_nova import exception
from hotsnap_nova.compute import proofs as proof
from hotsnap_nova.storage import base
from hotsnap_nova.storage import manifest as manifests

#: Who starts the exported guests comes through, and sees no name.
_FOLDER_MODE = 0o711


def export(store: base.Store, engine, snapshot: str, folder: str,
           proofs: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Paths by what they are, by member's name.

    :param folder: made for it; what is in its way stays as it is
    :param proofs: of `compute.proofs`; empty: what the store says is believed
    :raises InvalidValue: it cannot be made
    :raises SnapshotDamaged, ManifestDamaged, TargetFailed: nothing is left of it
    """
    manifest = store.load(snapshot)
    proof.must_hold(manifest, proofs)
    store.verify(snapshot, manifest=manifest)
    try:
        os.mkdir(folder, 0o700)
    except OSError as exc:
        raise exception.InvalidValue(
            name='folder', reason=f'{folder} cannot be made: {exc.strerror}; name a new one in a '
            'folder that is there') from exc
    try:
        exported = {}
        for member in manifests.kept_members(manifest):
            kept = os.path.dirname(
                store.path(snapshot, member['id'], member['files'][0]['name']))
            exported[member['name']] = engine.export(
                kept, {**member, 'member': member['id']}, folder)
        os.chmod(folder, _FOLDER_MODE)
        return exported
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
