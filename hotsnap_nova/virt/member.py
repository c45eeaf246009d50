# SPDX-License-Identifier: Apache-2.0
"""One member of a snapshot: its transient snapshot (the cut) and its full one.

What this object holds (sockets, links, daemon, events) dies with the process; what
it puts into QEMU is named after the snapshot, so that :mod:`sweep` removes it
from what QEMU itself shows. Both ends, ``finish`` and ``discard``, cut what is
held here first and then sweep: a fresh process does just the second half.
"""

import contextlib
import itertools
import os
import socket
import time

from oslo_log import log

from hotsnap_nova import exception
from hotsnap_nova.virt import domain, guest, records, sweep
from hotsnap_nova.virt.checks import facts
from hotsnap_nova.virt.disks import freezing
from hotsnap_nova.virt.disks import relay as relay_module
from hotsnap_nova.virt.disks import targets as targets_module
from hotsnap_nova.virt.gates import gate
from hotsnap_nova.virt.memory import hugepages, saveimage, saving

LOG = log.getLogger(__name__)

#: How long QEMU may take to fix the memory's instant. (The pause has its own,
#: shorter limit; this one only ends a wait that would never end.)
_PROTECT_TIMEOUT_S = 20.0
#: How long libvirt may lag behind QEMU; gates have their lease.
_EVENT_TIMEOUT_S = 15.0
#: How long memory may be put into huge pages before the cut.
_GATHER_S = 5.0
_SAVE_POLL_S = 0.05
#: A disk copy that makes no progress for so long counts as hung.
_COPY_STALL_S = 15.0
#: What a copy is told of a snapshot that the filter gave up.
_BROKEN = 'Permission denied'


