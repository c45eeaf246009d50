# SPDX-License-Identifier: Apache-2.0
"""A snapshot removed: one write says what each host owes, and the row goes with the last of it.

That write takes the snapshot from whoever makes or restores it, who can decide nothing from then
on. By force the row goes at once, and hosts do their part when they can.
"""

from oslo_log import log as logging

from hotsnap_nova import exception
from hotsnap_nova.conductor import actions, errands, restorations, rows
from hotsnap_nova.protocol import durable, messages
from hotsnap_nova.protocol.restore import durable as restore_durable
from hotsnap_nova.protocol.restore import messages as restores

LOG = logging.getLogger(__name__)

PHASE, PHASE_BY_FORCE = 'delete', 'delete by force'


def begin(database, found, force: bool = False) -> tuple[str, ...]:
    """Have hosts owe whatever of the snapshot is left on them; those hosts.

    :param found: the row, with its members
    :param force: the row goes at once
    :raises StaleGeneration: somebody else was quicker
    :raises SnapshotNotFound: likewise
    """
    owing = owed(found)
    values = {'status': rows.DELETING, 'phase': PHASE, 'decision': str(durable.Decision.DISCARD),
              'closed': True, 'restore': None} | actions.ended(
        found.last_action if found.action_status == actions.RUNNING else None,
        exception.Aborted(who='a deletion'))
    database.swap_for_errands(found.id, found.generation, owing, remove=force, **values)
    LOG.info('Snapshot %(id)s is deleted%(how)s', {
        'id': found.id, 'how': ' by force' if force else ''})
    return tuple(dict.fromkeys(host for host, _, _ in owing))


def owed(found) -> list[tuple[str, str, dict]]:
    """(host, kind, detail) of all that is to be done before the row may go, in order."""
    keeping = {member.host for member in found.members}
    owing = [*_of_restore(found), *_of_making(found)]
    hosts = sorted(keeping | {host for host, _, _ in owing})
    return owing + [(host, errands.DELETE, {}) for host in hosts]


def _of_restore(found):
    """The end of a restore: forwards where that was decided."""
    if not found.restore:
        return []
    row = restorations.load(found, restore_durable.RestoreLimits())
    step = (restores.Step.RESUME if row.resolution is restore_durable.Resolution.RESUME
            else restores.Step.UNDO)
    return [(host, *errands.of(restores.Order(row.restore, host, step, share)))
            for host, share in row.hosts]


def _of_making(found):
    """Nothing stays of a snapshot that not every host has ended its part of."""
    if not found.machine:
        return []
    row = rows.load(found.machine, found.generation)
    return [(host, *errands.of(messages.Discard(
        row.snapshot, row.epoch, host, work.group, work.members, deleted=True)))
        for host, work in row.hosts if not row.closed or host in row.absent]
