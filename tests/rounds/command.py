# SPDX-License-Identifier: Apache-2.0
"""The real ``hotsnap`` command, started as people start it."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading

from tests.rounds import footprint

_CHECKOUT = pathlib.Path(__file__).parents[2]
_TIMEOUT_S = 240
_GRACE_S = 30


class CommandFailed(Exception):
    """The command ended with an error; the message is its own last line.

    :ivar message: without the command's words
    """

    def __init__(self, words: tuple[str, ...], message: str):
        super().__init__(f'hotsnap {" ".join(words[:2])}: {message}')
        self.message = message


class Hotsnap:
    """``hotsnap`` for the guests of one libvirt.

    :param uri: libvirt's
    :param state: folder for database, journal and snapshots
    :param weigh: measure all processes of each command, into ``peak_bytes``
    :param enter: the words of a program that becomes the command
    """

    def __init__(self, uri: str, state: pathlib.Path, *, weigh: bool = False,
                 enter: tuple[str, ...] = ()):
        self.uri = uri
        self._enter = enter
        self.state = state
        self.peak_bytes: dict[str, int] = {}
        self._weigh = weigh

    @property
    def log(self) -> pathlib.Path:
        return self.state / 'hotsnap.log'

    def create(self, name: str, domains: list[str], *, gate: str = 'auto',
               limits: tuple[str, ...] = (), delays_s: dict[str, float] | None = None) -> dict:
        """What the finished snapshot says of itself; members gain ``cut_wall_ns``.

        :param limits: more options, such as ``--max-hold-ms``
        :param delays_s: slept before a domain's record, by its name
        :raises CommandFailed: there is no snapshot
        """
        words = ['snapshot', 'create', name, '--wait', '-f', 'json', '--gate', gate, *limits]
        for domain in domains:
            words += ['--domain', domain]
        for domain, delay_s in (delays_s or {}).items():
            words += ['--record-delay', f'{domain}={delay_s}']
        shown = json.loads(self(*words))
        cuts = {member['id']: member['cut_wall_ns'] for member in self.manifest(shown)['members']}
        for member in shown['members']:
            member['cut_wall_ns'] = cuts[member['id']]
        return shown

    def manifest(self, shown: dict) -> dict:
        return json.loads((self.state / 'store' / shown['id'] / 'manifest.json').read_text())

    def restore(self, name: str, *, paused: bool = False) -> None:
        """:raises CommandFailed: the members are as before"""
        self('snapshot', 'restore', name, *(['--paused'] if paused else []))

    def delete(self, *names: str) -> None:
        """Delete snapshots."""
        self('snapshot', 'delete', *names)

    def __call__(self, *words: str) -> str:
        """Standard output of one command.

        Interrupted, it lets the command clean up first, which holds our guests.

        :raises CommandFailed: its exit status was not 0
        """
        self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        with subprocess.Popen(
                [*self._enter, sys.executable, '-m', 'hotsnap_nova.cmd.shell', '--uri', self.uri,
                 '--state', str(self.state), *words],
                cwd=_CHECKOUT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, text=True, start_new_session=True,
                env=os.environ | {'HOTSNAP_LAB': '1'}) as process, self._scales(process, words):
            try:
                out, err = process.communicate(timeout=_TIMEOUT_S)
            except BaseException:
                _end(process)
                raise
        if process.returncode:
            lines = err.strip().splitlines() or [f'exit status {process.returncode}']
            raise CommandFailed(words, lines[-1].removeprefix('hotsnap: '))
        return out

    @contextlib.contextmanager
    def _scales(self, process, words):
        if not self._weigh:
            yield
            return
        over = threading.Event()
        key = words[1]

        def weigh():
            while not over.wait(0.1):
                self.peak_bytes[key] = max(self.peak_bytes.get(key, 0),
                                           footprint.tree_bytes(process.pid))
        thread = threading.Thread(target=weigh, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _end(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.communicate(timeout=_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
