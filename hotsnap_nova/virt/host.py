# SPDX-License-Identifier: Apache-2.0
"""The engine's way in: all members that a snapshot has on this host.

Every method may be repeated for the same snapshot. The order of a snapshot is
prepare, record, release, save, finish; discard at any point, also from another
thread while save runs.
"""

import concurrent.futures
import contextlib
import dataclasses
import threading
import time

from oslo_log import log

from hotsnap_nova import exception
from hotsnap_nova.virt import cuts, guardian, guest, records, sweep
from hotsnap_nova.virt import member as member_module
from hotsnap_nova.virt.checks import preflight
from hotsnap_nova.virt.disks import freezing
from hotsnap_nova.virt.gates import holder
from hotsnap_nova.virt.restore import restorer, trial

LOG = log.getLogger(__name__)

#: Members prepared at once.
_AT_ONCE = 4
#: Memory streams in from all members whether we look or not; a thread each looks.
_SAVED_AT_ONCE = 64


@dataclasses.dataclass
class _Open:
    """A snapshot under way on this host."""

    members: list[member_module.Member]
    facts: tuple[records.MemberFacts, ...] = ()
    cuts: tuple[records.CutRecord, ...] = ()
    releases: tuple[records.ReleaseRecord, ...] = ()
    saved: tuple[records.SavedMember, ...] = ()


