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
from collections.abc import Iterable

from oslo_log import log as logging

from hotsnap_nova import exception
from hotsnap_nova.conductor import places, rows
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
        done.append(of_restore(found, host, json.loads(found.restore)))
    if not found.closed and found.machine:
        done.append(_decision(rows.load(found.machine, found.generation), host))
    return (*done, (DELETE, {}))


def of_restore(found, host: str, plan: dict) -> tuple[str, dict]:
    """(kind, detail) that ends a restore on a host, as its plan says."""
    steps = ['undo']
    if plan['step'] == 'decided':
        steps = ['finish'] if plan['paused'] else ['resume', 'finish']
    members, moved = places.of_host(found, plan, host)
    return RESTORE, {'restore_id': plan['restore_id'], 'paused': plan['paused'], 'steps': steps,
                     'context': plan.get('context'), 'members': members, 'moved': moved}


def do(compute, host: str, snapshot: str, kind: str, detail: dict) -> None:
    """Have the host do it.

    :raises HostUnreachable: it is away; repeat it when it is back
    """
    if kind == RESTORE:
        for step in detail['steps']:
            compute.restore(host, step, snapshot, detail['restore_id'], detail['paused'],
                            context=detail['context'],
                            members=detail['members'] if detail.get('moved') else None)
    elif kind == MESSAGE:
        _ask(compute, wire.decode(detail))
    elif kind == DELETE:
        compute.delete(host, snapshot)
    else:
        raise exception.Bug(reason=f'no errand is called {kind}')


def run(database, compute, host: str) -> int:
    """Have a host that is back do all it owes; how much it did.

    What it has no longer got, a snapshot or a member, it owes nothing for.

    :raises HotsnapError: it failed at something; what it owes other snapshots is done
    """
    done, failed = 0, {}
    for errand in database.errands(host):
        if errand.snapshot_id in failed:
            continue    # in order: what is kept goes last
        try:
            do(compute, host, errand.snapshot_id, errand.kind, errand.detail)
        except exception.HostUnreachable:
            raise
        except (exception.SnapshotNotFound, exception.MemberNotFound) as exc:
            LOG.warning('Host %(host)s cannot do any more what it owed snapshot %(id)s, '
                        '%(kind)s: %(error)s', {'host': host, 'id': errand.snapshot_id,
                                                'kind': errand.kind, 'error': exc})
        except exception.HotsnapError as exc:
            failed[errand.snapshot_id] = exc
            continue
        else:
            LOG.info('Host %(host)s has done what it owed snapshot %(id)s: %(kind)s', {
                'host': host, 'id': errand.snapshot_id, 'kind': errand.kind})
        database.end_errand(errand)
        done += 1
    for error in failed.values():
        raise error
    return done


def drop(database, hosts: Iterable[str]) -> None:
    """Forget what these hosts owe: they are no more."""
    for host in hosts:
        for errand in database.errands(host):
            database.end_errand(errand)
            LOG.warning('Nova knows no host %(host)s any more: what it owed snapshot %(id)s is '
                        'forgotten: %(kind)s', {'host': host, 'id': errand.snapshot_id,
                                                'kind': errand.kind})


def must_have_ended_restores(database, found) -> None:
    """Nothing, where no host has yet to end a restore of these members that went on without it.

    It would put back what that one replaced, on top of the next.

    :raises SnapshotBusy:
    """
    members = {member.member_id for member in found.members}
    for errand in database.errands():
        if errand.kind == RESTORE and not members.isdisjoint(errand.detail['members']):
            raise exception.SnapshotBusy(
                snapshot=found.name, host=errand.host,
                status=f'busy: host {errand.host} has yet to end a restore it missed')


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
