# SPDX-License-Identifier: Apache-2.0
"""What every store promises.

A snapshot is in a store whole or not at all. It grows as *drafts*, one a
host, which nobody but recovery sees; ``publish`` makes them the snapshot.

Hosts may share one store or have one each. The manifest always tells of all
members; ``kept_here`` in it names those whose files this store holds, which
are the members of the hosts that began a draft in it.

Every method may be repeated: the second time finds its work done.
"""

import abc
import dataclasses
import re
from collections.abc import Callable, Collection

from hotsnap_nova import exception
from hotsnap_nova.storage import digest

#: Ids and names become names of files; nothing in them may lead elsewhere.
#: (``$`` alone would let a newline follow.)
SAFE_NAME = r'^[A-Za-z0-9][A-Za-z0-9._@:+-]{0,200}$(?!\n)'

MANIFEST = 'manifest.json'


@dataclasses.dataclass(frozen=True)
class Draft:
    """One host's unpublished part of a snapshot.

    :ivar data_bytes: space it takes
    :ivar changed_at: seconds since 1970, of its last change
    """

    snapshot_id: str
    host: str
    data_bytes: int
    changed_at: float


@dataclasses.dataclass(frozen=True)
class Verified:
    """What a verification went through and found to be right."""

    files: int
    size_bytes: int


#: Called with (member, file, done_bytes, total_bytes) of the whole verification.
OnProgress = Callable[[str, str, int, int], None]


class Store(abc.ABC):
    """Keeps snapshots.

    :ivar reading: how files are read to compute their digests
    :ivar root: the folder in which all of it is; None: there is none
    """

    root: str | None = None

    reading = digest.Reading()

    @abc.abstractmethod
    def begin(self, snapshot_id: str, host: str) -> str:
        """Path of an existing, private folder for ``host``'s part.

        Files go to ``<folder>/<member id>/<file>``.

        :raises SnapshotBusy: it is published already
        :raises InvalidValue: an id that cannot be a file's name
        :raises StoreUnavailable: the store cannot be written
        """

    @abc.abstractmethod
    def sync(self, snapshot_id: str, host: str) -> None:
        """Have ``host``'s part survive a loss of power.

        :raises StoreUnavailable: it may not
        """

    @abc.abstractmethod
    def publish(self, snapshot_id: str, manifest: dict) -> None:
        """Make the drafts begun in this store the snapshot, durably.

        All hosts' files are complete before the first host publishes. Where
        hosts share the store the first to come publishes for all.

        :raises SnapshotDamaged: a file of the manifest is missing or has
            another size; the drafts stay as they are
        :raises SnapshotNotFound: nothing was begun here
        :raises SnapshotBusy: it is published with another manifest
        :raises Bug: the manifest is not valid
        """

    @abc.abstractmethod
    def discard(self, snapshot_id: str, host: str) -> bool:
        """Remove ``host``'s draft; whether there was one. Published stays."""

    @abc.abstractmethod
    def delete(self, snapshot_id: str) -> bool:
        """Remove the published snapshot; whether there was one."""

    @abc.abstractmethod
    def list(self) -> tuple[str, ...]:
        """Ids of the published snapshots, sorted, damaged ones included."""

    @abc.abstractmethod
    def load(self, snapshot_id: str) -> dict:
        """The manifest.

        :raises SnapshotNotFound: it is not published
        :raises ManifestDamaged: it is not what was written
        :raises ManifestTooNew: a newer version of this software wrote it
        """

    @abc.abstractmethod
    def path(self, snapshot_id: str, member: str, file: str) -> str:
        """Where on this host the file can be read; treat it as read-only.

        :raises SnapshotDamaged: missing, or no regular file
        """

    @abc.abstractmethod
    def verify(self, snapshot_id: str, on_progress: OnProgress | None = None,
               only: Collection[str] | None = None, manifest: dict | None = None) -> Verified:
        """Read everything kept here and compare it with the manifest.

        What is missing, surplus or of another size is found before any digest
        is computed.

        :param only: compute the digests of these members' files alone, by id, for other hosts
            that share the store see to theirs; None: of all
        :param manifest: what `load` gave, which may be another by now; None: loaded
        :raises SnapshotDamaged: names the first member and file that differ
        :raises ManifestDamaged, ManifestTooNew, SnapshotNotFound: as ``load``
        """

    @abc.abstractmethod
    def drafts(self) -> tuple[Draft, ...]:
        """What is unpublished, for recovery to finish or discard."""

    @abc.abstractmethod
    def sweep(self) -> int:
        """Finish deletions that a crash interrupted; how many there were."""

    @abc.abstractmethod
    def free_bytes(self) -> int:
        """Bytes that drafts may still grow by."""


def check_name(name: str, what: str) -> str:
    """``name``, if it can be a file's name and nothing else.

    :raises InvalidValue:
    """
    if not isinstance(name, str) or not re.search(SAFE_NAME, name):
        raise exception.InvalidValue(name=what, reason=f'{name!r} cannot be the name of a file')
    return name
