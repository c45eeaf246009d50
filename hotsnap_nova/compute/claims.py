# SPDX-License-Identifier: Apache-2.0
"""Which guests are locked, and for which snapshot or restore."""

from collections.abc import Iterable

from hotsnap_nova.compute import locks
from hotsnap_nova.protocol import messages


class Claims:
    """Locks of guests by the id of what they are locked for.

    :param domain_locks: shared by all who work with these guests
    """

    def __init__(self, domain_locks: locks.Locks):
        self._locks = domain_locks
        self._locked: dict[str, set[str]] = {}

    def lock(self, claim: str, members: Iterable[messages.Member]) -> frozenset[str]:
        """Ids of those of the members that are this claim's, now or already."""
        mine = self._locked.setdefault(claim, set())
        mine |= {member.id for member in members
                 if member.id not in mine and self._locks.take(f'domain-{member.id}')}
        return frozenset(mine.intersection(member.id for member in members))

    def unlock(self, claim: str) -> None:
        """Let go of all that is this claim's."""
        for member_id in self._locked.pop(claim, ()):
            self._locks.release(f'domain-{member_id}')

    def holds(self, claim: str, member_id: str) -> bool:
        """Whether this guest is locked for it."""
        return member_id in self._locked.get(claim, ())