class Member:
    """One guest's part in one snapshot; used by one thread at a time, but that
    :meth:`discard` may interrupt :meth:`save` from another.

    :param work: the snapshot
    :param running: the guest
    :param keeper: gives who keeps packets back in the host kernel, where that is needed
    :param effort: how its disks are copied
    """

    def __init__(self, work: records.Work, running: guest.Guest, keeper,
                 effort: records.Effort):
        self.work = work
        self._effort = effort
        self.guest = running
        self.tag = freezing.tag_of(work.snapshot_id)
        self.folder = work.member_folder(running.spec)
        self.gate_closed_ns = 0
        self._qemu = running.monitor
        self._keeper = keeper
        self._sink: saving.MemorySink | None = None
        self._daemon: targets_module.StorageDaemon | None = None
        self._relay: relay_module.Relay | None = None
        self._watch = None
        self._watch_handle = None
        self._gate = None
        self._disks: freezing.FrozenDisks | None = None
        self._memory: saving.BackgroundSnapshot | None = None
        self._devices: frozenset[str] = frozenset()
        self._bandwidth = None
        self._suspended_since: int | None = None
        self._marks: list[tuple[str, int]] = []
        self._cut_ns = self._cut_wall_ns = 0
        self._stops_before = self._resumes_before = 0
        self._opened_ns = 0
        self._asked_by_mark = False
        self._gate_lost = False
        self.wait_ms = 0.0
        self._stop_issued = False
        self._ending = False
        self._files: tuple[records.SavedFile, ...] = ()

    # --- prepare: nothing a guest can feel ---

    def prepare(self, guardian: int) -> records.MemberFacts:
        """Add everything that can be added while the guest runs.

        :param guardian: where it listens
        :raises exception.HotsnapError: call :meth:`discard`
        """
        self.guest.require_running()
        self._watch, self._watch_handle = self.guest.watch()
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        # Before the XML that tells what to freeze and gate: what comes after it is told of.
        self._devices = self._qemu.devices()
        live_xml = self.guest.full_xml()
        parsed = domain.DomainXml(live_xml)
        archive_xml = saveimage.archived(self.guest.xml(), self.work.snapshot_id)
        with open(os.open(f'{self.folder}/domain.xml',
                          os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 'w') as file:
            file.write(archive_xml)
        if self._qemu.bandwidth_claim() is None:
            self._bandwidth = self._qemu.bandwidth()

        frozen = facts.writable_disks(self.guest, parsed)
        if frozen:
            self._relay = relay_module.Relay()
            self._daemon = targets_module.StorageDaemon({
                disk.target: (f'{self.folder}/{disk.target}.qcow2', disk.size_bytes)
                for disk in frozen}, guardian, direct=self._effort.direct)
        self._disks = freezing.FrozenDisks(self._qemu, self.guest.spec, self.tag, frozen)
        self._disks.prepare(self._linked)

        suffix = '.zst' if self.work.compress else ''
        try:
            self._sink = saving.MemorySink(
                f'{self.folder}/memory.save{suffix}', archive_xml,
                saveimage.cookie_of(live_xml), compress=self.work.compress)
        except OSError as exc:
            raise self._memory_failed(exc.strerror) from exc
        self._memory = saving.BackgroundSnapshot(
            self._qemu, self.guest.spec, self.tag, sweep.memory_fd(self.tag))
        self._memory.prepare(self._sink)

        process = hugepages.process_of(self.guest.uuid)
        self._gate = gate.make(self.work, self._qemu, self.guest.spec, self.tag, parsed,
                               self._keeper, process)
        self._gate.prepare()
        self._require_same_devices()
        if process is not None:
            hugepages.gather(process, _GATHER_S)
        self._disks.flush()
        return facts.of_member(self.guest, parsed, frozen)

    @contextlib.contextmanager
    def _linked(self, disk: freezing.Disk):
        """QEMU's end of a link to the disk's image, for the time it takes to hand it over."""
        try:
            daemon, greeting = self._daemon.connect()
        except OSError as exc:
            raise exception.TargetFailed(
                member=self.guest.spec, device=disk.target, reason=str(exc)) from exc
        with contextlib.closing(self._relay.add(disk.target, daemon, greeting)) as theirs:
            yield theirs.fileno()
        self._relay.negotiated(disk.target)

    @property
    def filters(self) -> tuple[str, ...]:
        """Names of the gate's filters in QEMU, for the guardian."""
        return self._gate.filters if self._gate else ()

    @property
    def memory_socket(self) -> socket.socket:
        """Where we read the memory from, for the guardian."""
        return self._sink.socket

    @property
    def asks(self) -> int | None:
        """Readable once a mark asks for the cut; None where none can."""
        return self._gate.asks if self._gate else None

    # --- record: the pause ---

    def cut(self, *, asked_by_mark: bool = False) -> None:
        """Freeze the guest's state at this instant; :meth:`recorded` tells how it went.

        Whatever fails, the guest runs again when this returns or raises, but
        for ``barrier``, whose guests run again with the release; and it has what waited for this.

        :raises exception.HotsnapError: there is no cut; call :meth:`end`
        """
        self._asked_by_mark = asked_by_mark
        try:
            self._cut()
        finally:
            self._gate.deliver()

    def _cut(self):
        self._stops_before = self._watch.count('STOP')
        self._resumes_before = self._watch.count('RESUME')
        if not self._qemu.running():    # libvirt may not have heard yet that it went to sleep
            raise exception.GuestNotRunning(member=self.guest.spec, state='no longer running')
        self._marks = [('', time.monotonic_ns())]
        self.gate_closed_ns = self._marks[0][1]
        self._stop_issued = True
        try:
            self._qemu.stop()
            self._cut_ns, self._cut_wall_ns = time.monotonic_ns(), time.time_ns()
            self._mark('stop')
            # QEMU touches and protects all memory in a thread of its own; what
            # follows is done meanwhile. The guest stands: the order is free.
            self._memory.start()
            self._mark('migrate')
            self._gate.close()
            self._mark('gate')
            self._disks.freeze()
            self._mark('disks')
            self._require_same_devices()
            self._mark('devices')
            self._memory.wait_protected(_PROTECT_TIMEOUT_S)
            self._mark('memory')
            # Resuming writes to the guest's memory, page by page as QEMU gets
            # rid of them: for as long as it takes, fast.
            self._sink.keep(saving.Pace.FAST)
            known = self._require_stopped()
        except BaseException as exc:
            # Where the store failed, QEMU knows only that its socket was closed.
            reason = self._sink.failure
            # The memory's socket first: a guest may not get through its resumption while
            # QEMU waits for somebody to read.
            self._sink.close()
            self._resume()
            if reason:
                raise self._memory_failed(reason) from exc
            raise
        if self._gate.keeps_suspended:
            self._suspended_since = time.monotonic_ns()
        else:
            self._resume(known=known)
        self._mark('resume')
        self._sink.keep(saving.Pace.GENTLE)

    def _require_same_devices(self) -> None:
        """:raises exception.GuestChanged: they are not those of the preparation"""
        if (now := self._qemu.devices()) != self._devices:
            raise exception.GuestChanged(
                member=self.guest.spec,
                reason=f'devices {", ".join(sorted(now ^ self._devices))} came or went')

    def _mark(self, step: str) -> None:
        self._marks.append((step, time.monotonic_ns()))

    def recorded(self) -> records.CutRecord:
        """How the cut went. Not part of it: events may take their time to reach us.

        :raises exception.CutNotClean: the events that must come did not
        """
        keeps = self._gate.keeps_suspended
        self._await_events(self._stops_before + 1, self._resumes_before + (0 if keeps else 1))
        pause_ms = (self._marks[-1][1] - self._marks[0][1]) / 1e6
        if not keeps:
            # QEMU's times are the wall clock's, which may be set meanwhile; our
            # own, which may not, say between what bounds the pause was.
            at = dict(self._marks)
            least_ms = (at['memory'] - at['stop']) / 1e6
            told_ms = (self._watch.last('RESUME') - self._watch.last('STOP')) * 1e3
            pause_ms = min(max(told_ms, least_ms), pause_ms)
        return records.CutRecord(
            member=self.guest.uuid, epoch=self.work.epoch, cut_ns=self._cut_ns,
            cut_wall_ns=self._cut_wall_ns, gate_closed_ns=self.gate_closed_ns,
            pause_ms=round(pause_ms, 3), stops=self._watch.count('STOP'),
            resumes=self._watch.count('RESUME'),
            parts_ms={name: round((at - before) / 1e6, 3)
                      for (_, before), (name, at) in itertools.pairwise(self._marks)},
            asked_by_mark=self._asked_by_mark)

    def _resume(self, *, known: bool = False) -> None:
        """Let the guest run, unless somebody else meanwhile wants it to stand.

        :param known: libvirt said just now that it stands because of us
        """
        if known or self.guest.state().may_be_ours:
            self._qemu.cont()
        self._stop_issued = False
        self._suspended_since = None

    def _require_stopped(self) -> bool:
        """Whether libvirt knows already that the guest stands because of us.

        :raises exception.CutNotClean: the guest ran in the midst of its cut

        Somebody's resume instead of ours leaves one STOP and one RESUME too.
        """
        state = self.guest.state()
        # libvirt learns of our stop by an event, and may lag; QEMU does not.
        if not state.ours and (state.name != 'running' or self._qemu.running()):
            raise self._not_clean(
                'somebody resumed it' if state.running else
                f'somebody else wanted it {state.name} (libvirt: reason {state.reason})')
        return state.ours

    def _await_events(self, stops: int, resumes: int) -> None:
        for event, count in (('STOP', stops), ('RESUME', resumes)):
            if count and not self._watch.wait(event, count, _EVENT_TIMEOUT_S):
                raise self._not_clean(f'no {event} was heard of for {_EVENT_TIMEOUT_S:g} s')

    def _not_clean(self, reason: str) -> exception.CutNotClean:
        return exception.CutNotClean(
            member=self.guest.spec, reason=reason, stops=self._watch.count('STOP'),
            resumes=self._watch.count('RESUME'))

    # --- release ---

    def open(self) -> None:
        """Open the gate; what cannot wait for anything else."""
        self._sink.keep(saving.Pace.STEADY)
        if self._suspended_since is not None:
            self.wait_ms = (time.monotonic_ns() - self._suspended_since) / 1e6
            # Somebody else may have let it run, with nothing held back.
            self._gate_lost = not self.guest.state().ours
            self._resume()
        self._gate.open()
        self._opened_ns = time.monotonic_ns()

    def released(self, *, fired: bool) -> records.ReleaseRecord:
        """How the gate opened; call it after :meth:`open`.

        :param fired: the guardian opened it before we came
        """
        self._watch.wait('RESUME', self._resumes_before + 1, _EVENT_TIMEOUT_S)
        stops, resumes = self._watch.count('STOP'), self._watch.count('RESUME')
        by_itself = self._gate.opened_by_itself()
        lost = (by_itself or self._gate_lost or fired or stops != self._stops_before + 1
                or resumes != self._resumes_before + 1
                # A NIC that came meanwhile has no filter.
                or self._qemu.devices() != self._devices)
        hold_ms = (self._opened_ns - self.gate_closed_ns) / 1e6
        gated = self.work.gate != records.NO_GATE
        return records.ReleaseRecord(
            member=self.guest.uuid, hold_ms=hold_ms if gated else 0.0, wait_ms=self.wait_ms,
            opened_by_itself=gated and (lost or hold_ms >= self.work.max_hold_ms),
            stops=stops, resumes=resumes, carried_by=self._gate.carried_by,
            packets=self._gate.packets)

    # --- save ---

    def hurry(self) -> None:
        """Every member is recorded: take the memory as fast as the guests' own life allows."""
        self._sink.keep(saving.Pace.SHARED)

    def save(self, on_progress) -> records.SavedMember:
        """Bring memory and disks to the folder; the guest runs.

        :param on_progress: called with :class:`records.Progress`
        :raises exception.TargetFailed: nothing of use is in the folder
        """
        self._disks.start_copy(self._effort.limit_bytes_s // len(self.work.members),
                               hugepages.process_of(self.guest.uuid))
        total_memory = domain.DomainXml(self.guest.xml()).memory_bytes
        stalled_at, last = time.monotonic(), -1
        memory_done = False
        while True:
            if self._ending:
                raise exception.Aborted(who='a discard')
            if not memory_done and (memory_done := self._memory_done()):
                # At once: with the capability left on, another's migration or
                # memory snapshot would silently be of this kind.
                sweep.memory(self._qemu, self.guest.spec, self.tag, self._bandwidth)
            disks_done, disks_total, copied = self._disks_progress()
            on_progress(records.Progress(
                self.guest.uuid, min(self._sink.received_bytes, total_memory) + disks_done,
                total_memory + disks_total))
            if memory_done and copied:
                break
            moved = self._sink.received_bytes + disks_done
            if moved != last:
                stalled_at, last = time.monotonic(), moved
            elif time.monotonic() - stalled_at > _COPY_STALL_S:
                raise exception.TargetFailed(
                    member=self.guest.spec, device='disks' if memory_done else 'memory',
                    reason=f'no progress for {_COPY_STALL_S:g} s')
            time.sleep(_SAVE_POLL_S)
        return self._close_files()

    def _memory_done(self) -> bool:
        status, error = self._memory.state()
        if self._sink.failure:
            raise self._memory_failed(self._sink.failure)
        if status in ('failed', 'cancelled', 'none'):
            raise self._memory_failed(error or status)
        return status == 'completed'

    def _memory_failed(self, reason: str) -> exception.TargetFailed:
        return exception.TargetFailed(
            member=self.guest.spec, device='memory', reason=reason)

    def _disks_progress(self) -> tuple[int, int, bool]:
        for disk in self._disks.disks:
            if reason := self._relay.failure(disk.target):
                raise exception.TargetFailed(
                    member=self.guest.spec, device=disk.target, reason=reason)
        try:
            found, broken = self._disks.progress(), None
        except exception.TargetFailed as exc:
            found, broken = None, exc
        # Where the filter met the failure first, the copy knows only that the snapshot is broken;
        # or nothing at all, where it has ended.
        for disk in self._disks.disks:
            if reason := self._relay.refusal(disk.target):
                raise exception.TargetFailed(
                    member=self.guest.spec, device=disk.target, reason=reason) from broken
        if not broken:
            return found
        if broken.kwargs.get('reason') != _BROKEN:
            raise broken
        raise exception.TargetFailed(
            member=self.guest.spec, device=broken.kwargs['device'],
            reason='copying what a guest was about to overwrite failed or took too long') \
            from broken

    def _close_files(self) -> records.SavedMember:
        """Everything has been handed over: end the writers and look at the files."""
        try:
            memory_size, digest = self._sink.finish()
        except OSError as exc:
            raise self._memory_failed(str(exc)) from exc
        # Every job is concluded, every write acknowledged: our ends first. QEMU
        # flushes a node that it removes, under its big lock; that must not
        # wait for a store. The daemon's own end flushes, without a guest.
        if self._relay:
            self._relay.close()
        sweep.disks(self._qemu, self.guest.spec, self.tag)
        if self._daemon and not self._daemon.close(still=lambda: not self._ending):
            raise exception.TargetFailed(
                member=self.guest.spec, device='disks',
                reason='the storage daemon could not close the images')
        files = [records.SavedFile(os.path.basename(self._sink.path), memory_size, digest)]
        disk_bytes = 0
        for disk in self._disks.disks:
            status = os.stat(f'{self.folder}/{disk.target}.qcow2')
            disk_bytes += status.st_blocks * 512
            files.append(records.SavedFile(f'{disk.target}.qcow2', status.st_size))
        files.append(records.SavedFile(
            'domain.xml', os.stat(f'{self.folder}/domain.xml').st_size))
        return records.SavedMember(
            member=self.guest.uuid, files=tuple(files), memory_bytes=memory_size,
            disk_bytes=disk_bytes)

    # --- the ends: finish and discard are the same to a guest ---

    def give_up(self) -> None:
        """Make a save under way end soon, with an error."""
        self._ending = True

    def reattach(self, running: guest.Guest) -> None:
        """Go on with a new connection; the events of the old one are lost."""
        self.guest = running
        self._qemu = running.monitor
        self._watch_handle = None

    def let_go(self) -> None:
        """Gate open, guest running: before anything that may fail or wait."""
        self._ending = True
        # Our own ends first: nothing below then waits for us. (The memory's
        # socket before the guest: see cut.)
        if self._sink:
            self._sink.close()
        if self._relay:
            self._relay.close()
        if self._gate:
            self._gate.let_go(self._qemu)
        if self._stop_issued:
            self._resume()

    def end(self) -> None:
        """Leave nothing of ours in QEMU or in this process. After :meth:`let_go`."""
        try:
            if self._gate:
                self._gate.remove()
            sweep.member(self.guest, self.tag, bandwidth=self._bandwidth)
        finally:
            if self._daemon:
                self._daemon.close()
            if self._watch_handle is not None:
                self.guest.unwatch(self._watch_handle)
                self._watch_handle = None
