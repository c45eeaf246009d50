# SPDX-License-Identifier: Apache-2.0
"""The real ``hotsnap`` command, run as its users run it, and the processes it makes."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time
import uuid

_CHECKOUT = pathlib.Path(__file__).parents[2]
#: For tests whose subject is not the limits: a loaded machine keeps these.
PATIENT = ('--max-pause-ms', '20000', '--max-hold-ms', '30000')


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a command ended; ``output`` and ``errors`` are what it printed."""

    status: int
    output: str
    errors: str

    @property
    def json(self):
        return json.loads(self.output)


class Running(subprocess.Popen):
    """A command under way; a test that fails does not wait for it."""

    def __exit__(self, kind, *error):
        if kind is not None:
            self.kill()
            for pipe in (self.stdout, self.stderr):
                pipe.close()     # its children may hold the other ends open
        super().__exit__(kind, *error)


class Hotsnap:
    """One user's hotsnap: a state folder, a store and a libvirt.

    :param folder: for the state, and for the store unless it is on ``store``
    :param store: a :class:`tests.functional.brokenstore.BrokenStore`
    :param enter: the words of a program that becomes the command
    """

    def __init__(self, uri: str, folder: pathlib.Path, store=None, enter: tuple[str, ...] = ()):
        self.state = folder / 'state'
        self.store = store.path / 'store' if store else self.state / 'store'
        self._uri = uri
        self._enter = store.enter if store else enter
        self._mark = f'HOTSNAP_TEST={uuid.uuid4()}'

    def start(self, *words: str, program: tuple[str, ...] = ('hotsnap_nova.cmd.shell',),
              ) -> Running:
        """The running command; its output goes to pipes."""
        name, _, value = self._mark.partition('=')
        return Running(
            [*self._enter, sys.executable, '-m', *program, '--uri', self._uri, '--state',
             str(self.state), '--store', str(self.store), *words],
            cwd=_CHECKOUT, env=os.environ | {
                name: value, 'PYTHONPATH': str(_CHECKOUT),
                'OS_HOTSNAP__LOCK_PATH': str(self.state.parent / 'locks')},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, *words: str, timeout_s: float = 120, **options) -> Outcome:
        """The ended command."""
        with self.start(*words, **options) as running:
            try:
                output, errors = running.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired:
                running.kill()
                raise
        return Outcome(running.returncode, output, errors)

    def create(self, name: str, guests, *words: str, **options) -> Outcome:
        """``snapshot create --wait`` of these guests."""
        return self.run(*self.creating(name, guests, *words), **options)

    @staticmethod
    def creating(name: str, guests, *words: str) -> tuple[str, ...]:
        """The words of ``snapshot create --wait``, patient unless ``words`` say otherwise."""
        domains = [word for guest in guests for word in ('--domain', guest.domain_name)]
        return ('snapshot', 'create', name, '--wait', *domains, *PATIENT, *words)

    def show(self, name: str) -> dict:
        """What ``snapshot show`` tells."""
        return self.run('snapshot', 'show', name, '-f', 'json').json

    def processes(self) -> list[int]:
        """Every process that descends from a command of this user and still lives."""
        mark = self._mark.encode()
        found = []
        for entry in pathlib.Path('/proc').glob('[0-9]*'):
            try:
                if mark in (entry / 'environ').read_bytes().split(b'\0'):
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def drafts(self) -> list[pathlib.Path]:
        """Files of snapshots that were begun and not ended."""
        return [path for path in (self.store / '.drafts').rglob('*') if path.is_file()]

    def journal(self) -> list[str]:
        """Parts that the host remembers."""
        return [path.name for path in (self.state / 'journal').glob('*')]


def until(condition, timeout_s: float = 30.0, every_s: float = 0.05):
    """The first true answer of ``condition``, or its last answer when time is up."""
    deadline = time.monotonic() + timeout_s
    while not (answer := condition()) and time.monotonic() < deadline:
        time.sleep(every_s)
    return answer


def stands_still(pid: int) -> bool:
    """Whether a process was stopped by a signal."""
    stat = pathlib.Path(f'/proc/{pid}/stat').read_text()
    return stat.rpartition(')')[2].split()[0] == 'T'
