# SPDX-License-Identifier: Apache-2.0
"""What goes into the engine and what comes out of it.

Plain, frozen and made of plain values, so that ``dataclasses.asdict`` gives
what travels on the wire and into the manifest. Times that end in ``_ns`` are
of the host's CLOCK_MONOTONIC unless they say ``wall``; they mean nothing on
another host.
"""

import dataclasses

from hotsnap_nova import exception

GATES = ('hold', 'barrier')
#: Taken only where it is asked for.
MARKER = 'marker'
#: Who keeps packets back.
HOST_KERNEL, QEMU = 'host kernel', 'QEMU'
#: The control of our own tests: nothing keeps post-cut packets back. Never
#: chosen by ``auto``, and a snapshot taken so says so.
NO_GATE = 'none'
#: What a finding rules out beside gates.
SNAPSHOT, RESTORE = 'snapshot', 'restore'


@dataclasses.dataclass(frozen=True)
class MemberSpec:
    """One guest: ``id`` is libvirt's UUID, ``name`` what people call it.

    As text it is its name: what is made of it needs no other name put into it later.
    """

    id: str
    name: str

    def __str__(self):
        return self.name or self.id


#: Who a finding is about that is about no member alone.
GROUP = MemberSpec('', 'the group')


@dataclasses.dataclass(frozen=True)
class Work:
    """One host's part of a snapshot.

    :ivar folder: where the files go: ``<folder>/<member id>/memory.save`` …
    :ivar record_delays_s: sleeps before each member's record, for tests that
        widen the skew between members on purpose; empty in production
    :ivar marker: with gate ``marker``, how it marks: ``code``, ``codes`` and ``addresses``, as
        `gates.marks.Marker` has them
    """

    snapshot_id: str
    epoch: int
    members: tuple[MemberSpec, ...]
    gate: str
    folder: str
    max_pause_ms: int = 100
    max_hold_ms: int = 150
    compress: bool = False
    record_delays_s: tuple[float, ...] = ()
    marker: dict | None = dataclasses.field(default=None, hash=False)

    def member_folder(self, member: MemberSpec) -> str:
        return f'{self.folder}/{member.id}'


@dataclasses.dataclass(frozen=True)
class Effort:
    """How disks are copied, and memory that was compressed is unpacked.

    :ivar limit_bytes_s: of one snapshot or restore on this host, of all members together; 0: none
    :ivar direct: past the page cache
    """

    limit_bytes_s: int = 0
    direct: bool = False


#: As fast as it goes.
ALL_EFFORT = Effort()


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing there is to say about one device of one member.

    :ivar member: without an id: the group as a whole
    :ivar rules_out: gates, `SNAPSHOT` or `RESTORE`; empty: it is a warning
    """

    member: MemberSpec
    device: str
    cause: str
    remedy: str
    rules_out: tuple[str, ...] = (SNAPSHOT,)

    @property
    def refuses(self) -> bool:
        """Whether it rules out more than gates."""
        return not set(self.rules_out) <= {*GATES, MARKER}


@dataclasses.dataclass(frozen=True)
class Address:
    """What a member's NIC is sent packets by.

    :ivar member: id
    :ivar ips: none: nobody knows them
    """

    member: str
    mac: str
    ips: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What is said of a group: the gates all can do, why not others, and what else there is.

    :ivar addresses: with gate ``marker``, what is known of each NIC of each member
    """

    gates: tuple[str, ...]
    findings: tuple[Finding, ...]
    addresses: tuple[Address, ...] = ()

    @property
    def possible(self) -> bool:
        return bool(self.gates) and not any(SNAPSHOT in f.rules_out for f in self.findings)


@dataclasses.dataclass(frozen=True)
class MemberFacts:
    """What a restore must find again, and what ``show`` tells."""

    member: str
    name: str
    machine: str
    cpu: str
    qemu_version: str
    libvirt_version: str
    memory_bytes: int
    vcpus: int
    disks: tuple[dict, ...]
    media: tuple[dict, ...] = ()
    host_cpu: dict = dataclasses.field(default_factory=dict, hash=False)


