# SPDX-License-Identifier: Apache-2.0
"""What the machines tell their runners to do, and how it ended.

A machine answers each message with a list of commands. The runner carries them out in that order
and stops at the first that fails, which it reports by `CommandFailed`. The outcome of a command is
handed back to the machine at once, and what the machine then commands comes before the rest.

==============================  ==================================================================
coordinator                     `Send` `Persist` `LeaveErrand` `Announce`
their outcomes                  `Persisted` `Superseded` `ErrandLeft` (and the answers of hosts)
participant                     `Reply` `Journal` `PrepareMembers` `RecordMembers`
                                `ReleaseMembers` `SaveMembers` `FinishMembers` `DiscardMembers`
                                `GiveBackMembers`
their outcomes                  `MembersPrepared` `MembersRecorded` `MembersReleased`
                                `SaveProgress` `MembersSaved` `MembersFinished` `MembersDiscarded`
                                `MembersWithdrawn`, which nothing commanded
                                `Journaled`
either                          `CommandFailed`
==============================  ==================================================================
"""

import dataclasses

from hotsnap_nova.protocol.durable import Decided, Decision, Part
from hotsnap_nova.protocol.messages import (
    Answer,
    Cause,
    Member,
    MemberCut,
    MemberProgress,
    MemberRelease,
    Request,
    Work,
)

_frozen = dataclasses.dataclass(frozen=True, slots=True)


# -- commands of the coordinator ------------------------------------------------------------------
@_frozen
class Send:
    """Call a host. A call that fails is a lost message, not a failed command.

    The reply, whenever it comes, is handed to `Coordinator.receive`.
    """

    message: Request


@_frozen
class Persist:
    """Write a decision where the row's generation still is ``generation``; durable on return.

    Outcome: `Persisted`, `Superseded` where another coordinator was first, or `CommandFailed`
    where it is not known whether it was written. ``closed`` means every host has answered, or
    was left an errand: nothing is left to do. ``answers`` and ``absent`` must come back in the
    `Snapshot` read after a restart.
    """

    snapshot: str
    generation: int
    decision: Decision
    closed: bool = False
    cause: Cause | None = None
    answers: tuple[Answer, ...] = ()
    absent: tuple[str, ...] = ()


@_frozen
class LeaveErrand:
    """Have the host told this decision when it comes back; durable. Outcome: `ErrandLeft`."""

    message: Request


@_frozen
class Announce:
    """Tell those who watch; nothing depends on it. Failures are ignored."""

    snapshot: str
    phase: str
    host: str = ""
    progress: tuple[MemberProgress, ...] = ()


# -- commands of the participant ------------------------------------------------------------------
@_frozen
class Reply:
    """Answer the call being served; dropped where none is."""

    answer: Answer


@_frozen
class Journal:
    """Make durable what this host knows of a snapshot. Outcome: `Journaled`.

    ``part`` replaces what was known, None removes it; ``decided`` rows replace rows of the same
    snapshot and member (`hoststate.ledger`), and are written no later than the removal. Never
    asked for between the stop of a guest and its `Recorded` (rule 1).
    """

    snapshot: str
    part: Part | None
    decided: tuple[Decided, ...] = ()


@_frozen
class EngineCommand:
    """Work for the engine, on all of a snapshot's members here; one at a time for a snapshot."""

    snapshot: str
    epoch: int
    work: Work


@_frozen
class PrepareMembers(EngineCommand):
    """Outcome: `MembersPrepared`."""


@_frozen
class RecordMembers(EngineCommand):
    """Suspend, close gate, freeze, resume (`cut.record_steps`). Outcome: `MembersRecorded`."""


@_frozen
class ReleaseMembers(EngineCommand):
    """Open the gates. Outcome: `MembersReleased`."""


@_frozen
class SaveMembers(EngineCommand):
    """Start saving and return at once; later `SaveProgress`, then `MembersSaved`.

    `DiscardMembers` may be asked for meanwhile: it ends the save, whose outcome is then ignored.
    """


@_frozen
class FinishMembers(EngineCommand):
    """Leave nothing in QEMU, publish the files. Outcome: `MembersFinished`. Repeatable."""

    answers: tuple[Answer, ...] = ()


@_frozen
class DiscardMembers:
    """Leave nothing anywhere, guests running, gates open. Outcome: `MembersDiscarded`.

    Asked for in any state, also of snapshots this host knows nothing about. Repeatable.
    ``decided`` tells a decision from a host giving up: only a decision raises the epoch that a
    member's packets carry (`cut.DataPath`), else armed members elsewhere would be cut by them.
    ``deleted``: what is published of it goes, too.
    """

    snapshot: str
    epoch: int
    members: tuple[Member, ...]
    decided: bool = True
    deleted: bool = False


@_frozen
class GiveBackMembers:
    """End the claim on these guests at their owner's, and nothing else: the part stays.

    Repeatable, and done by `FinishMembers` and `DiscardMembers`, too.
    """

    snapshot: str
    epoch: int
    members: tuple[Member, ...]


CoordinatorCommand = Send | Persist | LeaveErrand | Announce
ParticipantCommand = (
    Reply | Journal | PrepareMembers | RecordMembers | ReleaseMembers | SaveMembers
    | FinishMembers | DiscardMembers | GiveBackMembers
)  # fmt: skip


# -- how commands ended ---------------------------------------------------------------------------
@_frozen
class Persisted:
    snapshot: str
    generation: int


@_frozen
class Superseded:
    """Another coordinator changed the row first: this one must do nothing more."""

    snapshot: str


@_frozen
class ErrandLeft:
    snapshot: str
    host: str


@_frozen
class CommandFailed:
    """The command failed, and those after it in its list were not carried out."""

    command: CoordinatorCommand | ParticipantCommand
    cause: Cause


@_frozen
class Journaled:
    """What the command wrote is durable: the machine may now act and answer as if it were so."""

    command: Journal


@_frozen
class Outcome:
    snapshot: str
    epoch: int


@_frozen
class MembersPrepared(Outcome):
    detail: str = "{}"


@_frozen
class MembersRecorded(Outcome):
    cuts: tuple[MemberCut, ...] = ()


@_frozen
class MembersReleased(Outcome):
    releases: tuple[MemberRelease, ...] = ()


@_frozen
class SaveProgress(Outcome):
    progress: tuple[MemberProgress, ...] = ()


@_frozen
class MembersSaved(Outcome):
    detail: str = "{}"


@_frozen
class MembersFinished(Outcome):
    pass


@_frozen
class MembersDiscarded(Outcome):
    pass


@_frozen
class MembersWithdrawn(Outcome):
    """Whoever owns a guest needs it for something else: give up, unless all of it is saved."""

    cause: Cause = Cause("withdrawn")
