# SPDX-License-Identifier: Apache-2.0
"""All a participant knows, as one value: its parts in snapshots and the ledger of epochs."""

import dataclasses

from hotsnap_nova.protocol.durable import Decided, Decision, Part, Phase
from hotsnap_nova.protocol.messages import Member, Work


@dataclasses.dataclass(frozen=True, slots=True)
class HostState:
    """``parts`` are of undecided snapshots; ``decided`` has the newest epoch of each member."""

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
        """The part forgotten, and the ledger raised."""
        parts = tuple(part for part in self.parts if part.snapshot != snapshot)
        ledger = {(row.group, row.member.id): row for row in self.decided}
        ledger |= {(row.group, row.member.id): row for row in rows}
        decided = tuple(row for _, row in sorted(ledger.items()))
        return dataclasses.replace(self, parts=parts, decided=decided)

    def rows_of(self, part: Part, decision: Decision) -> tuple[Decided, ...]:
        """What the ledger must learn from a decision: each member's epoch rises (rule 6)."""
        return tuple(
            Decided(part.work.group, member, part.epoch, part.snapshot, decision)
            for member in part.work.members
            if self.decided_epoch(part.work.group, member) < part.epoch
        )

    def decided_epoch(self, group: str, member: Member) -> int:
        """The newest epoch of the group that was decided for this member, or -1."""
        key = (group, member.id)
        epochs = (row.epoch for row in self.decided if (row.group, row.member.id) == key)
        return max(epochs, default=-1)

    def any_decided(self, epoch: int, work: Work) -> bool:
        return any(self.decided_epoch(work.group, m) >= epoch for m in work.members)

    def all_decided(self, epoch: int, work: Work) -> bool:
        return all(self.decided_epoch(work.group, m) >= epoch for m in work.members)

    def is_finished(self, snapshot: str) -> bool:
        return any(
            row.snapshot == snapshot and row.decision is Decision.FINISH for row in self.decided
        )

    def busy_member(self, work: Work) -> Member | None:
        """A member that another snapshot has locked; a spoiled part is clean and locks nothing."""
        holding = (part for part in self.parts if part.phase is not Phase.SPOILED)
        locked = {member.id for part in holding for member in part.work.members}
        return next((member for member in work.members if member.id in locked), None)