@dataclasses.dataclass(frozen=True)
class CutRecord:
    """One member's transient snapshot.

    :ivar cut_ns: when the guest had stopped
    :ivar gate_closed_ns: taken before the gate began to close: the lease runs
        from here
    :ivar stops: STOP events since the preparation; ``resumes`` likewise
    :ivar pause_ms: STOP to RESUME by QEMU's own clock; with ``barrier``, STOP
        to the end of our own work (the wait for the others is not in it)
    :ivar parts_ms: where the pause went, by step
    :ivar asked_by_mark: a packet asked for it, before its turn came
    """

    member: str
    epoch: int
    cut_ns: int
    cut_wall_ns: int
    gate_closed_ns: int
    pause_ms: float
    stops: int
    resumes: int
    parts_ms: dict = dataclasses.field(default_factory=dict, hash=False)
    asked_by_mark: bool = False


@dataclasses.dataclass(frozen=True)
class Packets:
    """What a gate did, as far as it is known; each is a number of packets.

    :ivar held: those of the guest's, until the release
    :ivar marked: those of the guest's
    :ivar late: those for the guest that waited for its cut
    """

    held: int = 0
    marked: int = 0
    late: int = 0


@dataclasses.dataclass(frozen=True)
class ReleaseRecord:
    """How a member's gate opened.

    :ivar hold_ms: from before the gate began to close until it was open
    :ivar wait_ms: with ``barrier``, suspended only for the others; else 0
    :ivar opened_by_itself: the lease ended or the guardian acted: the cut
        cannot be trusted
    :ivar carried_by: `HOST_KERNEL`, `QEMU`, or '' where nothing is kept back
    """

    member: str
    hold_ms: float
    wait_ms: float
    opened_by_itself: bool
    stops: int
    resumes: int
    carried_by: str = ''
    packets: Packets = Packets()


@dataclasses.dataclass(frozen=True)
class SavedFile:
    """A file of a member: its name in the member's folder, size and digest."""

    name: str
    size_bytes: int
    digest: str = ''


@dataclasses.dataclass(frozen=True)
class SavedMember:
    """One member's full snapshot; ``files`` lie in its folder."""

    member: str
    files: tuple[SavedFile, ...]
    memory_bytes: int
    disk_bytes: int


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a save is; ``total_bytes`` is an upper bound for memory."""

    member: str
    done_bytes: int
    total_bytes: int


@dataclasses.dataclass(frozen=True)
class Leftover:
    """What a guest still carries of a snapshot, as QEMU itself tells."""

    member: str
    name: str
    snapshot_tag: str
    what: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class RestoreMember:
    """One member to bring back.

    :ivar folder: where its files are, complete and verified; only read
    :ivar facts: what the manifest says of it: machine, cpu, disks, media …
    """

    spec: MemberSpec
    folder: str
    facts: dict = dataclasses.field(hash=False)


@dataclasses.dataclass(frozen=True)
class RestoreWork:
    """One host's part of a restore.

    :ivar restore_id: names what is put beside the disks
    :ivar paused: leave the members standing at the cut
    :ivar drops_internal_snapshots: those in the disks of today, and checkpoints, may go with them
    :ivar withdrawn: ids of members that are their owner's again: their guests are not touched,
        and their disks never under a running one
    :ivar notes: the last that a step's outcome had; JSON, carried unread by all others
    """

    snapshot_id: str
    restore_id: str
    members: tuple[RestoreMember, ...]
    paused: bool = False
    drops_internal_snapshots: bool = False
    withdrawn: tuple[str, ...] = ()
    notes: dict = dataclasses.field(default_factory=dict, hash=False)


@dataclasses.dataclass(frozen=True)
class RestoreFault:
    """What a restore could not do for one member, while it went on with all others.

    :ivar member: id
    """

    member: str
    error: exception.HotsnapError


@dataclasses.dataclass(frozen=True)
class RestoreOutcome:
    """How a step of a restore ended.

    :ivar notes: to be kept durably and handed to each later step; None: as they were
    :ivar warnings: what whoever restores should know, though nothing failed
    """

    faults: tuple[RestoreFault, ...] = ()
    notes: dict | None = dataclasses.field(default=None, hash=False)
    warnings: tuple[Finding, ...] = ()