class Engine(restorer.Restorer):
    """Hot snapshots of the guests of one libvirt.

    :param uri: libvirt's connection URI
    :param keep_hours: how long disks that a restore replaced are kept
    """

    def __init__(self, uri: str, keep_hours: float = 24.0):
        self._uri = uri
        self.keep_hours = keep_hours
        self._connection = None
        self._guardian: guardian.Guardian | None = None
        self._holder: holder.Holder | None = None
        self._open: dict[str, _Open] = {}
        self._lock = threading.Lock()

    # --- questions ---

    @staticmethod
    def tag_of(snapshot_id: str) -> str:
        """How a snapshot is called inside QEMU, where names are short."""
        return freezing.tag_of(snapshot_id)

    def find(self, names: tuple[str, ...]) -> tuple[records.MemberSpec, ...]:
        """The guests of these names or UUIDs.

        :raises exception.MemberNotFound:
        """
        return tuple(self._guest(name).spec for name in names)

    def check(self, members: tuple[records.MemberSpec, ...], gate: str = 'auto',
              free_bytes: int | None = None) -> records.Verdict:
        """Whether these guests can be snapshotted; nothing is touched.

        :param free_bytes: room where the files would go; None: not looked at
        """
        guests = [self._member(spec) for spec in members]
        return preflight.check(guests, gate, free_bytes, self._libvirt(), self.reserve_bytes,
                               self.definitions, self.store_path)

    def survey(self) -> tuple[records.Leftover, ...]:
        """What running guests carry of ours, as QEMU tells: whoever left it."""
        found = []
        for domain in self._libvirt().listAllDomains():
            # A guest may go away, or be busy ending, while we ask.
            with contextlib.suppress(exception.HotsnapError):
                if leftover := (trial.leftover(domain.name())
                                or sweep.survey(self._guest(domain.UUIDString()))):
                    found.append(leftover)
        return tuple(found)

    # --- a snapshot ---

    def prepare(self, work: records.Work) -> tuple[records.MemberFacts, ...]:
        """Make ready all that a guest cannot feel.

        :raises exception.HotsnapError: call :meth:`discard`
        """
        if (known := self._open.get(work.snapshot_id)) and known.facts:
            return known.facts
        watcher = self._guard()
        members = [member_module.Member(work, self._member(spec), self._keep, self.effort)
                   for spec in work.members]
        current = self._open[work.snapshot_id] = _Open(members)
        watcher.watch(tuple(spec.id for spec in work.members), self.tag_of(work.snapshot_id))
        with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
            current.facts = tuple(pool.map(lambda each: each.prepare(watcher.listens), members))
        watcher.wait_ready()
        return current.facts

    def record(self, work: records.Work) -> tuple[records.CutRecord, ...]:
        """Cut every member, one after the other; one that a mark asks it of at once.

        :raises exception.HotsnapError: there is no cut; call :meth:`discard`
        """
        current = self._current(work)
        if current.cuts:
            return current.cuts
        delays = work.record_delays_s or (0.0,) * len(current.members)
        with cuts.Cuts(current.members, lambda *asked: self._cut(work, *asked)) as taken:
            for each, delay_s in zip(current.members, delays, strict=True):
                time.sleep(delay_s)
                taken.take(each)
        current.cuts = tuple(each.recorded() for each in current.members)
        return current.cuts

    def release(self, work: records.Work) -> tuple[records.ReleaseRecord, ...]:
        """Open the gates. A member whose gate opened by itself says so."""
        current = self._current(work)
        if current.releases:
            return current.releases
        for each in current.members:
            each.open()
        fired = self._guardian.disarm(tuple(each.guest.uuid for each in current.members))
        current.releases = tuple(
            each.released(fired=each.guest.uuid in fired) for each in current.members)
        return current.releases

    def save(self, work: records.Work, on_progress) -> tuple[records.SavedMember, ...]:
        """Bring memory and disks to the members' folders; the guests run.

        :param on_progress: called with :class:`records.Progress`, from any thread
        :raises exception.HotsnapError: nothing of use is in the folders
        """
        current = self._current(work)
        if current.saved:
            return current.saved
        for each in current.members:
            each.hurry()
        with concurrent.futures.ThreadPoolExecutor(min(_SAVED_AT_ONCE, len(current.members))) \
                as pool:
            waiting = [pool.submit(each.save, on_progress) for each in current.members]
            concurrent.futures.wait(
                waiting, return_when=concurrent.futures.FIRST_EXCEPTION)
            if any(one.done() and one.exception() for one in waiting):
                for each in current.members:
                    each.give_up()
            failures = [one.exception() for one in waiting if one.exception()]
            for failure in failures:
                # The first that is not the consequence of another.
                if not isinstance(failure, exception.Aborted):
                    raise failure
            current.saved = tuple(one.result() for one in waiting)
        return current.saved

    def finish(self, work: records.Work) -> None:
        """Leave nothing of ours in QEMU; the files stay."""
        self.discard(work.snapshot_id, work.members)

    def discard(self, snapshot_id: str, members: tuple[records.MemberSpec, ...]) -> None:
        """Leave nothing of ours in QEMU; guests run if they ran, gates are open.

        Safe in any state and from any thread. The files are the store's.

        :raises exception.HotsnapError: something is left; call again
        """
        current = self._open.get(snapshot_id)
        if current is None:
            tag = self.tag_of(snapshot_id)
            for spec in members:
                with contextlib.suppress(exception.MemberNotFound):
                    sweep.abandoned(self._member(spec), tag)
            return
        failures: list[BaseException] = []
        for each in current.members:
            if not each.guest.connected():
                with contextlib.suppress(exception.MemberNotFound):
                    each.reattach(self._member(each.guest.spec))
        # Together: a QEMU that does not answer must not keep another's guest.
        with concurrent.futures.ThreadPoolExecutor(max(1, len(current.members))) as pool:
            for steps in (member_module.Member.let_go, member_module.Member.end):
                done = [pool.submit(steps, each) for each in current.members]
                concurrent.futures.wait(done)
                failures += [one.exception() for one in done if one.exception()]
                self._disarm(current)
        if failures:
            raise failures[0]
        self._forget(current)
        self._open.pop(snapshot_id, None)

    def clean(self, members: tuple[records.MemberSpec, ...]) -> None:
        """Take out of guests whatever any process of ours left there, or beside them."""
        for spec in members:
            trial.end(spec, self._libvirt)
            with contextlib.suppress(exception.MemberNotFound):
                sweep.abandoned(self._member(spec))

    def close(self) -> None:
        """End; guests that are still armed are let go by guardian and holder."""
        if self._holder:
            self._holder.close()
        if self._guardian:
            self._guardian.close()
        if self._connection is not None:
            self._connection.close()

    # --- inside ---

    def _cut(self, work, each, asked_by_mark):
        if work.gate != records.NO_GATE:
            self._guardian.arm(each.guest.uuid, each.filters,
                               time.monotonic_ns() + work.max_hold_ms * 1_000_000,
                               each.memory_socket)
        each.cut(asked_by_mark=asked_by_mark)

    def _libvirt(self):
        with self._lock:
            if self._connection is None or not self._connection.isAlive():
                self._connection = guest.connect(self._uri)
            return self._connection

    def _guest(self, uuid_or_name: str) -> guest.Guest:
        return guest.Guest(self._libvirt(), uuid_or_name)

    def _member(self, spec: records.MemberSpec) -> guest.Guest:
        return guest.Guest(self._libvirt(), spec.id, spec.name)

    def _guard(self) -> guardian.Guardian:
        with self._lock:
            if self._guardian is not None and not self._guardian.alive():
                self._guardian.close()
                self._guardian = None
            if self._guardian is None:
                self._guardian = guardian.Guardian(self._uri)
            return self._guardian

    def _keep(self) -> holder.Holder:
        with self._lock:
            if self._holder is not None and not self._holder.alive():
                self._holder.leave()
                self._holder = None
            if self._holder is None:
                self._holder = holder.Holder()
            return self._holder

    def _disarm(self, current: _Open) -> None:
        # One that died has let everybody go.
        with contextlib.suppress(exception.HostUnreachable):
            if self._guardian:
                self._guardian.disarm(tuple(each.guest.uuid for each in current.members))

    def _forget(self, current: _Open) -> None:
        with contextlib.suppress(exception.HostUnreachable):
            if self._guardian:
                self._guardian.forget(tuple(each.guest.uuid for each in current.members))

    def _current(self, work: records.Work) -> _Open:
        current = self._open.get(work.snapshot_id)
        if current is None:
            raise exception.CutExpired(phase='this host no longer knew the snapshot')
        return current
