# SPDX-License-Identifier: Apache-2.0
"""What a host owes a snapshot that is to vanish: done at once, or when it comes back.

======== ===============================================================
restore  steps that end a restore: forwards where it was decided
message  a message of the protocol, asked until it is answered
delete   what the host keeps goes
======== ===============================================================

Each may be repeated, and a host that never heard of the snapshot does it as well.
"""

import json
import time

from oslo_log import log as logging

from hotsnap_nova import exception
from hotsnap_nova.conductor import rows
from hotsnap_nova.protocol import durable, messages, wire

LOG = logging.getLogger(__name__)

RESTORE, MESSAGE, DELETE = 'restore', 'message', 'delete'
_CALL_S = 10.0
_ASK_AGAIN_S = 0.5
_ANSWER_S = 60.0


def owed(found, host: str) -> tuple[tuple[str, dict], ...]:
    """(kind, detail) of all a host has to do before a snapshot's row may go, in order."""
    done = []
    if found.restore:
        done.append(of_restore(json.loads(found.restore)))
    if not found.closed and found.machine:
        done.append(_decision(rows.load(found.machine, found.generation), host))
    return (*done, (DELETE, {}))


def of_restore(plan: dict) -> tuple[str, dict]:
    """(kind, detail) that ends a restore on a host, as its plan says."""
    steps = ['undo']
    if plan['step'] == 'decided':
        steps = ['finish'] if plan['paused'] else ['resume', 'finish']
    return RESTORE, {'restore_id': plan['restore_id'], 'paused': plan['paused'], 'steps': steps,
                     'context': plan.get('context')}


def do(compute, host: str, snapshot: str, kind: str, detail: dict) -> None:
    """Have the host do it.

    :raises HostUnreachable: it is away; repeat it when it is back
    """
    if kind == RESTORE:
        for step in detail['steps']:
            compute.restore(host, step, snapshot, detail['restore_id'], detail['paused'],
                            context=detail['context'])
    elif kind == MESSAGE:
        _ask(compute, wire.decode(detail))
    elif kind == DELETE:
        compute.delete(host, snapshot)
    else:
        raise exception.Bug(reason=f'no errand is called {kind}')


def run(database, compute, host: str) -> int:
    """Have a host that is back do all it owes; how much it did."""
    done = 0
    for errand in database.errands(host):
        do(compute, host, errand.snapshot_id, errand.kind, errand.detail)
        database.end_errand(errand)
        done += 1
        LOG.info('Host %(host)s has done what it owed snapshot %(id)s: %(kind)s', {
            'host': host, 'id': errand.snapshot_id, 'kind': errand.kind})
    return done


def _decision(row, host):
    if row.decision is durable.Decision.FINISH:
        message = messages.Finish(row.snapshot, row.epoch, host, row.answers)
    else:
        work = dict(row.hosts)[host]
        message = messages.Discard(row.snapshot, row.epoch, host, work.group, work.members)
    return MESSAGE, wire.encode(message)


def _ask(compute, message):
    ends = time.monotonic() + _ANSWER_S
    while True:
        answer = compute.receive(message, _CALL_S)
        if isinstance(answer, messages.Finished | messages.Discarded):
            return
        if isinstance(answer, messages.Refused):
            # It disowns what was to be finished: only the file is left to be removed.
            return
        if time.monotonic() >= ends:
            raise exception.HostUnreachable(
                host=message.host, reason=f'{type(message).__name__} is not done yet')
        time.sleep(_ASK_AGAIN_S)
