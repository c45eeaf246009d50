# SPDX-License-Identifier: Apache-2.0
"""Whether what a store says of a snapshot is what its hosts told the coordinator of it."""

from collections.abc import Iterable, Mapping

from hotsnap_nova import exception, measurements
from hotsnap_nova.storage import base
from hotsnap_nova.storage import manifest as manifests


def must_hold(manifest: dict, proofs: Mapping[str, str]) -> None:
    """Return where the manifest says the same of all members kept with it.

    :param proofs: `measurements.proof` by member's id; of members that it has not, and of a
        version that is not known here, nothing is proved
    :raises SnapshotDamaged: names the first of which it says something else
    """
    for member in manifests.kept_members(manifest):
        wanted = proofs.get(member['id'], '')
        if wanted.partition(':')[0] == measurements.PROOF_VERSION and wanted != (
                measurements.proof(member, member['files'])):
            raise exception.SnapshotDamaged(
                snapshot=manifest['snapshot_id'], member=member['id'], file=base.MANIFEST,
                reason='it says of this member what was not said when the snapshot was made')


def must_name(manifest: dict, members: Iterable[str]) -> None:
    """Return where the store that the manifest came from keeps all these.

    :param members: ids
    :raises SnapshotDamaged: names the first that it does not keep
    """
    missing = set(members) - {member['id'] for member in manifests.kept_members(manifest)}
    if missing:
        raise exception.SnapshotDamaged(
            snapshot=manifest['snapshot_id'], member=min(missing), file=base.MANIFEST,
            reason='the host saved this member, and its store does not name it')
