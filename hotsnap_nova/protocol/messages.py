# SPDX-License-Identifier: Apache-2.0
"""What coordinator and hosts say to each other; frozen, hashable, and without behaviour.

==========================  ======================================================================
coordinator → host          `Prepare` `Record` `Release` `Save` `Finish` `Discard`, one RPC a host
host → coordinator          `Prepared` `Recorded` `Released` `Working` `Saved` `Finished`
                            `Discarded` `Refused`, the reply to that RPC
user → coordinator          `Abort`
==========================  ======================================================================

What the machines tell their runners is in `commands`, what outlives a process in `durable`.
Times are integers in nanoseconds of the host's CLOCK_MONOTONIC unless a name ends in another
unit. Fields called ``detail`` and ``options`` hold JSON text that the machines carry unread.
`wire` turns every class here into plain dicts and back.
"""

import dataclasses
import enum

_frozen = dataclasses.dataclass(frozen=True, slots=True)


class Gate(enum.StrEnum):
    """What keeps packets sent after a cut from members that have not been cut."""

    NONE = "none"  # nothing does: the control that shows why a gate is needed
    BARRIER = "barrier"  # the member stays suspended until release
    HOLD = "hold"  # the member runs, all its egress waits
    MARKER = "marker"  # packets carry the epoch; a pre-cut member that meets one is cut first


@_frozen
class Member:
    """A server's part: ``id`` is stable (libvirt's uuid), ``name`` is for people."""

    id: str
    name: str = ""


@_frozen
class Work:
    """What a host is to do with its members; the same for the whole life of a snapshot."""

    group: str
    members: tuple[Member, ...]
    gate: Gate
    max_pause_ms: int
    max_hold_ms: int
    options: str = "{}"
    silence_ms: int = 600_000  # so long guests are kept for a coordinator that is silent


@_frozen
class Cause:
    """Why a snapshot failed: a stable ``code``, a sentence, and where known the culprit."""

    code: str
    text: str = ""
    host: str = ""
    member: str = ""


# -- what hosts measured --------------------------------------------------------------------------
@_frozen
class MemberCut:
    """How one member was cut.

    ``gate_closed_ns`` was read *before* the gate was closed: the lease counts from there. It is
    0 where no gate was closed. ``pause_ms`` excludes the wait for other members. ``stops`` and
    ``resumes`` are what the guest went through since prepare.
    """

    member: str
    cut_ns: int
    gate_closed_ns: int
    pause_ms: float
    stops: int
    resumes: int
    detail: str = "{}"


@_frozen
class MemberRelease:
    """How one member's gate was opened. ``hold_ms`` ends when it was open beyond doubt."""

    member: str
    hold_ms: float
    wait_ms: float = 0.0
    opened_by_itself: bool = False
    packets_held: int = 0
    detail: str = "{}"


@_frozen
class MemberProgress:
    """How far a member's save is."""

    member: str
    done_bytes: int
    total_bytes: int


# -- requests and answers -------------------------------------------------------------------------
@_frozen
class Message:
    """Every message between coordinator and host names these three (rule 5)."""

    snapshot: str
    epoch: int
    host: str


@_frozen
class Prepare(Message):
    """Make ready all that a guest cannot feel, and take the members' locks."""

    work: Work


@_frozen
class Record(Message):
    """Cut every member now."""


@_frozen
class Release(Message):
    """Every member everywhere is past its cut: open the gates."""


@_frozen
class Save(Message):
    """Bring memory and disks to the store; ask again to learn how far it is."""


@_frozen
class Finish(Message):
    """The decision "available": publish. ``answers`` are all hosts', for the manifest."""

    answers: tuple["Answer", ...] = ()


@_frozen
class Discard(Message):
    """The decision "discard". Complete in itself: the host may never have heard of it.

    ``deleted``: the snapshot is to vanish, whatever was decided; what is published goes, too.
    """

    group: str = ""
    members: tuple[Member, ...] = ()
    deleted: bool = False


Request = Prepare | Record | Release | Save | Finish | Discard


@_frozen
class Prepared(Message):
    detail: str = "{}"


@_frozen
class Recorded(Message):
    cuts: tuple[MemberCut, ...] = ()


@_frozen
class Released(Message):
    releases: tuple[MemberRelease, ...] = ()


@_frozen
class Working(Message):
    """Understood, not ready: ask again. ``phase`` is the participant's."""

    phase: str = ""
    progress: tuple[MemberProgress, ...] = ()


@_frozen
class Saved(Message):
    detail: str = "{}"


@_frozen
class Finished(Message):
    pass


@_frozen
class Discarded(Message):
    pass


@_frozen
class Refused(Message):
    """This host disowns the snapshot, for ever; only `Discard` is answered otherwise."""

    cause: Cause = Cause("refused")


Answer = Prepared | Recorded | Released | Working | Saved | Finished | Discarded | Refused


@_frozen
class Abort:
    """A user wants the snapshot stopped; without effect once "available" is being decided."""

    snapshot: str
    cause: Cause = Cause("aborted", "aborted by the user")
