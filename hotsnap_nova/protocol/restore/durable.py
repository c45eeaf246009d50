# SPDX-License-Identifier: Apache-2.0
"""What outlives a process: the row of a restore, a host's orders, and their ledger."""

import dataclasses
import enum

from hotsnap_nova.protocol.messages import Cause, MemberProgress
from hotsnap_nova.protocol.restore.messages import MemberFault, MemberWarning, Share, Step

_frozen = dataclasses.dataclass(frozen=True, slots=True)


class Resolution(enum.StrEnum):
    """What the database says of a restore's end; the only truth after a restart."""

    NONE = "none"  # nothing yet: whoever finds this after a restart decides UNDO
    RESUME = "resume"  # every member stands at the cut, paused: they run, whatever it takes
    UNDO = "undo"  # it never was: the disks of before are back


@_frozen
class RestoreLimits:
    """How long the coordinator waits. ``absent_ms``: None where nobody would run an errand.

    ``silence_ms``: so long a host may be silent before the decision; None: as long as the step.
    """

    prepare_timeout_ms: int = 3_600_000
    stop_timeout_ms: int = 60_000
    start_timeout_ms: int = 1_800_000
    silence_ms: int | None = 120_000
    decided_timeout_ms: int = 600_000  # for a host that answers, but does not get done
    absent_ms: int | None = None  # so long a host may be silent before it is left an errand
    repeat_ms: int = 500
    urgent_repeat_ms: int = 100  # the same while members stand still


@_frozen
class Restore:
    """The row of a restore. ``hosts`` says who brings back what; fixed when it begins.

    ``warnings``: of the check that preceded it, and what hosts have said since.
    """

    restore: str
    snapshot: str
    hosts: tuple[tuple[str, Share], ...]
    limits: RestoreLimits = RestoreLimits()
    generation: int = 0
    resolution: Resolution = Resolution.NONE
    closed: bool = False
    cause: Cause | None = None
    faults: tuple[MemberFault, ...] = ()
    absent: tuple[str, ...] = ()  # hosts that were left an errand
    warnings: tuple[MemberWarning, ...] = ()


class Status(enum.StrEnum):
    """How far a host is with its step."""

    WORKING = "working"  # the engine is at it
    DONE = "done"
    FAILED = "failed"  # a decision is tried again; before one nothing more is done
    INTERRUPTED = "interrupted"  # the process died at it: it may be done in part


@_frozen
class RestorePart:
    """A host's part in one restore that has not ended here; journalled before each step."""

    restore: str
    share: Share
    step: Step
    status: Status = Status.WORKING
    refusal: Cause | None = None
    faults: tuple[MemberFault, ...] = ()
    withdrawn: tuple[str, ...] = ()  # members whose owner needs them for something else
    then: Step | None = None  # a decision that came while the engine worked: obeyed when it ends
    trouble: str = ""
    notes: str = ""  # what the engine wants to be told again, carried unread
    progress: tuple[MemberProgress, ...] = ()
    warnings: tuple[MemberWarning, ...] = ()  # of all steps so far


@_frozen
class RestoreEnded:
    """A restore that has ended here: it touches nothing any more, and is answered as then."""

    restore: str
    step: Step
    faults: tuple[MemberFault, ...] = ()
    warnings: tuple[MemberWarning, ...] = ()
