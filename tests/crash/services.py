# SPDX-License-Identifier: Apache-2.0
"""The harness's ends of the services: started, told where to stand still, killed."""

import contextlib
import json
import os
import pathlib
import queue
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable

from tests.lab import enclosure

#: In the environment of whatever a service starts.
MARK = 'HOTSNAP_CRASH'
_START_S = 180.0
_PEER = struct.Struct('3i')    # pid, uid, gid
_CHECKOUT = pathlib.Path(__file__).parents[2]


class ServiceError(Exception):
    """A service does not start, or does not come to where it should stand still."""


class Control:
    """Where services are met, by the socket ``control`` in this folder; see `probe`."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.path = folder / 'control'
        self._known: dict[str, Service] = {}
        self._closing = False
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def know(self, service: 'Service') -> 'Service':
        """From now on it is met."""
        self._known[service.name] = service
        return service

    def close(self) -> None:
        """Meet nobody any more."""
        self._closing = True
        self._listener.close()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                if self._closing:
                    return
                raise    # for people to read: without this thread no service is ever met again
            threading.Thread(target=self._hear, args=(connection,), daemon=True).start()

    def _hear(self, connection):
        # Its number here: it may be in a namespace of its own.
        pid, _, _ = _PEER.unpack(connection.getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        # A killed service is the other end of a reset connection.
        with contextlib.suppress(OSError), connection.makefile('r') as lines:
            service = self._known[json.loads(lines.readline())['name']]
            service.met(connection, pid)
            for line in lines:
                service.told.put((pid, json.loads(line)))


class Services(Control):
    """All services of one run, and the process that forks them."""

    def __init__(self, folder: pathlib.Path):
        super().__init__(folder)
        with open(folder / 'services.log', 'ab') as log:
            self._forks = subprocess.Popen(
                [sys.executable, '-m', 'tests.crash.process'], cwd=_CHECKOUT, text=True,
                stdin=subprocess.PIPE, stdout=log, stderr=log,
                env=os.environ | {'PYTHONPATH': str(_CHECKOUT)})

    def add(self, name: str, environment: dict[str, str] | None = None, **given) -> 'Service':
        """A service, not started; ``given``: see `process`."""
        mark, log = f'{self.folder}/{name}', self.folder / f'{name}.log'
        given |= {'name': name, 'control': str(self.path), 'log': str(log),
                  'environment': {MARK: mark} | (environment or {})}
        return self.know(Service(name, mark, log, lambda: self._fork(given)))

    def close(self) -> None:
        """End all of them."""
        for service in self._known.values():
            service.kill(with_children=True)
        self._forks.stdin.close()
        self._forks.wait()
        super().close()

    def _fork(self, given):
        self._forks.stdin.write(json.dumps(given) + '\n')
        self._forks.stdin.flush()


class Service:
    """One service, in one process after the other.

    :param mark: what `MARK` is to what it starts
    :param begin: starts it, and need not wait for it
    :ivar told: (pid, words) of whatever it says
    :ivar kinds: names of all commands that were met
    """

    def __init__(self, name: str, mark: str, log: pathlib.Path, begin: Callable[[], None]):
        self.name = name
        self.told: queue.Queue = queue.Queue()
        self.kinds: set[str] = set()
        self.pid: int | None = None
        self._mark = mark
        self._log = log
        self._begin = begin
        self._socket: socket.socket | None = None
        self._began: int | None = None
        self._met = threading.Event()

    def start(self) -> None:
        """Have it started; see `wait_ready`."""
        self._met.clear()
        self._begin()

    def wait_ready(self) -> None:
        """
        :raises ServiceError: it does not serve
        """
        if not self._met.wait(_START_S):
            raise ServiceError(f'{self.name} does not start')
        self._wait_for(lambda told: 'ready' in told, _START_S)

    def met(self, connection: socket.socket, pid: int) -> None:
        self.pid, self._began = pid, enclosure.start_time(pid)
        self._socket = connection
        self._met.set()

    @property
    def lives(self) -> bool:
        return self.pid is not None and enclosure.start_time(self.pid) == self._began is not None

    def tell(self) -> None:
        """From now on it tells its steps, in ``told``."""
        self._order(do='tell')

    def stand(self, word: str, when: str) -> None:
        """It stands still at this step; see `wait_standing`."""
        self._order(do='stand', word=word, when=when)

    def hold(self, word: str, when: str, until: str) -> None:
        """It stands still at this step until it has met another one."""
        self._order(do='hold', word=word, when=when, until=until)

    def nothing(self) -> None:
        self._order(do='nothing')

    def wait_standing(self, word: str, when: str, timeout_s: float) -> bool:
        """Whether it stands there now, after waiting for that."""
        try:
            self._wait_for(lambda told: (told.get('step'), told.get('when')) == (word, when),
                           timeout_s)
        except ServiceError:
            return False
        return True

    def must_stand(self, word: str, when: str, timeout_s: float) -> None:
        """Return when it stands there.

        :raises ServiceError: it does not come to it in time
        """
        if not self.wait_standing(word, when, timeout_s):
            raise ServiceError(f'{self.name} does not come to: {word}')

    def go(self, word: str, when: str) -> None:
        """It goes on from there."""
        self._say(do='go', word=word, when=when)

    @contextlib.contextmanager
    def frozen(self):
        """For the block it does nothing at all; if it lives afterwards, it goes on."""
        if self.lives:
            os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            if self.lives:
                os.kill(self.pid, signal.SIGCONT)

    def kill(self, with_children: bool = False) -> None:
        """SIGKILL; return when it is gone.

        :param with_children: whatever it started, too, all in one instant
        """
        pids = self.children() if with_children else []
        if self.lives:
            pids.append(self.pid)
        kill(pids)

    def children(self) -> list[int]:
        """What descends from it or a predecessor, and lives."""
        mark = f'{MARK}={self._mark}'.encode()
        found = []
        for entry in pathlib.Path('/proc').glob('[0-9]*'):
            try:
                if mark in (entry / 'environ').read_bytes().split(b'\0'):
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def say_where_it_is(self) -> None:
        """Have it write to its log what each of its threads is at, and what it started."""
        with open(self._log, 'a') as log:
            for pid in self.children():
                with contextlib.suppress(OSError):
                    process = pathlib.Path(f'/proc/{pid}')
                    words = (process / 'cmdline').read_text().replace('\0', ' ')
                    print(f'{pid} waits in {(process / "wchan").read_text()}: {words}', file=log)
        if self.lives:
            os.kill(self.pid, signal.SIGUSR1)
            time.sleep(0.5)

    def steps(self) -> list[str]:
        """Words of all that it has told since it was asked to."""
        found = []
        while not self.told.empty():
            _, words = self.told.get()
            if words.get('when') == 'before':
                found.append(words['step'])
                self.kinds.add(words['kind'])
        return found

    def _order(self, **words):
        while not self.told.empty():
            self.told.get()
        self._say(**words)
        self._wait_for(lambda told: 'done' in told, _START_S)

    def _say(self, **words):
        self._socket.sendall(json.dumps(words).encode() + b'\n')

    def _wait_for(self, is_it, timeout_s):
        ends = time.monotonic() + timeout_s
        while True:
            try:
                pid, words = self.told.get(timeout=max(0.0, min(0.2, ends - time.monotonic())))
            except queue.Empty:
                if time.monotonic() >= ends or not self.lives:
                    raise ServiceError(f'{self.name} does not say what it should') from None
                continue
            if pid == self.pid and is_it(words):
                return


def kill(pids: list[int]) -> None:
    """SIGKILL to all, as a loss of power does: none sees another's end."""
    began = {pid: enclosure.start_time(pid) for pid in pids}
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
    while any(start and enclosure.start_time(pid) == start for pid, start in began.items()):
        time.sleep(0.002)
