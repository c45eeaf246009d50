# SPDX-License-Identifier: Apache-2.0
"""What a restored guest is started with, and who says so.

Whoever defines guests says it: libvirt's own definition, or XML made anew by
Nova. A guest's hardware is the cut's all the same: see `definition`.
"""


class Definitions:
    """Libvirt's: nobody else defines guests. With OpenStack, `nova.definitions`."""

    def xml(self, _member_id: str) -> str | None:
        """What the guest is to be started with; None: what libvirt has defined.

        :raises HotsnapError: there is no such thing
        """
        return None

    def stopped(self, _member_id: str) -> None:
        """The old guest is proved stopped: its ports go."""

    def starting(self, _member_id: str) -> None:
        """Return when its ports are there."""
