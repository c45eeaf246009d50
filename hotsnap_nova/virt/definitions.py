# SPDX-License-Identifier: Apache-2.0
"""What a restored guest is started with, and who says so.

Whoever defines guests says it: libvirt's own definition, or XML made anew by
Nova. A guest's hardware is the cut's all the same: see `definition`.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Volume:
    """A disk of a guest that belongs to a volume service.

    :ivar id: the service's
    :ivar kind: how it is reached: ``nfs``, ``rbd`` …
    :ivar serial: that the guest's disk has
    :ivar target: the disk's name: ``vdb``
    """

    id: str
    kind: str
    serial: str
    target: str


class Definitions:
    """Libvirt's: nobody else defines guests. With OpenStack, `nova.definitions`."""

    def xml(self, _member_id: str) -> str | None:
        """What the guest is to be started with; None: what libvirt has defined.

        :raises HotsnapError: there is no such thing
        """
        return None

    def volumes(self, _member_id: str) -> tuple[Volume, ...]:
        """What of the guest's disks is a volume service's.

        :raises HotsnapError: that cannot be known just now
        """
        return ()

    def addresses(self, _member_id: str) -> dict[str, tuple[str, ...]]:
        """IP addresses that the network has for the guest's NICs, by MAC, beside what the
        definition says.

        :raises HotsnapError: that cannot be known just now
        """
        return {}

    def dscp_policies(self, _member_id: str) -> tuple[tuple[str, str], ...]:
        """(MAC, policy's name) of each NIC whose packets the network gives a DSCP of its own.

        :raises HotsnapError: that cannot be known just now
        """
        return ()

    def stopped(self, _member_id: str) -> None:
        """The old guest is proved stopped: its ports go."""

    def starting(self, _member_id: str) -> None:
        """Return when its ports are there."""
