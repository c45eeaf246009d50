# SPDX-License-Identifier: Apache-2.0
"""Message → machine → commands, carried out in order.

A machine says what to do; whoever owns a `Runner` says how each kind of
command is done. The machine is consulted under a lock, commands run outside
of it, so that a host answers "working" while its engine works.

The first command of a list that fails ends that list (rule 1 of
doc/protocol.md) and the machine is told. The outcome of a command is handed
back at once; what the machine then commands comes before the rest.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping

from oslo_log import log as logging

from hotsnap_nova import exception
from hotsnap_nova.protocol import commands, messages

LOG = logging.getLogger(__name__)

#: Does one command; returns its outcomes, or raises.
Executor = Callable[[object], Iterable | None]


def cause_of(error: Exception, host: str = '') -> messages.Cause:
    """What the protocol says of an error: stable code, sentence and culprit."""
    if isinstance(error, exception.HotsnapError):
        return messages.Cause(error.code, str(error), host, str(error.kwargs.get('member', '')))
    return messages.Cause(exception.Bug.code, f'{type(error).__name__}: {error}', host)


class Runner:
    """Drives one machine from any number of threads.

    :param phases: phase by what is in it; what is logged
    :param clock_ns: the machine's time; CLOCK_MONOTONIC in production
    """

    def __init__(self, machine, executors: Mapping[type, Executor],
                 phases: Callable[[], Mapping[str, str]], host: str = '',
                 clock_ns: Callable[[], int] = time.monotonic_ns):
        self._machine = machine
        self._executors = executors
        self._phases = phases
        self._host = host
        self._clock_ns = clock_ns
        self._changed = threading.Condition()
        self._seen = {name: (phase, clock_ns()) for name, phase in phases().items()}
        self._closed = False
        self._waker = None

    def receive(self, message) -> None:
        """Hand a message to the machine and do all that follows from it."""
        self.carry_out(self._ask(self._machine.receive, message))

    def tick(self) -> None:
        """Let the machine look at the time and do all that follows from it."""
        self.carry_out(self._ask(self._machine.tick))

    def carry_out(self, todo: Iterable) -> None:
        """Do commands in order, up to the first that fails."""
        for command in todo:
            try:
                outcomes = self._executors[type(command)](command) or ()
            except Exception as exc:
                if not isinstance(exc, exception.HotsnapError):
                    LOG.exception('%s failed', type(command).__name__)
                failed = commands.CommandFailed(command, cause_of(exc, self._host))
                self.receive(failed)
                return
            for outcome in outcomes:
                self.receive(outcome)

    def seconds_to_wakeup(self) -> float | None:
        """Seconds until `tick` is due; None: only a message changes anything."""
        with self._changed:
            due = self._machine.wakeup()
        return None if due is None else max(0.0, (due - self._clock_ns()) / 1e9)

    def start_ticking(self) -> None:
        """Tick when the machine wants it, from a thread of its own, until `close`."""
        self._waker = threading.Thread(target=self._keep_ticking, daemon=True,
                                       name='hotsnap-ticker')
        self._waker.start()

    def close(self, timeout_s: float = 30.0) -> bool:
        """Whether no tick is being carried out any more, after waiting for that."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._waker:
            self._waker.join(timeout_s)
        return not (self._waker and self._waker.is_alive())

    def _keep_ticking(self):
        while True:
            with self._changed:
                due = self._machine.wakeup()
                wait_s = None if due is None else (due - self._clock_ns()) / 1e9
                if not self._closed and (wait_s is None or wait_s > 0):
                    self._changed.wait(wait_s)
                    continue
                if self._closed:
                    return
            self.tick()

    def _ask(self, question, *about):
        now = self._clock_ns()
        with self._changed:
            todo = question(*about, now)
            self._log_transitions(now)
            self._changed.notify_all()
        return todo

    def _log_transitions(self, now):
        phases = self._phases()
        for name, phase in phases.items():
            before, since = self._seen.get(name, ('new', now))
            if phase != before:
                LOG.info('%(name)s: %(before)s -> %(phase)s in %(elapsed_ms).1f ms',
                         {'name': name, 'before': before, 'phase': phase,
                          'elapsed_ms': (now - since) / 1e6})
                self._seen[name] = (phase, now)
        for name in self._seen.keys() - phases.keys():
            LOG.info('%(name)s: %(before)s -> forgotten',
                     {'name': name, 'before': self._seen.pop(name)[0]})
