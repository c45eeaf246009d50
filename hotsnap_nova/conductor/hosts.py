# SPDX-License-Identifier: Apache-2.0
"""Asks hosts whether they live, and has those that are back do what they owe."""

import time
from concurrent import futures

from oslo_log import log as logging

from hotsnap_nova import exception
from hotsnap_nova.conductor import errands, membership

LOG = logging.getLogger(__name__)

#: What our part beside nova-compute is called in the table of services.
COMPUTE = 'nova-hotsnap-compute'
CONDUCTOR = 'nova-hotsnap-conductor'
_AT_ONCE = 32
#: Whoever has not answered by then keeps nobody waiting; its answer still counts.
_LOOK_S = 10.0
#: Nova has to say for so long that there is no such host before what it owes is forgotten.
GONE_S = 3600.0


class Hosts:
    """All hosts of all cells; several coordinators share the asking.

    :param cells: `cells.Cells`, or one like it
    :param owing: `errands.Errands`
    :param interval_s: who was asked less than this ago is not asked again
    """

    def __init__(self, database, compute, cells, owing: errands.Errands, interval_s: float,
                 gone_s: float = GONE_S):
        self._database = database
        self._compute = compute
        self._cells = cells
        self._errands = owing
        self._interval_s = interval_s
        self._gone_s = gone_s
        self._gone_since: dict[str, float] = {}
        self._asking: dict[str, futures.Future] = {}
        self._pool = futures.ThreadPoolExecutor(_AT_ONCE, thread_name_prefix='hotsnap-ping')

    def look(self) -> tuple[str, ...]:
        """Ask each that was not asked lately, and all that owe something; those that answered.

        A host that hangs is left alone until it answers, and waited for `_LOOK_S` at most.
        """
        names = set(self._cells.hosts())
        known = {each.host: each for each in self._database.services(COMPUTE)}
        owing = {each.host for each in self._database.errands()}
        self._forget_gone((owing | known.keys()) - names)
        since = self._database.now() - self._interval_s * 0.9
        lately = {host for host, each in known.items() if (each.asked_at or 0) > since}
        due = (owing & names) | (names - lately)
        # Those that live first: they must not wait for the others.
        asked = {host: self._ask_once(host, host in owing, known.get(host))
                 for host in sorted(due, key=lambda host: (_silence(known.get(host)), host))}
        done, _ = futures.wait(asked.values(), _LOOK_S)
        return tuple(host for host in sorted(asked) if asked[host] in done
                     and asked[host].result())

    def close(self, timeout_s: float) -> None:
        """Return when nobody is asked any more, or the time is over."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        futures.wait(tuple(self._asking.values()), timeout_s)

    def _ask_once(self, host, owes, known):
        """Nothing new, where this host has not answered yet."""
        asking = self._asking.get(host)
        if asking is None or asking.done():
            asking = self._asking[host] = self._pool.submit(self._ask, host, owes, known)
        return asking

    def _ask(self, host, owes, known):
        """Whether it answers."""
        try:
            told = self._compute.ping(host)
        except exception.HotsnapError as exc:
            LOG.debug('Host %(host)s: %(error)s', {'host': host, 'error': exc})
            self._quietly(self._database.asked, COMPUTE, host)
            if owes:
                self._quietly(self._errands.missed, host, exc)
            return False
        except Exception:    # the next time may be better
            LOG.exception('Host %s cannot be asked whether it lives', host)
            return False
        self._quietly(self._database.heard_of, COMPUTE, host, version=str(told['version']),
                      rpc_version=told['rpc_version'], started_at=told['started_at'])
        if owes:
            if known and _silence(known):    # it is back
                self._quietly(self._database.hasten_errands, host=host)
            self._quietly(self._errands.begin, [host])
        return True

    def _quietly(self, call, *args, **kwargs):
        try:
            call(*args, **kwargs)
        except exception.HotsnapError as exc:
            LOG.error('%(call)s: %(error)s', {'call': call.__name__, 'error': exc})

    def _forget_gone(self, strangers):
        """What hosts owe that are no more; Nova's mapping of one may be away for a moment only."""
        states = self._cells.states(strangers) if strangers else {}
        gone = {host for host, state in states.items() if state == membership.GONE}
        self._gone_since = {host: self._gone_since.get(host, time.monotonic()) for host in gone}
        for host, since in self._gone_since.items():
            if time.monotonic() - since < self._gone_s:
                continue
            for errand in self._database.errands(host):
                LOG.warning('Nova knows no host %(host)s any more: forgotten is what it owed '
                            'snapshot %(id)s, %(kind)s', {'host': host, 'id': errand.snapshot_id,
                                                    'kind': errand.kind})
                self._database.end_errand(errand)
            self._database.forget_service(COMPUTE, host)


def _silence(service):
    """Seconds for which it has not answered; 0 where it did when it was asked last."""
    if service is None:
        return 0.0
    return max(0.0, (service.asked_at or 0) - (service.seen_at or 0))
