# SPDX-License-Identifier: Apache-2.0
"""What the machines of a restore tell their runners to do, and how it ended.

==============================  ==================================================================
coordinator                     `SendOrder` `Resolve` `LeaveErrand` `AnnounceStep`
their outcomes                  `Resolved` `Overtaken` `ErrandLeft` (and the answers of hosts)
participant                     `ReplyToOrder` `JournalOrder` `CarryOut` `Hasten`
their outcomes                  `OrderJournaled` `CarriedOut` `StepProgress`
                                `MemberWithdrawn`, which nothing commanded
either                          `CommandFailed` of `hotsnap_nova.protocol.commands`
==============================  ==================================================================
"""

import dataclasses

from hotsnap_nova.protocol.messages import Cause, MemberProgress
from hotsnap_nova.protocol.restore.durable import Resolution, RestoreEnded, RestorePart
from hotsnap_nova.protocol.restore.messages import (
    MemberFault,
    MemberWarning,
    Order,
    OrderAnswer,
    Share,
    Step,
)

_frozen = dataclasses.dataclass(frozen=True, slots=True)


# -- commands of the coordinator ------------------------------------------------------------------
@_frozen
class SendOrder:
    """Call a host. A call that fails is a lost message, not a failed command."""

    order: Order


@_frozen
class Resolve:
    """Write a decision where the row's generation still is ``generation``; durable on return.

    Outcome: `Resolved`, `Overtaken` where another was first, or `CommandFailed` where it is not
    known whether it was written; the same write then tells. ``closed``: every host has answered
    or was left an errand, and the snapshot is free again.
    """

    restore: str
    generation: int
    resolution: Resolution
    closed: bool = False
    cause: Cause | None = None
    faults: tuple[MemberFault, ...] = ()
    absent: tuple[str, ...] = ()
    warnings: tuple[MemberWarning, ...] = ()


@_frozen
class LeaveErrand:
    """Have the host told this decision when it comes back; durable. Outcome: `ErrandLeft`."""

    order: Order


@_frozen
class AnnounceStep:
    """Tell those who watch; nothing depends on it. Failures are ignored."""

    restore: str
    step: str
    host: str = ""
    progress: tuple[MemberProgress, ...] = ()


# -- commands of the participant ------------------------------------------------------------------
@_frozen
class ReplyToOrder:
    """Answer the call being served; dropped where none is."""

    answer: OrderAnswer


@_frozen
class JournalOrder:
    """Make durable what this host knows of a restore. Outcome: `OrderJournaled`.

    ``part`` replaces what was known, None removes it, and with it the members' locks; ``ended``
    is written no later than that. ``begins``: it is the intent of a step, which is carried out
    once it is durable. Two may be under way at once: an older one must not replace what a newer
    one has written, nor forget a withdrawal that the machine knows by then.
    """

    restore: str
    part: RestorePart | None
    ended: RestoreEnded | None = None
    begins: bool = False


@_frozen
class CarryOut:
    """Begin a step for all members here and return at once; later `CarriedOut` or a failure.

    Each may be repeated, whatever was done of it before. Members in ``withdrawn`` are their
    owner's: their guests are not touched, and their disks never under a running one. ``notes``
    are the last that `CarriedOut` gave. A decision may come where nothing is known of the restore:
    it never was here, or the journal is lost; which of both the names beside the disks tell.
    """

    restore: str
    step: Step
    share: Share
    withdrawn: tuple[str, ...] = ()
    notes: str = ""


@_frozen
class Hasten:
    """What is being carried out is of no use any more: it is to end soon, well or not."""

    restore: str


CoordinatorCommand = SendOrder | Resolve | LeaveErrand | AnnounceStep
ParticipantCommand = ReplyToOrder | JournalOrder | CarryOut | Hasten


# -- how commands ended ---------------------------------------------------------------------------
@_frozen
class Resolved:
    restore: str
    generation: int


@_frozen
class Overtaken:
    """Another changed the row first: this coordinator must do nothing more."""

    restore: str


@_frozen
class ErrandLeft:
    restore: str
    host: str


@_frozen
class OrderJournaled:
    command: JournalOrder


@_frozen
class CarriedOut:
    restore: str
    step: Step
    faults: tuple[MemberFault, ...] = ()
    notes: str = ""
    warnings: tuple[MemberWarning, ...] = ()


@_frozen
class StepProgress:
    restore: str
    progress: tuple[MemberProgress, ...] = ()


@_frozen
class MemberWithdrawn:
    """Whoever owns a guest needs it: from now on no restore touches it."""

    restore: str
    member: str
    cause: Cause = Cause("withdrawn")
