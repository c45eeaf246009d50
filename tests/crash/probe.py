# SPDX-License-Identifier: Apache-2.0
"""A service that stands still at a command, where it is told to.

It connects to the socket ``control`` and says ``{"name": …}``; then, a line each::

    ◄ {"do": "tell"}                            every step is told from now on
    ◄ {"do": "stand", "word": …, "when": …}     it stands still there, once
    ◄ {"do": "go", "word": …, "when": …}        it goes on
    ◄ {"do": "hold", …, "until": word}          the same, until it has met that elsewhere
    ◄ {"do": "nothing"}                         all of that is over
    ► {"done": …}                               to each of these
    ► {"step": …, "when": …, "kind": …}         where it is: before or after which command
    ► {"ready": true}                           it serves
"""

import contextlib
import json
import os
import signal
import socket
import threading

from hotsnap_nova import runner
from tests.crash import steps


class Probe:
    """A service's end of the control socket.

    The socket's end is the end of the process: nothing outlives the run.

    :param called: hosts' names in the steps, by their own
    """

    def __init__(self, control: str, name: str, called: dict[str, str] | None = None):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(control)
        self._lines = self._socket.makefile('r')
        self._saying = threading.Lock()
        self._wanted: dict[tuple[str, str], threading.Event] = {}
        self._standing: dict[tuple[str, str], threading.Event] = {}
        self._held: dict[str, tuple[str, str]] = {}    # where, by what ends it
        self._tells = False
        self._called = called or {}
        self.say(name=name)
        threading.Thread(target=self._listen, daemon=True).start()

    def say(self, **words) -> None:
        with self._saying, contextlib.suppress(OSError):
            self._socket.sendall(json.dumps(words).encode() + b'\n')

    def meet(self) -> None:
        """From now on every command of every machine is met."""
        around = self._around

        class Met(runner.Runner):
            def __init__(self, machine, executors, *more, **named):
                super().__init__(machine, {kind: around(execute)
                                           for kind, execute in executors.items()}, *more, **named)
        runner.Runner = Met

    def _around(self, execute):
        def met(command):
            word = self._word(command)
            self._meet(word, 'before', command)
            outcome = execute(command)
            self._meet(word, 'after', command)
            return outcome
        return met

    def _word(self, command):
        word = steps.word(command)
        for own, name in self._called.items():
            word = word and word.replace(own, name)
        return word

    def _meet(self, word, when, command):
        goes_on = self._wanted.pop((word, when), None)
        if goes_on:
            self._standing[word, when] = goes_on
        if goes_on or (self._tells and word):
            self.say(step=word, when=when, kind=steps.name_of(type(command)))
        if when == 'after' and word in self._held:
            self._let_go(self._held.pop(word))
        if goes_on:
            goes_on.wait()

    def _let_go(self, place):
        goes_on = self._standing.pop(place, None) or self._wanted.pop(place, None)
        if goes_on:
            goes_on.set()

    def _listen(self):
        for line in self._lines:
            told = json.loads(line)
            place = told.get('word'), told.get('when')
            match told['do']:
                case 'tell':
                    self._tells = True
                case 'stand':
                    self._wanted[place] = threading.Event()
                case 'hold':
                    self._wanted[place] = threading.Event()
                    self._held[told['until']] = place
                case 'go':
                    self._let_go(place)
                case 'nothing':
                    self._tells = False
                    self._held.clear()
                    self._wanted.clear()
                    for goes_on in self._standing.values():
                        goes_on.set()
                    self._standing.clear()
            self.say(done=told['do'])
        os.kill(os.getpid(), signal.SIGKILL)
