# SPDX-License-Identifier: Apache-2.0
"""What one member goes through at its cut, and which packets may pass it meanwhile.

The steps of a cut and the verdicts on what was measured are used in production. `DataPath` is the
model of a member's network: what each gate promises, told as code. The simulations of the tests
run it, and whoever writes a gate, in QEMU or elsewhere, has to behave the same.
"""

import dataclasses
import enum

from hotsnap_nova.protocol.messages import Cause, Gate, MemberCut, MemberRelease, Work

_frozen = dataclasses.dataclass(frozen=True, slots=True)

NS_PER_MS = 1_000_000


class Step(enum.StrEnum):
    SUSPEND = "suspend"
    CLOSE = "close"
    FREEZE = "freeze"  # memory and disks are of this instant
    RESUME = "resume"
    OPEN = "open"


def record_steps(gate: Gate) -> tuple[Step, ...]:
    """What `RecordMembers` does to each member, in this order.

    The gate closes while the guest cannot send (rule 2). With a barrier staying suspended *is*
    the closed gate.
    """
    if gate is Gate.BARRIER:
        return (Step.SUSPEND, Step.CLOSE, Step.FREEZE)
    return (Step.SUSPEND, Step.CLOSE, Step.FREEZE, Step.RESUME)


def release_steps(gate: Gate) -> tuple[Step, ...]:
    """What `ReleaseMembers` does to each member, in this order."""
    return (Step.OPEN, Step.RESUME) if gate is Gate.BARRIER else (Step.OPEN,)


def fault_of_cuts(work: Work, cuts: tuple[MemberCut, ...]) -> Cause | None:
    """Why these cuts cannot stand, or None. Every member must have been cut exactly once."""
    if fault := _fault_of_set(work, tuple(cut.member for cut in cuts)):
        return fault
    resumes = 0 if work.gate is Gate.BARRIER else 1
    for cut in cuts:
        if (cut.stops, cut.resumes) != (1, resumes):
            # stock QEMU may stop a guest again after `cont`: memory is then later than disk
            text = f"stopped {cut.stops} and resumed {cut.resumes} times"
            return Cause("stopped_twice", text, member=cut.member)
        if cut.pause_ms > work.max_pause_ms:
            text = f"paused for {cut.pause_ms:.1f} of at most {work.max_pause_ms} ms"
            return Cause("pause_too_long", text, member=cut.member)
        if work.gate is not Gate.NONE and not cut.gate_closed_ns:
            return Cause("gate_not_closed", member=cut.member)
    return None


def fault_of_releases(work: Work, releases: tuple[MemberRelease, ...]) -> Cause | None:
    """Why these gates were not closed from cut to release, or None (rule 3)."""
    if fault := _fault_of_set(work, tuple(release.member for release in releases)):
        return fault
    if work.gate is Gate.NONE:
        return None
    for release in releases:
        if release.opened_by_itself or release.hold_ms >= work.max_hold_ms:
            text = f"held for {release.hold_ms:.1f} of at most {work.max_hold_ms} ms"
            return Cause("gate_opened", text, member=release.member)
    return None


def _fault_of_set(work, members):
    if sorted(members) != sorted(member.id for member in work.members):
        return Cause("members_differ", "the engine reports on other members than were asked for")
    return None


def lease_end_ns(work: Work, cuts: tuple[MemberCut, ...]) -> int | None:
    """When the first of these gates counts as opened, whatever it looks like (rule 3)."""
    if work.gate is Gate.NONE:
        return None
    return min(cut.gate_closed_ns for cut in cuts) + work.max_hold_ms * NS_PER_MS


# -- packets --------------------------------------------------------------------------------------
MARKS = 3
"""How many marks there are: what a packet can carry is no number that grows for ever."""


def mark_of(epoch: int) -> int:
    """The mark of an epoch. One that is used again can only cause a cut that was not needed."""
    return 1 + epoch % MARKS


@_frozen
class Packet:
    """``mark`` is what it carries, or 0; ``markable`` is false for what cannot carry one.

    ``epoch`` is its sender's when it was sent. No network shows that: tests judge by it.
    """

    source: str
    target: str
    number: int
    markable: bool = True
    epoch: int = 0
    mark: int = 0


@_frozen
class Emit:
    """The packet leaves the host."""

    packet: Packet


@_frozen
class Deliver:
    """The guest has the packet."""

    packet: Packet


@_frozen
class TakeCut:
    """Cut this member at once: record steps, then `DataPath.resume` or `DataPath.fail`."""

    epoch: int


