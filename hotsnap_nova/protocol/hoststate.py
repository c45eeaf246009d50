# SPDX-License-Identifier: Apache-2.0
"""All a participant knows, as one value: its parts in snapshots, and the ledger of what was."""

import dataclasses
from collections.abc import Iterable

from hotsnap_nova.protocol.durable import Decided, Decision, Part, Phase
from hotsnap_nova.protocol.messages import Member, Work

KEPT = 2048
"""So many rows of the ledger are kept: messages do not linger for longer."""


def ledger(known: Iterable[Decided], rows: Iterable[Decided], kept: int = KEPT):
    """``known`` rows and ``rows`` behind them: a tuple, oldest first, no more than ``kept``.

    What goes first is what a newer epoch of its group and member stands for.
    """
    by_key = {(row.snapshot, row.member.id): row for row in known}
    for row in rows:
        by_key.pop((row.snapshot, row.member.id), None)
        by_key[row.snapshot, row.member.id] = row
    found = list(by_key.values())
    surplus = len(found) - kept
    if surplus <= 0:
        return tuple(found)
    newest = _newest_epochs(found)
    old = [row for row in found if row.epoch < newest[row.group, row.member.id]][:surplus]
    gone = {(row.snapshot, row.member.id) for row in old}
    return tuple(r for r in found if (r.snapshot, r.member.id) not in gone)[-kept:]


def _newest_epochs(rows):
    newest = {}
    for row in rows:
        key = (row.group, row.member.id)
        newest[key] = max(newest.get(key, -1), row.epoch)
    return newest


@dataclasses.dataclass(frozen=True, slots=True)
class HostState:
    """``parts`` are of undecided snapshots; ``decided`` is the `ledger` of those that were."""

    host: str
    parts: tuple[Part, ...] = ()
    decided: tuple[Decided, ...] = ()

    def part(self, snapshot: str) -> Part | None:
        return next((part for part in self.parts if part.snapshot == snapshot), None)

    def with_part(self, part: Part) -> "HostState":
        others = (other for other in self.parts if other.snapshot != part.snapshot)
        parts = sorted((*others, part), key=lambda each: each.snapshot)
        return dataclasses.replace(self, parts=tuple(parts))

    def with_decision(self, snapshot: str, rows: tuple[Decided, ...]) -> "HostState":
        """The part forgotten, and what became of it in the ledger."""
        parts = tuple(part for part in self.parts if part.snapshot != snapshot)
        return dataclasses.replace(self, parts=parts, decided=ledger(self.decided, rows))

    def rows_of(self, part: Part, decision: Decision) -> tuple[Decided, ...]:
        """What the ledger must learn from a decision: each member's epoch rises (rule 6)."""
        known = {row for row in self.decided if row.snapshot == part.snapshot}
        rows = (
            Decided(part.work.group, member, part.epoch, part.snapshot, decision)
            for member in part.work.members
        )
        return tuple(row for row in rows if row not in known)

    def is_past(self, epoch: int, work: Work) -> bool:
        """Whether this epoch of the group, or a newer, was decided for any of the members."""
        newest = _newest_epochs(self.decided)
        return any(newest.get((work.group, m.id), -1) >= epoch for m in work.members)

    def decision_of(self, snapshot: str) -> Decision | None:
        """How the snapshot ended here; None where that is not known."""
        rows = (row.decision for row in self.decided if row.snapshot == snapshot)
        return next(rows, None)

    def busy_member(self, work: Work) -> Member | None:
        """A member that another snapshot has locked; a spoiled part is clean and locks nothing."""
        holding = (part for part in self.parts if part.phase is not Phase.SPOILED)
        locked = {member.id for part in holding for member in part.work.members}
        return next((member for member in work.members if member.id in locked), None)
