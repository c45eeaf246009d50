# SPDX-License-Identifier: Apache-2.0
"""A guest's memory, saved copy-on-write while it runs.

QEMU's background snapshot writes the memory of one instant into a socket; a
reader here empties it and a writer behind it hashes, compresses and stores. The
guest's own writes wait on that socket, so the reader never waits for the disk:
where the writer stops for longer than ``STALL_LIMIT_S``, the socket is closed,
QEMU gives the snapshot up, and the guest goes on. A socket and no pipe, for
QEMU can shut down a socket that is full: ``migrate_cancel`` then works even
where this process stands still, which the guardian needs.

How fast it reads is a `Pace`: how long it rests before it takes all that is there. A
guest's write waits that long, for the socket is small and full while the reader rests.
(Small, for Linux wakes who waits to send only when three quarters of a socket's room
are free again: with 1 MiB and a gentle reader a write waited for 75 ms, with 64 KiB for
the rest. With a quarter of that and rests as much shorter the same bytes pass, and a
guest's tick stands still for 90 ms at the most instead of 140, in the median of 8.)
Until every member is recorded the pace is gentle, for the processors are needed to end
the pauses. It never stops altogether: whatever lets a guest run, we or
the guardian, waits inside QEMU for writes to that guest's memory, under QEMU's big lock;
with a full socket that nobody reads, QEMU and then libvirt would be stuck (seen with a
reader that began to read only when the guest ran again). For the moment of the
resumption it reads fast, for each such write waits for it; while gates open it reads
steadily, for QEMU opens them under that same lock; and from then on it shares the
processors with the guests.
"""

import contextlib
import enum
import os
import queue
import select
import socket
import threading
import time

import blake3
import zstandard

from hotsnap_nova import exception
from hotsnap_nova.virt import monitor, records
from hotsnap_nova.virt.memory import saveimage

#: Of what the socket holds at most: some 6 MB.
_QUEUE_CHUNKS = 64
STALL_LIMIT_S = 3.0
_TRY_S = 0.1
_POLL_S = 0.0005
#: Linux doubles it for its own needs; some 5 pages.
_SOCKET_BYTES = 16 << 10
#: More than the socket may hold.
_READ_BYTES = 128 << 10
#: Of `Pace.SHARED`: times what it took to read, and at most.
_RESTS = 2
_MOST_REST_S = 0.004


class Pace(enum.Enum):
    """How long the reader rests before it reads, in s; None: twice as long as it took to read."""

    GENTLE = 0.00075
    STEADY = 0.0005
    FAST = 0.0
    SHARED = None


