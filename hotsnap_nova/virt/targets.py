# SPDX-License-Identifier: Apache-2.0
"""Where frozen disks are written, kept at arm's length from the guests.

QEMU opens no file of ours: it writes through NBD, over a descriptor it is
handed, to a ``qemu-storage-daemon`` that owns the images::

    QEMU ── socket pair ── Relay (this process) ── qemu-storage-daemon ── files

Why the relay: a drain in QEMU (a guest resetting its disk, a filter being
removed) waits for all writes to a target. Where the target hangs, the guest
would hang with it. A relay touches no file, so it can always close QEMU's end;
QEMU then fails those writes at once, and a copy-before-write filter with
``break-snapshot`` breaks the snapshot and nothing else. (Closing the *daemon's*
end does not do: a process stuck on a dead file system keeps its sockets; nor
does shutting down QEMU's own end, which QEMU 10.0 does not notice while it
waits to send.) If this process dies, the relay dies with it: the same end.

QEMU negotiates under its big lock, with the guest standing. So it is given a
link only once the daemon has greeted us, and while it negotiates a daemon that
does not answer is given up much sooner.
"""

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import threading
import time

from hotsnap_nova import exception

_BUFFER = 256 * 1024
#: A target that answers nothing for so long, while asked, counts as hung.
HANG_LIMIT_S = 5.0
#: The same while QEMU negotiates.
_NEGOTIATION_LIMIT_S = 0.5
_START_LIMIT_S = 30.0
#: NBD's greeting: two magic numbers and flags.
_GREETING_BYTES = 18


class _Pipe:
    """One direction of a link: at most one buffer on its way."""

    def __init__(self, source: socket.socket, sink: socket.socket):
        self.source = source
        self.sink = sink
        self.pending = memoryview(b'')


class _Link:
    """QEMU's socket and the daemon's, for one disk."""

    def __init__(self, name: str, ours: socket.socket, daemon: socket.socket, greeting: bytes):
        self.name = name
        self.request = _Pipe(ours, daemon)
        self.reply = _Pipe(daemon, ours)
        self.reply.pending = memoryview(greeting)
        self.limit_s = _NEGOTIATION_LIMIT_S
        #: Since when the daemon owes an answer; None: it owes none.
        self.asked_at: float | None = None

    def close(self) -> None:
        self.request.source.close()
        self.request.sink.close()


class Relay:
    """Carries bytes between guests and the storage daemon until it is closed."""

    def __init__(self):
        self._selector = selectors.DefaultSelector()
        self._wake_r, self._wake_w = socket.socketpair()
        for end in (self._wake_r, self._wake_w):
            end.setblocking(False)
        self._selector.register(self._wake_r, selectors.EVENT_READ, None)
        self._links: dict[str, _Link] = {}
        self._failures: dict[str, str] = {}
        self._buffer = bytearray(_BUFFER)
        self._closing = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name='disk-relay', daemon=True)
        self._thread.start()

    def add(self, name: str, daemon: socket.socket, greeting: bytes) -> socket.socket:
        """QEMU's end of a new link to ``daemon``; close it once QEMU has a copy.

        :param greeting: what the daemon has said already
        """
        theirs, ours = socket.socketpair()
        for end in (ours, daemon):
            end.setblocking(False)
        with self._lock:
            self._links[name] = _Link(name, ours, daemon, greeting)
        self._wake()
        return theirs

    def negotiated(self, name: str) -> None:
        """QEMU has its node: from now on the daemon may take its time."""
        with self._lock:
            if link := self._links.get(name):
                link.limit_s = HANG_LIMIT_S

    def failure(self, name: str) -> str | None:
        """Why a link was cut by us; None while it is up or was closed in order."""
        return self._failures.get(name)

    def close(self) -> None:
        """Cut every link at once; QEMU's pending writes fail. Repeatable."""
        self._closing = True
        self._wake()
        self._thread.join()

    def _wake(self) -> None:
        # An object, not a number: once closed it cannot be another's descriptor.
        with contextlib.suppress(OSError):
            self._wake_w.send(b'.')

    # --- the thread ---

    def _run(self) -> None:
        try:
            while not self._closing:
                self._watch()
                for key, _mask in self._selector.select(0.25):
                    if key.fileobj is self._wake_r:
                        self._wake_r.recv(4096)
                self._pump()
                self._cut_hung()
        finally:
            with self._lock:
                for link in self._links.values():
                    link.close()
                self._links.clear()
            self._selector.close()
            self._wake_r.close()
            self._wake_w.close()

    def _watch(self) -> None:
        """Ask the selector for just what each link can use now."""
        with self._lock:
            links = list(self._links.values())
        for link in links:
            wanted: dict[socket.socket, int] = {}
            for pipe in (link.request, link.reply):
                if pipe.pending:
                    wanted[pipe.sink] = wanted.get(pipe.sink, 0) | selectors.EVENT_WRITE
                else:
                    wanted[pipe.source] = wanted.get(pipe.source, 0) | selectors.EVENT_READ
            for end in (link.request.source, link.request.sink):
                self._register(end, wanted.get(end, 0))

    def _register(self, end: socket.socket, events: int) -> None:
        known = self._selector.get_map().get(end.fileno())
        if known is None and events:
            self._selector.register(end, events)
        elif known is not None and not events:
            self._selector.unregister(end)
        elif known is not None and known.events != events:
            self._selector.modify(end, events)

    def _pump(self) -> None:
        with self._lock:
            links = list(self._links.values())
        for link in links:
            try:
                if self._move(link.request) and link.asked_at is None:
                    link.asked_at = time.monotonic()
                if self._move(link.reply):
                    # An answer: whatever is still owed is owed from now.
                    link.asked_at = None if not link.request.pending else time.monotonic()
            except (ConnectionError, EOFError) as exc:
                self._cut(link, None if isinstance(exc, EOFError) else str(exc))

    def _move(self, pipe: _Pipe) -> bool:
        """Whether anything moved."""
        moved = False
        while True:
            if not pipe.pending:
                try:
                    count = pipe.source.recv_into(self._buffer)
                except BlockingIOError:
                    return moved
                if not count:
                    raise EOFError
                pipe.pending = memoryview(bytes(self._buffer[:count]))
            try:
                sent = pipe.sink.send(pipe.pending)
            except BlockingIOError:
                return moved
            pipe.pending = pipe.pending[sent:]
            moved = True

    def _cut_hung(self) -> None:
        now = time.monotonic()
        with self._lock:
            links = list(self._links.values())
        for link in links:
            if link.asked_at is not None and now - link.asked_at > link.limit_s:
                self._cut(link, f'no answer for {link.limit_s:g} s')

    def _cut(self, link: _Link, reason: str | None) -> None:
        if reason:
            self._failures[link.name] = reason
        with self._lock:
            self._links.pop(link.name, None)
        for end in (link.request.source, link.request.sink):
            self._register(end, 0)
        link.close()


