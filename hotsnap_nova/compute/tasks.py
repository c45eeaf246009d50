# SPDX-License-Identifier: Apache-2.0
"""Long work that callers ask for again and again until it is done.

A call of minutes would have to outlive every time-out between the services;
instead each call waits a little and tells how far the work is. Only a few wait
at once: they do so in threads that also serve what closes and opens gates.
"""

import threading
import time
from collections.abc import Callable

from hotsnap_nova import exception

_KEPT = 64
#: Longer than a caller goes on asking while no answer comes.
_ABANDONED_S = 300.0


class Tasks:
    """Long work by key, each in a thread of its own.

    :param wait_s: how long one question waits for the end
    :param waiting: so many questions wait at once, all others are answered as it is
    :param abandoned_s: work that was not asked for so long ends where it next tells its progress
    """

    def __init__(self, wait_s: float = 0.5, waiting: int = 2,
                 abandoned_s: float = _ABANDONED_S):
        self._wait_s = wait_s
        self._abandoned_s = abandoned_s
        self._places = threading.BoundedSemaphore(waiting)
        self._tasks: dict[str, _Task] = {}
        self._mutex = threading.Lock()

    def ask(self, key: str, work: Callable[[Callable[[int, int], None]], object],
            again: bool = False) -> dict:
        """Start ``work`` unless it was started under this key, and wait a little.

        :param work: gets a function to tell (done_bytes, total_bytes)
        :param again: once its end was told, it is started anew for whoever asks then
        :returns: ``{'done': bool, 'result': …, 'progress': [done, total]}``
        :raises Unavailable: too much is under way
        :raises Exception: what the work raised
        """
        with self._mutex:
            task = self._tasks.get(key)
            if task is None:
                while len(self._tasks) >= _KEPT:
                    self._forget_one()
                task = self._tasks[key] = _Task(work, self._abandoned_s)
        told = True
        try:
            state = self._state(task)
            told = state['done']
            return state
        finally:
            if again and told:
                with self._mutex:
                    if self._tasks.get(key) is task:
                        del self._tasks[key]

    def _state(self, task):
        if not self._places.acquire(blocking=False):
            return task.state(0)
        try:
            return task.state(self._wait_s)
        finally:
            self._places.release()

    def _forget_one(self):
        key = next((key for key, task in self._tasks.items() if task.done), None)
        if key is None:    # on a store that hangs nothing ends, and more would hang
            raise exception.Unavailable(
                f'{_KEPT} checks, deletions and the like are under way on this host, and none '
                'ends: see whether its store hangs.')
        del self._tasks[key]


class _Task:
    def __init__(self, work, abandoned_s):
        self._work = work
        self._abandoned_s = abandoned_s
        self._asked_at = time.monotonic()
        self._progress = (0, 0)
        self._result = None
        self._error: Exception | None = exception.Bug(reason='the work ended without a word')
        self._ended = threading.Event()    # set last: who sees it sees how it ended
        threading.Thread(target=self._run, daemon=True, name='hotsnap-task').start()

    @property
    def done(self):
        return self._ended.is_set()

    def state(self, wait_s):
        self._asked_at = time.monotonic()
        if not self._ended.wait(wait_s):
            return {'done': False, 'result': None, 'progress': list(self._progress)}
        if self._error:
            raise self._error
        return {'done': True, 'result': self._result, 'progress': list(self._progress)}

    def _run(self):
        try:
            self._result = self._work(self._tell)
            self._error = None
        except Exception as exc:
            self._error = exc
        finally:
            self._ended.set()

    def _tell(self, done_bytes, total_bytes):
        if time.monotonic() - self._asked_at > self._abandoned_s:
            raise exception.Aborted('Nobody asks for it any more.')
        self._progress = (done_bytes, total_bytes)
