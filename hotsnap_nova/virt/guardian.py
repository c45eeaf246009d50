# SPDX-License-Identifier: Apache-2.0
"""A process that opens gates and resumes guests when the participant cannot.

Started before the first gate closes. It knows which guests are armed, and acts
for each when the guest's lease ends, or at once for all when its standard input
closes: the kernel does that when the participant dies, however it dies. It also
ends the storage daemons that such a participant leaves, and takes out of the
guests what it had put there.

Until it is disarmed it acts again and again: what it found running may have been
about to stop.

It holds a copy of each armed guest's memory socket. A participant that stands still
does not empty it; the guest's QEMU, in need of memory that waits to be sent, then
answers nobody. To shut the socket down needs nothing of QEMU and comes first.

Lines of JSON on standard input, a socket, and on standard output::

    {"arm": MEMBER, "filters": [NAME …], "deadline_ns": CLOCK_MONOTONIC,
     "memory": whether a descriptor comes along}
    {"daemon": PID}                         said by itself, see `disks.targets`
    {"watch": [MEMBER …], "tag": TAG}       swept when standard input closes
    {"forget": [MEMBER …]}
    {"disarm": [MEMBER …], "number": N}     answered by {"fired": [MEMBER …], "number": N}

It prints ``{"ready": true}`` once it has reached libvirt.

It outlives the service by design; see `outliving`.
"""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time

from hotsnap_nova import exception
from hotsnap_nova.virt import outliving

_START_TIMEOUT_S = 30.0
#: Between one attempt to let a guest go and the next.
_AGAIN_S = 0.2
#: How long the guardian outlives the participant, at most.
_LAST_TRIES_S = 120.0
#: How long those who disarm wait for what hung QEMUs have the guardian wait for.
_DISARM_S = 1.0


class Guardian:
    """The participant's end of one guardian process.

    :param uri: libvirt's, for the guardian's own connection
    """

    def __init__(self, uri: str):
        self._lock = threading.Lock()
        self._saying = threading.Lock()
        self._ready = False
        self._asked = 0
        self._words, theirs = socket.socketpair()
        self._process = outliving.start('hotsnap_nova.virt.guardian', uri, purpose='guardian',
                                        stdin=theirs, stdout=subprocess.PIPE)
        theirs.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_ready(self) -> None:
        """:raises exception.HostUnreachable: it does not reach libvirt"""
        with self._lock:
            if not self._ready:
                self._ready = bool(self._answer(_START_TIMEOUT_S).get('ready'))


    def arm(self, member: str, filters: tuple[str, ...], deadline_ns: int,
            memory: socket.socket) -> None:
        """From now on the guest is watched over.

        Not answered: what is in the socket is read even if we die now.

        :param memory: the end of its memory's socket that we read from
        """
        handed = [memory.fileno()] if memory.fileno() >= 0 else []
        self._say({'arm': member, 'filters': list(filters), 'deadline_ns': deadline_ns,
                   'memory': bool(handed)}, handed)

    @property
    def listens(self) -> int:
        """The descriptor for a process to say that it is to end, should ours die."""
        return self._words.fileno()

    def watch(self, members: tuple[str, ...], tag: str) -> None:
        """Should we die, take this snapshot's things out of these guests."""
        self._say({'watch': list(members), 'tag': tag})

    def forget(self, members: tuple[str, ...]) -> None:
        """They are clean again."""
        self._say({'forget': list(members)})

    def disarm(self, members: tuple[str, ...]) -> frozenset[str]:
        """Members for which it had acted before it read this."""
        with self._lock:
            self._asked += 1
            self._say({'disarm': list(members), 'number': self._asked})
            while (answer := self._answer(5.0)).get('number') != self._asked:
                pass    # the late answer to a question that was given up
            return frozenset(answer['fired'])

    def alive(self) -> bool:
        """Whether it would act: its process is there and reaches libvirt."""
        if self._process.poll() is not None:
            return False
        try:
            self.wait_ready()
            self.disarm(())
        except exception.HostUnreachable:
            return False
        return True

    def close(self) -> None:
        """End it; whoever is armed still is let go."""
        with contextlib.suppress(OSError):
            self._words.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _say(self, words: dict, handed: list[int] | None = None) -> None:
        line = memoryview(json.dumps(words).encode() + b'\n')
        try:
            with self._saying:
                if handed:
                    line = line[socket.send_fds(self._words, [line], handed):]
                while line:
                    line = line[self._words.send(line):]
        except OSError as exc:
            raise exception.HostUnreachable(host='this host', reason='the guardian died') from exc

    def _answer(self, timeout_s: float) -> dict:
        readable, _, _ = select.select([self._process.stdout], [], [], timeout_s)
        line = self._process.stdout.readline() if readable else b''
        if not line:
            raise exception.HostUnreachable(
                host='this host', reason='the guardian does not answer')
        return json.loads(line)


# --- the guardian process itself ---


