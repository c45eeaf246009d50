# SPDX-License-Identifier: Apache-2.0
"""What the coordinator of a restore and its hosts say to each other.

==========================  ======================================================================
coordinator → host          `Order`, one RPC a host, for one step
host → coordinator          `OrderDone` `OrderWorking` `OrderRefused`, the reply to that RPC
user → coordinator          `AbortRestore`
==========================  ======================================================================

Fields called ``detail`` and ``options`` hold JSON text that the machines carry unread.
"""

import dataclasses
import enum

from hotsnap_nova.protocol.messages import Cause, Member, MemberProgress

_frozen = dataclasses.dataclass(frozen=True, slots=True)


class Step(enum.StrEnum):
    """What a host can be at; `FINISH` and `CLEAR` are never ordered: each follows its decision."""

    PREPARE = "prepare"  # members locked, every digest proved, files placed; old members run on
    STOP = "stop"  # every old member proved stopped
    START = "start"  # disks swapped, members started, paused at the cut
    RESUME = "resume"  # decided: members run
    FINISH = "finish"  # what was replaced is kept aside, members unlocked
    UNDO = "undo"  # decided: old disks back, what ran before runs again
    CLEAR = "clear"  # what the undo had to know is dropped, members unlocked


BEFORE_DECISION = (Step.PREPARE, Step.STOP, Step.START)
"""In this order; each on all hosts before the next on any."""

DECISIONS = (Step.RESUME, Step.UNDO)
"""What is ordered once it was decided, and then until it is done."""


@_frozen
class Share:
    """What a host is to bring back; the same for the whole life of a restore."""

    snapshot: str
    members: tuple[Member, ...]
    paused: bool = False
    options: str = "{}"


@_frozen
class MemberFault:
    """Why a member was left off, or as it was, while all others went on."""

    member: str
    cause: Cause


@_frozen
class MemberWarning:
    """What whoever restores should know of a member, though nothing failed.

    ``member`` is empty where it is of the group; ``cause`` and ``remedy`` are words.
    """

    member: str
    device: str
    cause: str
    remedy: str = ""
    host: str = ""


@_frozen
class Order:
    """Complete in itself: the host may never have heard of the restore."""

    restore: str
    host: str
    step: Step
    share: Share


@_frozen
class OrderDone:
    """``faults`` are of members that a decision could not be carried out for.

    ``warnings``: all that there were on this host by then, those of earlier steps included.
    """

    restore: str
    host: str
    step: Step
    faults: tuple[MemberFault, ...] = ()
    warnings: tuple[MemberWarning, ...] = ()


@_frozen
class OrderWorking:
    """Understood, not done: ask again. ``step`` is what the host is at."""

    restore: str
    host: str
    step: Step
    progress: tuple[MemberProgress, ...] = ()
    trouble: str = ""  # why a decision could not be carried out yet; it is tried again


@_frozen
class OrderRefused:
    """This host goes no further with the restore, for ever; only a decision is still obeyed."""

    restore: str
    host: str
    cause: Cause


OrderAnswer = OrderDone | OrderWorking | OrderRefused


@_frozen
class AbortRestore:
    """Somebody wants it given up; without effect once its end is being decided."""

    restore: str
    cause: Cause = Cause("aborted", "aborted by the user")