class MemorySink:
    """The file a member's memory goes to, and the socket that leads there.

    :param path: of the save image; made here, 0600
    :param xml: the domain XML for the archive
    :param cookie: libvirt's, beside it
    :raises OSError: the file cannot be written
    """

    def __init__(self, path: str, xml: str, cookie: str = '', *, compress: bool):
        self.path = path
        self._head = saveimage.header(xml, cookie, whole=True)
        self._partial = saveimage.header(xml, cookie, whole=False)
        self._digest = blake3.blake3()
        self._compressor = zstandard.ZstdCompressor(level=1).compressobj() if compress else None
        self._chunks: queue.Queue = queue.Queue(_QUEUE_CHUNKS)
        self._failure: str | None = None
        self._closing = threading.Event()
        self._pace = Pace.GENTLE
        self._whole = threading.Event()
        self.received_bytes = 0
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._file = os.fdopen(fd, 'wb', buffering=0)
        reading, writing = socket.socketpair()
        writing.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
        self.socket, self.write_fd = reading, writing.detach()
        self._read_fd = reading.fileno()
        try:
            self._store(self._head if compress else self._partial)
        except OSError:
            self.close()
            raise
        self._reader = threading.Thread(target=self._read, name='memory-reader', daemon=True)
        self._writer = threading.Thread(target=self._write, name='memory-writer', daemon=True)

    def start(self) -> None:
        """Begin to empty the socket, gently; QEMU has its copy of ``write_fd`` by now."""
        self._close_write_end()
        self._reader.start()
        self._writer.start()

    def keep(self, pace: Pace) -> None:
        """From now on read at this pace."""
        self._pace = pace

    @property
    def failure(self) -> str | None:
        """Why the socket was closed early; None while all is well."""
        return self._failure

    def finish(self) -> tuple[int, str]:
        """Size and digest (BLAKE3, hex) of the finished file.

        Call it when QEMU has completed.

        :raises OSError: the file could not be written
        """
        self._reader.join()
        self._writer.join()
        if self._failure:
            raise OSError(self._failure)
        if not self._compressor:
            os.pwrite(self._file.fileno(), self._head[:16], 0)
        size = os.fstat(self._file.fileno()).st_size
        self._file.close()
        return size, self._digest.hexdigest()

    def close(self) -> None:
        """Give up: QEMU meets a closed socket. Harmless after :meth:`finish`."""
        self._closing.set()
        if self._close_write_end():
            self.socket.close()
            self._file.close()

    def _close_write_end(self) -> bool:
        """Whether it was open. Two threads may come here: the number is taken before its use."""
        fd, self.write_fd = self.write_fd, -1
        if fd >= 0:
            os.close(fd)
        return fd >= 0

    # --- the two threads ---

    def _read(self) -> None:
        try:
            readable = select.poll()
            readable.register(self._read_fd, select.POLLIN)
            busy_s = 0.0
            while not self._closing.is_set():
                rest_s = self._pace.value
                time.sleep(min(_RESTS * busy_s, _MOST_REST_S) if rest_s is None else rest_s)
                began = time.monotonic()
                if not readable.poll(100):
                    continue
                try:
                    chunk = os.read(self._read_fd, _READ_BYTES)
                except ConnectionResetError:
                    chunk = b''
                if not chunk:
                    self._whole.set()
                    return
                self.received_bytes += len(chunk)
                # Counted, not timed: this process may itself have stood still.
                tries = max(1, round(STALL_LIMIT_S / _TRY_S))
                while not self._closing.is_set():
                    try:
                        self._chunks.put(chunk, timeout=_TRY_S)
                        break
                    except queue.Full:
                        tries -= 1
                        if not tries:
                            self._fail(f'nothing could be written for {STALL_LIMIT_S:g} s')
                busy_s = time.monotonic() - began
        finally:
            # Closing alone would not do: the guardian has a copy.
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
            self.socket.close()
            self._closing.set()

    def _write(self) -> None:
        try:
            while True:
                try:
                    chunk = self._chunks.get(timeout=0.1)
                except queue.Empty:
                    if self._closing.is_set() and self._chunks.empty():
                        break
                    continue
                self._store(chunk)
            if self._whole.is_set() and self._compressor:
                self._append(self._compressor.flush())
        except OSError as exc:
            self._fail(exc.strerror or str(exc))
        finally:
            if not self._whole.is_set():
                self._file.close()

    def _fail(self, reason: str) -> None:
        self._failure = self._failure or reason
        self._closing.set()

    def _store(self, data: bytes) -> None:
        if self._compressor:
            data = self._compressor.compress(data)
        elif data is self._partial:
            self._digest.update(self._head)
            self._put(data)
            return
        self._append(data)

    def _append(self, data: bytes) -> None:
        self._digest.update(data)
        self._put(data)

    def _put(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._file.write(view):]


class BackgroundSnapshot:
    """QEMU's side: capability, descriptor, start, cut, end.

    :param name: of the descriptor in QEMU
    """

    def __init__(self, qemu: monitor.Monitor, member: records.MemberSpec, tag: str, name: str):
        self._qemu = qemu
        self._member = member
        self._tag = tag
        self._name = name

    def prepare(self, sink: MemorySink) -> None:
        """Everything that can be done while the guest runs.

        :raises exception.Refused: this guest's memory cannot be write-protected
        """
        self._qemu.claim_bandwidth(self._tag)
        try:
            self._qemu.set_background_snapshot(True)
        except monitor.MonitorError as exc:
            raise exception.Refused(
                member=self._member, device='memory', cause=exc.kwargs['reason'],
                remedy='give the guest anonymous or memfd memory and the host userfaultfd '
                       'with write protection') from exc
        self._qemu.pass_fd(self._name, sink.write_fd)
        sink.start()

    def start(self) -> None:
        self._qemu.migrate_to_fd(self._name)

    def wait_protected(self, timeout_s: float) -> None:
        """Return when the memory's instant is fixed and the guest may run.

        The status ``active`` comes before the write protection; the first
        counted page comes after it.

        :raises exception.HypervisorError: it failed or took too long
        """
        deadline = time.monotonic() + timeout_s
        while True:
            answer = self._qemu.migration()
            ram = answer.get('ram', {})
            if ram.get('normal', 0) + ram.get('duplicate', 0) > 0:
                return
            status = answer.get('status')
            if status in ('failed', 'cancelled', 'completed'):
                raise exception.HypervisorError(
                    member=self._member,
                    reason=f'memory: {answer.get("error-desc", status)}')
            if time.monotonic() > deadline:
                raise exception.HypervisorError(
                    member=self._member, reason=f'memory: not protected in {timeout_s:g} s')
            time.sleep(_POLL_S)

    def state(self) -> tuple[str, str]:
        """QEMU's word: status and, where it failed, why."""
        answer = self._qemu.migration()
        return answer.get('status', 'none'), answer.get('error-desc', '')
