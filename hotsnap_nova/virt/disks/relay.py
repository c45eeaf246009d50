# SPDX-License-Identifier: Apache-2.0
"""Links between guests and storage daemons that can always be cut.

See `targets` for why they are there. A link carries bytes and understands none,
but for what `nbd` hears in passing.
"""

import contextlib
import os
import selectors
import socket
import threading
import time

from hotsnap_nova.virt.disks import nbd

_BUFFER = 256 * 1024
#: A target that answers nothing for so long, while asked, counts as hung.
HANG_LIMIT_S = 5.0
#: How long QEMU may negotiate, in all: the guest stands meanwhile.
_NEGOTIATION_LIMIT_S = 0.5


class _Pipe:
    """One direction of a link: at most one buffer on its way."""

    def __init__(self, source: socket.socket, sink: socket.socket, change=bytes):
        self.source = source
        self.sink = sink
        self.change = change
        self.pending = memoryview(b'')


class _Link:
    """QEMU's socket and the daemon's, for one disk."""

    def __init__(self, name: str, ours: socket.socket, daemon: socket.socket, greeting: bytes):
        self.name = name
        self.request = _Pipe(ours, daemon)
        self.conversation = nbd.Conversation()
        self.reply = _Pipe(daemon, ours, self.conversation.feed)
        self.reply.pending = memoryview(greeting)
        self.limit_s = _NEGOTIATION_LIMIT_S
        self.negotiating = True
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
                link.negotiating = False
                link.conversation.transmit()
                link.asked_at = None

    def failure(self, name: str) -> str | None:
        """Why a link was cut by us; None while it is up or was closed in order."""
        return self._failures.get(name)

    def refusal(self, name: str) -> str | None:
        """Why the daemon first refused a request, in the host's words."""
        with self._lock:
            link = self._links.get(name)
        return os.strerror(link.conversation.error) if link and link.conversation.error else None

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
                if self._move(link.reply) and not link.negotiating:
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
                pipe.pending = memoryview(pipe.change(bytes(self._buffer[:count])))
                if not pipe.pending:
                    continue
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
