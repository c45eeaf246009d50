# SPDX-License-Identifier: Apache-2.0
"""What outlives a process: the coordinator's row in the database, the participant's journal."""

import dataclasses
import enum

from hotsnap_nova.protocol.messages import (
    Answer,
    Cause,
    Member,
    MemberProgress,
    Refused,
    Work,
)

_frozen = dataclasses.dataclass(frozen=True, slots=True)


class Decision(enum.StrEnum):
    """What the database says has been decided; the only truth after a restart."""

    NONE = "none"  # nothing yet: whoever finds this after a restart decides DISCARD
    RELEASE = "release"  # all recorded: gates may be opened
    FINISH = "finish"  # all saved: the snapshot is available, for ever
    DISCARD = "discard"  # it never was; only its row remains, with the cause


@_frozen
class Limits:
    """How long the coordinator waits. Guests' own limits are in `Work`, and kept by the hosts.

    ``absent_ms``: None where nobody would run an errand.
    """

    prepare_timeout_ms: int = 60_000
    record_timeout_ms: int = 1_000  # from the first Record; again for Release
    save_timeout_ms: int = 3_600_000
    repeat_ms: int = 1_000  # a request is repeated after this long without an answer
    urgent_repeat_ms: int = 50  # the same while gates are closed
    absent_ms: int | None = None  # once decided, so long a silent host is waited for
    decided_timeout_ms: int = 3_600_000  # the same for one that answers, but does not get done


@_frozen
class Snapshot:
    """The row of a group snapshot. ``hosts`` says what each host does; fixed at creation."""

    snapshot: str
    epoch: int
    hosts: tuple[tuple[str, Work], ...]
    limits: Limits = Limits()
    generation: int = 0
    decision: Decision = Decision.NONE
    closed: bool = False
    cause: Cause | None = None
    answers: tuple[Answer, ...] = ()
    absent: tuple[str, ...] = ()  # hosts that were left an errand, or knew nothing of it any more


class Phase(enum.StrEnum):
    """Where a host is with one snapshot.

    The ``-ING`` phases last while the engine works and end with its outcome. Where that is a
    failure the part is cleaned up at once, without waiting for anybody: the guest comes first.
    """

    PREPARING = "preparing"  # Prepare came, intent journalled: a stop may be ours
    PREPARED = "prepared"  # locks held, all is ready: waits for Record
    RECORDING = "recording"  # Record came; ends in RECORDED
    RECORDED = "recorded"  # all cut, gates closed: a lease runs
    RELEASING = "releasing"  # Release came in time; ends in RELEASED
    RELEASED = "released"  # gates open, the transient snapshot is kept
    SAVING = "saving"  # Save came; the engine works in the background; ends in KEEPING
    KEEPING = "keeping"  # all is stored, and that is being journalled; ends in SAVED
    UNKEPT = "unkept"  # the journal failed, or seemed to; each request tries again: SAVED
    SAVED = "saved"  # durable and complete: waits for the decision as long as it takes, at last
    #   without its guests, which their owner has back after a silence, as in UNKEPT
    FINISHING = "finishing"  # Finish came; ends with the part forgotten
    SPOILING = "spoiling"  # failed: being cleaned up; ends in SPOILED
    SPOILED = "spoiled"  # clean, disowned for ever (rule 9); waits for Discard to forget it
    DISCARDING = "discarding"  # Discard came; ends with the part forgotten
    STUCK = "stuck"  # cleaning up failed; each Discard tries again


@_frozen
class Part:
    """A host's part in one snapshot; ``answers`` are repeated as they were given."""

    snapshot: str
    epoch: int
    phase: Phase
    work: Work
    answers: tuple[Answer, ...] = ()
    refusal: Refused | None = None  # why it was spoiled
    discard: bool = False  # Discard came while the engine worked: obeyed when it has ended
    progress: tuple[MemberProgress, ...] = ()
    deleted: bool = False  # and what is published goes, too
    heard_ns: int = 0  # when the coordinator was last heard of; of this process's time, and 0
    #   where nobody waits for that


@_frozen
class Decided:
    """How a snapshot ended for one member, and the epoch it rose to by that (rule 6)."""

    group: str
    member: Member
    epoch: int
    snapshot: str
    decision: Decision


@_frozen
class Residue:
    """What QEMU itself still shows of a snapshot, after the process that made it died."""

    snapshot: str
    epoch: int
    members: tuple[Member, ...]
