# SPDX-License-Identifier: Apache-2.0
"""Asks hosts whether they live, and has those that are back do what they owe."""

import contextlib
import threading
import time
from collections.abc import Callable

from oslo_log import log as logging

from hotsnap_nova import exception
from hotsnap_nova.conductor import errands

LOG = logging.getLogger(__name__)

#: What our part beside nova-compute is called in the table of services.
COMPUTE = 'nova-hotsnap-compute'
CONDUCTOR = 'nova-hotsnap-conductor'
_AT_ONCE = 16
#: Whoever has not answered by then keeps nobody waiting; its answer still counts.
_LOOK_S = 10.0


class Hosts:
    """All hosts of all cells; several coordinators share the asking.

    :param names: gives the hosts there are
    :param interval_s: who was asked less than this ago is not asked again
    """

    def __init__(self, database, compute, names: Callable[[], tuple[str, ...]],
                 interval_s: float):
        self._database = database
        self._compute = compute
        self._names = names
        self._interval_s = interval_s
        self._pings = _OneEach('ping', _AT_ONCE)
        self._errands = _OneEach('errand')

    def look(self) -> tuple[str, ...]:
        """Ask each that was not asked lately, and all that owe something; those that answered.

        A host that hangs is left alone until it answers, and waited for `_LOOK_S` at most.
        """
        names = set(self._names())
        owing = {each.host for each in self._database.errands()}
        errands.drop(self._database, sorted(owing - names))
        owing &= names
        since = self._database.now() - self._interval_s * 0.9
        lately = {each.host for each in self._database.services(COMPUTE)
                  if each.asked_at and each.asked_at > since}
        due = sorted(owing | (names - lately))
        lives: set[str] = set()
        for host in due:
            self._pings.begin(host, lambda host=host: self._ask(host, host in owing, lives))
        self._pings.wait(_LOOK_S)
        return tuple(host for host in due if host in lives)

    def close(self, timeout_s: float) -> None:
        """Return when nobody is asked any more, or the time is over."""
        ends = time.monotonic() + timeout_s
        for each in (self._pings, self._errands):
            each.wait(max(0.0, ends - time.monotonic()))

    def _ask(self, host, owes, lives):
        try:
            told = self._compute.ping(host)
        except exception.HotsnapError as exc:
            LOG.debug('Host %(host)s: %(error)s', {'host': host, 'error': exc})
            self._database.asked(COMPUTE, host)
            return
        self._database.heard_of(
            COMPUTE, host, version=str(told['version']), rpc_version=told['rpc_version'],
            started_at=told['started_at'])
        lives.add(host)
        if owes:
            self._errands.begin(host, lambda: self._run_errands(host))

    def _run_errands(self, host):
        try:
            errands.run(self._database, self._compute, host)
        except exception.HotsnapError as exc:
            LOG.warning('Host %(host)s is back, but what it owes is not done: %(error)s',
                        {'host': host, 'error': exc})


class _OneEach:
    """Work about hosts, each in a thread of its own, for each host one thing at a time.

    :param at_once: so many hosts' go on at the same time; None: all
    """

    def __init__(self, name: str, at_once: int | None = None):
        self._name = name
        self._places = threading.Semaphore(at_once) if at_once else contextlib.nullcontext()
        self._threads: dict[str, threading.Thread] = {}
        self._mutex = threading.Lock()

    def begin(self, host: str, work: Callable[[], None]) -> None:
        """Nothing, where something about this host goes on."""
        with self._mutex:
            if host in self._threads:
                return
            # A daemon: one that hangs must not keep the process from ending.
            thread = self._threads[host] = threading.Thread(
                target=self._do, args=(host, work), daemon=True,
                name=f'hotsnap-{self._name}-{host}')
            thread.start()

    def wait(self, timeout_s: float) -> None:
        """Return when all is done, or the time is over."""
        ends = time.monotonic() + timeout_s
        for thread in tuple(self._threads.values()):
            thread.join(max(0.0, ends - time.monotonic()))

    def _do(self, host, work):
        try:
            with self._places:
                work()
        except exception.HotsnapError as exc:
            LOG.error('%(name)s of host %(host)s: %(error)s', {
                'name': self._name, 'host': host, 'error': exc})
        except Exception:    # the next time may be better
            LOG.exception('%s of host %s failed', self._name, host)
        finally:
            with self._mutex:
                del self._threads[host]