class StorageDaemon:
    """One ``qemu-storage-daemon`` that exports fresh qcow2 images.

    :param images: export name → (path, virtual size in bytes); the files are
        made here and must not exist
    :raises exception.TargetFailed: an image could not be made
    """

    def __init__(self, images: dict[str, tuple[str, int]]):
        arguments = []
        for index, (name, (path, size)) in enumerate(images.items()):
            _create(path, size)
            arguments += [
                '--blockdev', f'driver=file,node-name=f{index},discard=unmap,'
                              f'filename={path.replace(",", ",,")}',
                '--blockdev', f'driver=qcow2,node-name=d{index},file=f{index},discard=unmap,'
                              'detect-zeroes=unmap,cache-size=4194304',
                '--export', f'type=nbd,id=e{index},node-name=d{index},name={name},writable=on']
        self._listener = socket.socket(socket.AF_UNIX)
        # An abstract, random address: no path to keep short, none to clean up.
        self._listener.bind('')
        self._listener.listen(len(images) + 1)
        self._log = os.memfd_create('storage-daemon', os.MFD_CLOEXEC)
        fd = self._listener.fileno()
        self._process = subprocess.Popen(
            ['qemu-storage-daemon', '--nbd-server', f'addr.type=fd,addr.str={fd}', *arguments],
            pass_fds=[fd], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=self._log, start_new_session=True)
        self.pid = self._process.pid

    def connect(self) -> tuple[socket.socket, bytes]:
        """A connection, and the greeting that came over it.

        :raises OSError: the daemon ended, or said nothing
        """
        client = socket.socket(socket.AF_UNIX)
        greeting = b''
        try:
            client.settimeout(0.25)
            client.connect(self._listener.getsockname())
            deadline = time.monotonic() + _START_LIMIT_S
            while len(greeting) < _GREETING_BYTES:
                with contextlib.suppress(TimeoutError):
                    greeting += client.recv(_GREETING_BYTES - len(greeting))
                if self._process.poll() is not None:
                    raise OSError(f'the storage daemon ended: {self._last_words()}')
                if time.monotonic() > deadline:
                    raise OSError('the storage daemon does not answer')
        except BaseException:
            client.close()
            raise
        return client, greeting

    def close(self, still=None) -> bool:
        """Whether it ended in order, its images flushed; it is gone in any case.

        (A process stuck in the kernel on a dead file system goes when the
        kernel lets it.)

        :param still: asked five times a second whether to go on waiting for a
            large flush; None: wait for ten seconds
        """
        self._listener.close()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 10.0
        while self._process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.2)
            if not still() if still else time.monotonic() > deadline:
                self._process.kill()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(1)
                break
        if self._log >= 0:
            os.close(self._log)
            self._log = -1
        return self._process.returncode == 0

    def _last_words(self) -> str:
        lines = os.pread(self._log, 4096, 0).decode(errors='replace').strip().splitlines()
        return lines[-1] if lines else f'status {self._process.returncode}'


def _create(path: str, size: int) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    made = subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', path, str(size)],
                          capture_output=True, text=True, check=False)
    if made.returncode:
        raise exception.TargetFailed(
            member=os.path.basename(os.path.dirname(path)), device=os.path.basename(path),
            reason=made.stderr.strip().splitlines()[-1] if made.stderr else 'qemu-img failed')
