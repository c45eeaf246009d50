# SPDX-License-Identifier: Apache-2.0
"""Processes of the cloud, kept by a supervisor in a PID namespace of its own.

What it started ends with it, however it ends, so that nothing outlives a cloud
whose owner was killed. The supervisor itself outlives ``make cloud``.
"""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

from tests.lab import enclosure

_PROGRAM = pathlib.Path(__file__).with_name('supervisor.py')
_RECORD = 'supervisor.json'
_NAMESPACES = ('unshare', '--mount', '--uts', '--pid', '--fork', '--kill-child', '--mount-proc',
               '--propagation', 'slave', '--')
_TIMEOUT_S = 60
_LOG_LINES = 15


class CloudError(Exception):
    """The cloud does not do what it should; the message says what, and which log to read."""


class Supervisor:
    """Talks to one supervisor.

    :param folder: where its processes run, their logs in ``logs``
    """

    def __init__(self, control: pathlib.Path, folder: pathlib.Path, logs: pathlib.Path):
        self.control = control
        self._folder = folder
        self._logs = logs

    def start(self, name: str, *argv, **environment: str) -> int:
        """Number of a new process, within the supervisor's namespace.

        Its log is ``<name>.log``. It sees of our environment only PATH, HOME and the language.
        """
        return self._ask(do='start', name=name, argv=[str(word) for word in argv],
                         env=_plain_environment() | environment, log=str(self.log(name)),
                         folder=str(self._folder))

    def run(self, name: str, *argv, timeout_s: float = 300, **environment: str) -> None:
        """Return when a command has ended well.

        :raises CloudError: it has not; with the last lines of its log
        """
        self.start(name, *argv, **environment)
        deadline = time.monotonic() + timeout_s
        while (ended := self.ended(name)) is None:
            if time.monotonic() > deadline:
                self.kill(name, signal.SIGKILL)
                raise CloudError(f'{name} took more than {timeout_s} s{self.last_lines(name)}')
            time.sleep(0.05)
        if ended:
            raise CloudError(f'{name} ended with {ended}{self.last_lines(name)}')

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to a process and what it forked; nothing happens where it has ended."""
        self._ask(do='signal', name=name, number=int(number))

    def stop(self, name: str, number: int = signal.SIGTERM, timeout_s: float = 60) -> None:
        """Return when the process has ended; it is killed where it does not."""
        self.kill(name, number)
        deadline = time.monotonic() + timeout_s
        while self.ended(name) is None:
            if time.monotonic() > deadline:
                self.kill(name, signal.SIGKILL)
            time.sleep(0.05)

    def ended(self, name: str) -> int | None:
        """The exit status of a process, negative for a signal; None while it runs.

        :raises CloudError: there never was one
        """
        try:
            return self.status()[name]['ended']
        except KeyError:
            raise CloudError(f'{name} was never started') from None

    def runs(self, name: str) -> bool:
        """Whether a process of this name was started and has not ended."""
        known = self.status().get(name)
        return known is not None and known['ended'] is None

    def status(self) -> dict[str, dict]:
        """By name: ``pid`` within the namespace, ``ended`` with its exit status or None."""
        return self._ask(do='status')

    def log(self, name: str) -> pathlib.Path:
        return self._logs / f'{name}.log'

    def last_lines(self, name: str) -> str:
        """The end of a process's log and its place, to be put behind a complaint."""
        path = self.log(name)
        try:
            lines = path.read_text(errors='replace').splitlines()[-_LOG_LINES:]
        except FileNotFoundError:
            lines = []
        return ''.join(f'\n  {line}' for line in [f'see {path}:', *lines])

    def wait(self, name: str, what: str, condition, timeout_s: float = 180) -> None:
        """Return once ``condition()`` holds for a process.

        :raises CloudError: it has ended, or the time is over
        """
        deadline = time.monotonic() + timeout_s
        while not condition():
            if not self.runs(name):
                raise CloudError(f'{name} has ended{self.last_lines(name)}')
            if time.monotonic() > deadline:
                raise CloudError(f'{name}: {what} not within {timeout_s:.0f} s'
                                 f'{self.last_lines(name)}')
            time.sleep(0.1)

    def answers(self) -> bool:
        """Whether the supervisor is there."""
        try:
            self.status()
        except CloudError:
            return False
        return True

    def wait_until_answering(self) -> None:
        """
        :raises CloudError: not within a minute
        """
        deadline = time.monotonic() + _TIMEOUT_S
        while not self.answers():
            if time.monotonic() > deadline:
                raise CloudError(f'{self.control} does not answer; see {self._logs}')
            time.sleep(0.05)

    def _ask(self, **request):
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(_TIMEOUT_S)
                connection.connect(str(self.control))
                with connection.makefile('rw') as stream:
                    stream.write(json.dumps(request) + '\n')
                    stream.flush()
                    answer = json.loads(stream.readline())
        except (OSError, ValueError) as exc:
            raise CloudError(f'the supervisor at {self.control} does not answer: {exc}') from exc
        if 'error' in answer:
            raise CloudError(f'{request.get("name")}: {answer["error"]}')
        return answer['result']


def command(control: pathlib.Path, *options: str) -> list[str]:
    """The command line of a supervisor in namespaces of its own."""
    return [*_NAMESPACES, sys.executable, '-I', str(_PROGRAM), str(control), *options]


def launch(folder: pathlib.Path, logs: pathlib.Path, control: pathlib.Path) -> Supervisor:
    """A supervisor that lives on when we end, recorded in the folder so that ``end`` finds it."""
    with open(logs / 'supervisor.log', 'ab') as log:
        process = subprocess.Popen(command(control, '--leave'), cwd=folder, stdout=log,
                                   stderr=log, stdin=subprocess.PIPE, start_new_session=True,
                                   env=_plain_environment())
    # Nothing runs that is not on record: it begins only when it is told to.
    (folder / _RECORD).write_text(json.dumps(
        {'pid': process.pid, 'start': enclosure.start_time(process.pid)}))
    process.stdin.write(b'\n')
    process.stdin.close()
    supervisor = Supervisor(control, folder, logs)
    supervisor.wait_until_answering()
    return supervisor


def end(folder: pathlib.Path) -> None:
    """Kill the folder's supervisor and with it all its processes; return when it is gone."""
    try:
        record = json.loads((folder / _RECORD).read_text())
    except (FileNotFoundError, ValueError):
        return

    def lives() -> bool:
        return enclosure.start_time(record['pid']) == record['start']
    if not lives():
        return
    children = pathlib.Path(f'/proc/{record["pid"]}/task/{record["pid"]}/children').read_text()
    first = [(int(pid), enclosure.start_time(int(pid))) for pid in children.split()]
    os.kill(record['pid'], signal.SIGKILL)
    deadline = time.monotonic() + _TIMEOUT_S
    # A namespace's first process is gone only when all the others are.
    while lives() or any(start and enclosure.start_time(pid) == start for pid, start in first):
        if time.monotonic() > deadline:
            raise CloudError(f'process {record["pid"]} does not end')
        time.sleep(0.05)


def _plain_environment() -> dict[str, str]:
    return {'PATH': os.pathsep.join([os.path.join(sys.prefix, 'bin'), os.environ['PATH']]),
            'HOME': os.environ.get('HOME', '/root'), 'LC_ALL': 'C.UTF-8',
            # The services find one another on the loopback, whatever proxy leads elsewhere.
            'NO_PROXY': '*', 'no_proxy': '*'}
