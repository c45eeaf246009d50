# SPDX-License-Identifier: Apache-2.0
"""A snapshot removed from its hosts, then from the database.

By force it may be one that is being made or restored: the first write takes it
from whoever is at it, who can decide nothing from then on, and every host is
told to end what it has begun. A host that does not answer is left an errand.
"""

import json

from oslo_log import log as logging

from hotsnap_nova import exception
from hotsnap_nova.conductor import actions, errands, fanout, places, rows
from hotsnap_nova.protocol import commands, durable

LOG = logging.getLogger(__name__)

_PHASE, _PHASE_BY_FORCE = 'delete', 'delete by force'


class Deletion:
    """One deletion of one snapshot.

    :param found: the database's row, with its members
    :param force: do not wait for hosts that do not answer
    :ivar owner: of its lease
    """

    def __init__(self, found, database, compute, owner: str, lease_s: float,
                 force: bool = False):
        self._found = found
        self._database = database
        self._compute = compute
        self.owner = owner
        self._lease_s = lease_s
        # Whoever takes it over is to do what was asked for.
        self._force = force or (found.status == rows.DELETING and found.phase == _PHASE_BY_FORCE)

    def begin(self) -> None:
        """Have the row say so, and nobody else go on with it.

        :raises StaleGeneration: somebody else was quicker
        """
        found = self._found
        values = {}
        if not found.closed and found.machine:
            row = rows.load(found.machine, found.generation)
            if row.decision is not durable.Decision.FINISH:
                values = rows.decided(row, commands.Persist(
                    found.id, found.generation, durable.Decision.DISCARD, False, row.cause, ()))
        self._database.compare_and_swap(found.id, found.generation, **values | {
            'status': rows.DELETING, 'phase': _PHASE_BY_FORCE if self._force else _PHASE,
            'lease': (self.owner, self._lease_s)} | actions.ended(
                found.last_action if found.action_status == actions.RUNNING else None,
                exception.Aborted(who='a deletion')))
        self._found = self._database.get(found.id)

    def carry_out(self) -> None:
        """Remove it; may be repeated until every host has answered.

        :raises HotsnapError: the row says so, and stays
        """
        found = self._found
        hosts = {member.host for member in found.members}
        if found.restore:
            hosts |= set(places.of(found, json.loads(found.restore)).values())
        _, errors = fanout.outcomes(sorted(hosts), self._settle)
        for host, error in errors.items():
            if self._force and isinstance(error, exception.HostUnreachable):
                LOG.warning('Snapshot %(id)s is deleted without host %(host)s, which is told when '
                            'it comes back', {'id': found.id, 'host': host})
                for kind, detail in errands.owed(found, host):
                    self._database.add_errand(found.id, host, kind, detail)
            else:
                self._failed(host, error)
                raise error
        self._database.delete(found.id)

    def _settle(self, host):
        for kind, detail in errands.owed(self._found, host):
            errands.do(self._compute, host, self._found.id, kind, detail)

    def _failed(self, host, error):
        told = actions.told(error)
        self._database.compare_and_swap(
            self._found.id, self._found.generation, status=rows.ERROR_DELETING,
            error_code=told['code'], error_message=told['message'],
            error_member=told['member'], error_host=host, lease=(None, 0))