@_frozen
class DataPath:
    """One member's network as its gate makes it; each method gives the next one and the effects.

    ``epoch`` is the newest the member has been cut at or decided for; ``armed`` the one it is
    prepared for, or 0. ``poisoned`` epochs are disowned for ever (rule 9). Where nothing is
    armed nobody looks at marks: that is why no Record is sent before all are (rule 9).

    ``keeping`` begins with a mark of the armed epoch, before the cut, and ends with the cut or
    its failure: that packet and all that come behind it wait, whatever they carry, so that
    their order stays. ``strips``: no mark reaches the guest. That goes on behind the release, for
    others may not have heard of it, until the snapshot is decided.
    """

    member: str
    epoch: int = 0
    armed: int = 0
    gate: Gate = Gate.NONE
    suspended: bool = False
    closed: bool = False
    lapsed: bool = False  # the gate is closed, and its lease has ended: all passes, unmarked
    held: tuple[Packet, ...] = ()  # egress behind the closed gate
    queued: tuple[Packet, ...] = ()  # ingress while suspended, or waiting for a cut
    keeping: bool = False
    strips: bool = False
    room: int = 20_000  # so many packets are held, or kept, at the most
    overflowed: bool = False  # there were more: they were dropped, which fails the snapshot
    poisoned: frozenset[int] = frozenset()

    def arm(self, epoch, gate):
        return self._with(
            armed=epoch, gate=gate, strips=gate is Gate.MARKER, lapsed=False, overflowed=False
        ), ()  # fmt: skip

    def suspend(self):
        return self._with(suspended=True), ()

    def close(self):
        return self._with(closed=True), ()

    def freeze(self):
        """The cut itself: what is sent from here on is of the armed epoch."""
        return self._with(epoch=max(self.epoch, self.armed)), ()

    def resume(self):
        """The guest runs again, and has what waited for that or for its cut."""
        delivered = tuple(Deliver(self._stripped(packet)) for packet in self.queued)
        return self._with(suspended=False, keeping=False, queued=()), delivered

    def open(self):
        return self._with(closed=False, lapsed=False, held=()), tuple(map(Emit, self.held))

    def lapse(self):
        """The leases end, by the clock and with nobody of ours: held and kept packets pass.

        A gate of QEMU's may look closed again afterwards (rule 3). What was kept is delivered
        before the cut.
        """
        path, emitted = self._with(lapsed=self.closed, held=()), tuple(map(Emit, self.held))
        if not self.keeping:
            return path, emitted
        path, delivered = path.fail()
        return path, emitted + delivered

    def fail(self):
        """The cut failed: what waited for it is delivered, the epoch poisoned."""
        poisoned = self.poisoned | {self.armed} if self.armed else self.poisoned
        return self._with(poisoned=poisoned, armed=0, keeping=False)._pass_queued()

    def decide(self, epoch):
        """A decision: disarmed, and never again before its cut of that epoch (rule 6)."""
        poisoned = frozenset(each for each in self.poisoned if each > epoch)
        return self._with(epoch=max(self.epoch, epoch), poisoned=poisoned).disarm()

    def disarm(self):
        """The host gave up: gate open, nothing armed; the epoch is not decided by that."""
        path, emitted = self.open()
        path, delivered = path._with(armed=0, keeping=False, overflowed=False)._pass_queued()
        return path._with(strips=False), emitted + delivered

    def send(self, packet):
        """The guest sends; nothing comes of it where the guest is suspended."""
        if self.suspended:
            return self, ()
        packet = dataclasses.replace(packet, epoch=self.epoch)
        if not self.closed or self.lapsed or self.gate is Gate.NONE:
            return self, (Emit(packet),)
        if self.gate is Gate.MARKER and packet.markable:
            return self, (Emit(dataclasses.replace(packet, mark=mark_of(self.epoch))),)
        if len(self.held) >= self.room:
            return self._with(overflowed=True), ()
        return self._with(held=(*self.held, packet)), ()

    def arrive(self, packet):
        """A packet has come: for the guest, or asking for a cut first."""
        asks = self._asks(packet)
        if self.keeping or asks:
            path = self._with(keeping=True)
            if len(self.queued) >= self.room:
                return path._with(overflowed=True), ()
            path = path._with(queued=(*self.queued, packet))
            return path, (TakeCut(self.armed),) if asks and not self.keeping else ()
        if self.suspended:
            return self._with(queued=(*self.queued, packet)), ()
        return self, (Deliver(self._stripped(packet)),)

    def _asks(self, packet):
        """Whether somebody sent it who is past the cut that this member is armed for."""
        before = self.gate is Gate.MARKER and self.epoch < self.armed
        return before and packet.mark == mark_of(self.armed)

    def _stripped(self, packet):
        return dataclasses.replace(packet, mark=0) if self.strips else packet

    def _pass_queued(self):
        return (self, ()) if self.suspended else self.resume()

    def _with(self, **changes):
        return dataclasses.replace(self, **changes)