class _Watched(threading.Thread):
    """One armed guest; its own thread, for one QEMU that hangs must not keep others waiting."""

    def __init__(self, find, member: str, filters: tuple[str, ...], deadline_ns: int,
                 memory: int | None):
        super().__init__(name=f'guard-{member}', daemon=True)
        self._find = find
        self._member = member
        self._filters = filters
        self._deadline_ns = deadline_ns
        self._memory = None if memory is None else socket.socket(fileno=memory)
        self._disarmed = threading.Event()
        self._now = threading.Event()
        self._acting = threading.Lock()
        self.fired = False

    def run(self) -> None:
        wait_s = (self._deadline_ns - time.monotonic_ns()) / 1e9
        self._now.wait(max(0.0, wait_s))
        while True:
            with self._acting:
                if self._disarmed.is_set():
                    return
                self.fired = True
                done = self._let_go()
            if self._now.is_set() and done:
                return    # nobody is left who could stop it again
            self._disarmed.wait(_AGAIN_S)

    def disarm(self, until: float) -> bool:
        """Whether it has acted; it does so no more, nor is it about to.

        :param until: by the monotonic clock; a QEMU that still hangs then has it in the middle
        """
        self._disarmed.set()
        if not self._acting.acquire(timeout=max(0.0, until - time.monotonic())):
            return True
        try:
            self._now.set()
            if self._memory:
                self._memory.close()
            return self.fired
        finally:
            self._acting.release()

    def abandoned(self) -> None:
        """Nobody will disarm it: act now, until it works."""
        self._now.set()

    def _let_go(self) -> bool:
        """Whether every part of it worked; each is tried whatever the others do."""
        from hotsnap_nova.virt.gates import gate
        if self._memory:
            with contextlib.suppress(OSError):    # shut down already
                self._memory.shutdown(socket.SHUT_RDWR)
        try:
            found = self._find(self._member)
        except exception.MemberNotFound:
            return True
        except exception.HotsnapError:
            return False
        failed = []

        def attempt(part, *arguments):
            try:
                return part(*arguments)
            except exception.HotsnapError as exc:
                failed.append(exc)
                return None

        qemu = found.monitor
        gate.open_all(qemu, self._filters)
        # Without its socket it fails by itself, but not at once.
        if attempt(qemu.background_snapshot):
            with contextlib.suppress(exception.HotsnapError):
                qemu.cancel_migration()
        state = attempt(found.state)
        if state is not None and state.may_be_ours:
            attempt(qemu.cont)
        return not failed


def main(uri: str) -> None:
    """Watch over guests until standard input closes, and let them go."""
    from hotsnap_nova.virt import guest, sweep  # a participant need not load this twice

    outliving.ignore_the_end_of_others()
    connections = [guest.connect(uri)]
    reconnecting = threading.Lock()

    def find(member: str):
        with reconnecting:
            if not connections[-1].isAlive():
                connections[-1] = guest.connect(uri)
        return guest.Guest(connections[-1], member)

    watched: dict[str, _Watched] = {}
    daemons: dict[int, int] = {}
    tags: dict[str, str] = {}

    def obey(words: dict) -> None:
        if 'arm' in words:
            watched[words['arm']] = _Watched(find, words['arm'], tuple(words['filters']),
                                             words['deadline_ns'], words.get('memory'))
            watched[words['arm']].start()
        elif 'daemon' in words:
            daemons[words['daemon']] = _started(words['daemon'])
        elif 'watch' in words:
            tags.update(dict.fromkeys(words['watch'], words['tag']))
        elif 'forget' in words:
            for member in words['forget']:
                tags.pop(member, None)
        elif 'disarm' in words:
            until = time.monotonic() + _DISARM_S
            fired = [member for member in words['disarm']
                     if member in watched and watched.pop(member).disarm(until)]
            _answer({'fired': fired, 'number': words['number']})

    _answer({'ready': True})
    try:
        for words in _lines():
            obey(words)
    finally:
        # However it ended: nobody stays behind.
        for each in watched.values():
            each.abandoned()
    for pid, started in daemons.items():
        if _started(pid) == started:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)

    def sweep_member(member: str, tag: str) -> None:
        # This snapshot's things only, and nobody is resumed: the next process
        # may be at work already. It cleans up too; the sooner the better.
        with contextlib.suppress(exception.HotsnapError):
            sweep.member(find(member), tag)

    # Each in a thread of its own: one QEMU that hangs must not keep another's guest.
    sweeping = [threading.Thread(target=sweep_member, args=item, daemon=True)
                for item in tags.items()]
    for each in sweeping:
        each.start()
    ends = time.monotonic() + _LAST_TRIES_S
    for each in (*watched.values(), *sweeping):
        each.join(max(0.0, ends - time.monotonic()))


def _lines():
    """Yield the words of each line, until standard input closes."""
    participant = socket.socket(fileno=os.dup(sys.stdin.fileno()))
    rest, handed = b'', []
    while True:
        try:
            data, descriptors, _, _ = socket.recv_fds(participant, 65536, 16)
        except ConnectionError:
            return
        if not data:
            return
        handed += descriptors
        *lines, rest = (rest + data).split(b'\n')
        for words in map(json.loads, lines):
            # The kernel keeps descriptors in the order of the lines they came with.
            if 'memory' in words:
                words['memory'] = handed.pop(0) if words['memory'] else None
            yield words


def _answer(words: dict) -> None:
    with contextlib.suppress(BrokenPipeError):    # the participant died; what it said counts
        print(json.dumps(words), flush=True)


def _started(pid: int) -> int | None:
    """When a process began, in clock ticks since boot; None where there is none."""
    try:
        with open(f'/proc/{pid}/stat') as stat:
            return int(stat.read().rsplit(')', 1)[1].split()[19])
    except (OSError, IndexError):
        return None


if __name__ == '__main__':
    main(sys.argv[1])
