# SPDX-License-Identifier: Apache-2.0
"""Several sites at once, each in a process of its own: a case waits for most of its time."""

import contextlib
import multiprocessing
import os
import pathlib
import signal
from collections.abc import Iterable, Iterator
from multiprocessing import connection

from tests.crash import cases, run
from tests.crash.bed import Bed
from tests.lab import LabError

#: No threads and no mounts of the parent's, and its end is seen.
_PROCESSES = multiprocessing.get_context('spawn')


class JobError(LabError):
    """A job ended, or could not make its site; it has said why."""


class Jobs:
    """A context manager.

    :param evidence: see `run.Run`; ``make`` likewise
    """

    def __init__(self, count: int, evidence: pathlib.Path, make: type[Bed]):
        self._jobs = []
        for number in range(count):
            ours, its = _PROCESSES.Pipe()
            job = _PROCESSES.Process(
                target=_serve, args=(its, evidence, make), name=f'job {number}')
            job.start()
            its.close()
            self._jobs.append((job, ours))

    def __enter__(self) -> 'Jobs':
        return self

    def __exit__(self, kind, *_error) -> None:
        """Return when each has ended its site, by an error in the middle of a case."""
        for job, ours in self._jobs:
            ours.close()
            if kind:
                job.terminate()
        for job, _ in self._jobs:
            job.join()

    def ask(self, method: str, *arguments):
        """What this method of the first job's `run.Run` returns.

        :raises JobError:
        """
        first = self._jobs[0][1]
        first.send((method, *arguments))
        return _received(first)

    def run(self, wanted: Iterable[cases.Case]) -> Iterator[cases.Result]:
        """Results, as they come; no case is begun before it is wanted.

        :raises JobError:
        """
        wanted, busy = iter(wanted), {ours for _, ours in self._jobs}
        for ours in tuple(busy):
            _give(ours, wanted, busy)
        while busy:
            for ours in connection.wait(busy):
                result = _received(ours)
                _give(ours, wanted, busy)
                yield result


def _give(ours, wanted, busy):
    case = next(wanted, None)
    if case is None:
        busy.remove(ours)
    else:
        ours.send(('run', case))


def _received(ours):
    try:
        return ours.recv()
    except EOFError:
        raise JobError('a job ended') from None


def _end(*_):
    """What is being ended is not ended again."""
    signal.signal(signal.SIGTERM, lambda *_: None)
    raise KeyboardInterrupt


def _serve(its, evidence, make):
    os.setsid()    # ^C is the parent's, which says when this ends
    signal.signal(signal.SIGTERM, _end)
    ends = contextlib.suppress(EOFError, BrokenPipeError, KeyboardInterrupt)
    with ends, run.Run(evidence, make) as running:
        while True:
            method, *arguments = its.recv()
            its.send(getattr(running, method)(*arguments))
