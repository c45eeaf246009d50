# SPDX-License-Identifier: Apache-2.0
"""First process of a PID namespace: starts, signals and watches others, as it is asked.

Run by processes.py, not imported. Its end is the end of all it started, for the kernel kills a
PID namespace with its first process. Requests come to a socket, a JSON line each, and each is
answered by one: ``start``, ``signal``, ``status``.
"""

import argparse
import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys

_REQUEST_BYTES = 1 << 20
_CLIENT_TIMEOUT_S = 5


class Processes:
    """What was started here, by name; a name lives on when its process has ended."""

    def __init__(self):
        self._pids: dict[str, int] = {}
        self._ended: dict[str, int] = {}

    def start(self, name: str, argv: list[str], env: dict[str, str], log: str,
              folder: str) -> int:
        """The process's number in this namespace."""
        if name in self._pids and name not in self._ended:
            raise ValueError(f'{name} runs already')
        with open(log, 'ab') as output:
            # A session each: a signal then reaches whatever it has forked.
            process = subprocess.Popen(argv, env=env, cwd=folder, stdin=subprocess.DEVNULL,
                                       stdout=output, stderr=output, start_new_session=True)
        process.returncode = 0           # reaped below, with the orphans
        self._ended.pop(name, None)
        self._pids[name] = process.pid
        return process.pid

    def signal(self, name: str, number: int) -> None:
        """Reaches the process and its session; nothing happens where it has ended."""
        if name in self._pids and name not in self._ended:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._pids[name], number)

    def status(self) -> dict[str, dict]:
        return {name: {'pid': pid, 'ended': self._ended.get(name)}
                for name, pid in self._pids.items()}

    def reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            for name, own in self._pids.items():
                if own == pid:
                    self._ended[name] = os.waitstatus_to_exitcode(status)


def _answer(processes: Processes, request: dict):
    operation = request.pop('do')
    if operation not in ('start', 'signal', 'status'):
        raise ValueError(f'no such request: {operation}')
    return getattr(processes, operation)(**request)


def _serve_one(listener: socket.socket, processes: Processes) -> None:
    client, _address = listener.accept()
    with client, contextlib.suppress(OSError):
        client.settimeout(_CLIENT_TIMEOUT_S)
        with client.makefile('rw') as stream:
            try:
                answer = {'result': _answer(processes, json.loads(
                    stream.readline(_REQUEST_BYTES)))}
            except Exception as exc:  # whoever asked is told; this process must live on
                answer = {'error': f'{type(exc).__name__}: {exc}'}
            stream.write(json.dumps(answer) + '\n')


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument('socket')
    parser.add_argument('--hostname')
    parser.add_argument('--bind', action='append', default=[], metavar='FOLDER:OVER')
    parser.add_argument('--leave', action='store_true',
                        help='begin when a line is read from standard input, end if none comes')
    arguments = parser.parse_args()
    if arguments.leave and not sys.stdin.readline():
        return
    if arguments.hostname:
        socket.sethostname(arguments.hostname)
    for bind in arguments.bind:
        folder, _, over = bind.partition(':')
        subprocess.run(['mount', '--bind', folder, over], check=True)
    processes = Processes()
    wakeup_read, wakeup_write = os.pipe()
    os.set_blocking(wakeup_read, False)
    os.set_blocking(wakeup_write, False)
    signal.set_wakeup_fd(wakeup_write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener, selectors.DefaultSelector() as selector:
        listener.bind(arguments.socket)
        os.chmod(arguments.socket, 0o600)
        listener.listen(16)
        selector.register(listener, selectors.EVENT_READ)
        selector.register(wakeup_read, selectors.EVENT_READ)
        while True:
            for key, _events in selector.select():
                if key.fileobj is listener:
                    _serve_one(listener, processes)
                else:
                    os.read(wakeup_read, 4096)
            processes.reap()


if __name__ == '__main__':
    main()
