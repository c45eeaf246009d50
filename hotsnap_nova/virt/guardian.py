# SPDX-License-Identifier: Apache-2.0
"""A process that opens gates and resumes guests when the participant cannot.

Started before the first gate closes. It knows which guests are armed, and acts
for each when the guest's lease ends, or at once for all when its standard input
closes: the kernel does that when the participant dies, however it dies. It also
ends the storage daemons that such a participant leaves.

Lines of JSON on standard input and output::

    {"arm": MEMBER, "filters": [NAME …], "deadline_ns": CLOCK_MONOTONIC}
    {"daemon": PID, "started": CLOCK_TICKS}
    {"disarm": [MEMBER …]}     answered by {"fired": [MEMBER …]}

It prints ``{"ready": true}`` once it has reached libvirt.
"""

import contextlib
import dataclasses
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time

from hotsnap_nova import exception

_START_TIMEOUT_S = 30.0


class Guardian:
    """The participant's end of one guardian process.

    :param uri: libvirt's, for the guardian's own connection
    """

    def __init__(self, uri: str):
        self._lock = threading.Lock()
        self._ready = False
        self._process = subprocess.Popen(
            [sys.executable, '-m', 'hotsnap_nova.virt.guardian', uri],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
            env=os.environ | {'PYTHONPATH': os.pathsep.join(path for path in sys.path if path)})

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_ready(self) -> None:
        """:raises exception.HostUnreachable: it does not reach libvirt"""
        with self._lock:
            if not self._ready:
                self._ready = bool(self._answer(_START_TIMEOUT_S).get('ready'))

    def arm(self, member: str, filters: tuple[str, ...], deadline_ns: int) -> None:
        """From now on the guest is watched over.

        Not answered: what is in the pipe is read even if we die now.
        """
        self._say({'arm': member, 'filters': list(filters), 'deadline_ns': deadline_ns})

    def daemon(self, pid: int) -> None:
        """End this process too, should ours die."""
        self._say({'daemon': pid, 'started': _started(pid)})

    def disarm(self, members: tuple[str, ...]) -> frozenset[str]:
        """Members for which it had acted before it read this."""
        with self._lock:
            self._say({'disarm': list(members)})
            return frozenset(self._answer(5.0)['fired'])

    def close(self) -> None:
        """End it; whoever is armed still is let go."""
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _say(self, words: dict) -> None:
        try:
            self._process.stdin.write(json.dumps(words).encode() + b'\n')
            self._process.stdin.flush()
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


@dataclasses.dataclass
class _Armed:
    filters: list[str]
    deadline_ns: int
    fired: bool = False


def main(uri: str) -> None:
    """Watch over guests until standard input closes."""
    from hotsnap_nova.virt import gate, guest  # a participant need not load this twice

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is not for us
    connection = guest.connect(uri)
    guests: dict[str, guest.Guest] = {}
    armed: dict[str, _Armed] = {}
    daemons: dict[int, int] = {}

    def fire(member: str) -> None:
        entry = armed[member]
        entry.fired = True
        with contextlib.suppress(exception.HotsnapError):
            found = guests.get(member) or guest.Guest(connection, member)
            gate.open_all(found.monitor, tuple(entry.filters))
            # A participant that stands still does not empty the memory's
            # socket; the guest would get stuck in its own resumption.
            if found.monitor.background_snapshot():
                with contextlib.suppress(exception.HotsnapError):
                    found.monitor.cancel_migration()
            if found.state().ours:
                found.monitor.cont()

    def obey(words: dict) -> None:
        if 'arm' in words:
            armed[words['arm']] = _Armed(words['filters'], words['deadline_ns'])
        elif 'daemon' in words:
            daemons[words['daemon']] = words['started']
        elif 'disarm' in words:
            fired = [member for member in words['disarm']
                     if armed.pop(member, _Armed([], 0)).fired]
            print(json.dumps({'fired': fired}), flush=True)

    print(json.dumps({'ready': True}), flush=True)
    for words in _lines_and_deadlines(armed):
        if words:
            obey(words)
        for member, entry in list(armed.items()):
            if not entry.fired and time.monotonic_ns() >= entry.deadline_ns:
                fire(member)
    for member, entry in list(armed.items()):
        if not entry.fired:
            fire(member)
    for pid, started in daemons.items():
        if _started(pid) == started:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def _lines_and_deadlines(armed: dict[str, _Armed]):
    """Yield each line's words, and None whenever a deadline may have passed."""
    buffer = b''
    while True:
        pending = [entry.deadline_ns for entry in armed.values() if not entry.fired]
        timeout_s = (max(0.0, (min(pending) - time.monotonic_ns()) / 1e9) if pending else None)
        readable, _, _ = select.select([0], [], [], timeout_s)
        if not readable:
            yield None
            continue
        data = os.read(0, 65536)
        if not data:
            return
        *lines, buffer = (buffer + data).split(b'\n')
        for line in lines:
            yield json.loads(line)


def _started(pid: int) -> int | None:
    """When a process began, in clock ticks since boot; None where there is none."""
    try:
        with open(f'/proc/{pid}/stat') as stat:
            return int(stat.read().rsplit(')', 1)[1].split()[19])
    except (OSError, IndexError):
        return None


if __name__ == '__main__':
    main(sys.argv[1])
