# SPDX-License-Identifier: Apache-2.0
"""Asks hosts whether they live, and has those that are back do what they owe."""

from collections.abc import Callable
from concurrent import futures

from oslo_log import log as logging

from hotsnap_nova import exception
from hotsnap_nova.conductor import errands

LOG = logging.getLogger(__name__)

#: What our part beside nova-compute is called in the table of services.
COMPUTE = 'nova-hotsnap-compute'
CONDUCTOR = 'nova-hotsnap-conductor'
_AT_ONCE = 16


class Hosts:
    """All hosts of all cells; several coordinators share the asking.

    :param names: gives the hosts there are
    :param interval_s: who was asked less than this ago is not asked again
    :param clock: seconds since 1970
    """

    def __init__(self, database, compute, names: Callable[[], tuple[str, ...]],
                 interval_s: float, clock: Callable[[], float]):
        self._database = database
        self._compute = compute
        self._names = names
        self._interval_s = interval_s
        self._clock = clock

    def look(self) -> tuple[str, ...]:
        """Ask each that was not asked lately, and all that owe something; those that answered."""
        names = set(self._names())
        owing = {each.host for each in self._database.errands()}
        errands.drop(self._database, sorted(owing - names))
        owing &= names
        since = self._clock() - self._interval_s * 0.9
        lately = {each.host for each in self._database.services(COMPUTE)
                  if each.asked_at and each.asked_at > since}
        due = sorted(owing | (names - lately))
        if not due:
            return ()
        with futures.ThreadPoolExecutor(_AT_ONCE, thread_name_prefix='hotsnap-ping') as pool:
            answers = list(pool.map(lambda host: self._ask(host, host in owing), due))
        return tuple(host for host, lives in zip(due, answers, strict=True) if lives)

    def _ask(self, host, owes):
        try:
            told = self._compute.ping(host)
        except exception.HotsnapError as exc:
            LOG.debug('Host %(host)s: %(error)s', {'host': host, 'error': exc})
            self._database.asked(COMPUTE, host)
            return False
        self._database.heard_of(
            COMPUTE, host, version=str(told['version']), rpc_version=told['rpc_version'],
            started_at=told['started_at'])
        if owes:
            try:
                errands.run(self._database, self._compute, host)
            except exception.HotsnapError as exc:
                LOG.warning('Host %(host)s is back, but what it owes is not done: %(error)s',
                            {'host': host, 'error': exc})
        return True
