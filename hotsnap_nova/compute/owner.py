# SPDX-License-Identifier: Apache-2.0
"""Who owns the guests besides libvirt, and is asked before they are touched.

The locks of guests (`locks`) exclude others of us; an owner excludes its own
work on a guest, and tells its users what we do with it. A claim is named by
the id of a snapshot or of a restore.
"""

from collections.abc import Collection, Mapping

from hotsnap_nova.virt import records


class Owner:
    """Nobody: guests that libvirt alone knows. With OpenStack, `nova.instances.Instances`."""

    def begin_snapshot(self, claim: str, members: tuple[records.MemberSpec, ...],
                       caller: dict) -> None:
        """Claim these guests for a snapshot; repeating it is harmless.

        :param caller: ``{'user_id', 'project_id', 'request_id'}``, or empty
        :raises HotsnapError: why a guest cannot be had; none is claimed
        """

    def begin_restore(self, claim: str, members: tuple[records.MemberSpec, ...],
                      caller: dict) -> None:
        """Claim these guests for a restore; repeating it is harmless.

        :raises HotsnapError: why a guest cannot be had; none is claimed
        """

    def gone(self, _member_ids: Collection[str]) -> frozenset[str]:
        """Ids of those guests that are not this host's any more: another's, or soon, or nobody's.

        :raises Unavailable: it cannot be known just now
        """
        return frozenset()

    def end(self, claim: str, error: str = '',
            faults: Mapping[str, str] | None = None) -> None:
        """Give back what was claimed, as it is now; of an unknown claim, nothing happens.

        :param error: why it failed; empty: it did not
        :param faults: why it failed for these members alone, by id
        :raises Unavailable: not all is given back; call again
        """
