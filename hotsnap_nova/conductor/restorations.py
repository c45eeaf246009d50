# SPDX-License-Identifier: Apache-2.0
"""Between the protocol's row of a restore and the database's, and what is told of its end."""

import dataclasses
import itertools
import json
from collections.abc import Mapping

from hotsnap_nova import exception, measurements, rpc
from hotsnap_nova.conductor import actions, rows
from hotsnap_nova.protocol import causes, messages, wire
from hotsnap_nova.protocol.restore import commands, durable
from hotsnap_nova.protocol.restore import messages as restores

#: Of a restore's action: see `warnings`.
WARNINGS = 'warnings'
#: A row has room for so much of them, as JSON; all of them are with the restore.
_WARNINGS_BYTES = 32 << 10
_GROUP = 'the group'


def planned(found, restore_id: str, limits: durable.RestoreLimits, paused: bool = False,
            places: Mapping[str, str] | None = None,
            context: dict | None = None, is_of_1_0: bool = False,
            drop_internal_snapshots: bool = False) -> durable.Restore:
    """A restore of the snapshot of this row, whose generation it has.

    :param places: hosts by member's id; None: all are where they were kept
    :param context: in whose name, for the hosts
    :param is_of_1_0: see `options`; ``drop_internal_snapshots`` likewise
    """
    by_host: dict[str, list[messages.Member]] = {}
    for each in found.members:
        host = places[each.member_id] if places else each.host
        by_host.setdefault(host, []).append(messages.Member(each.member_id, each.name))
    proved = proofs(found)
    return durable.Restore(restore_id, found.id, tuple(
        (host, restores.Share(found.id, tuple(members), paused, options(context, is_of_1_0, {
            each.id: proved[each.id] for each in members if each.id in proved},
            drop_internal_snapshots)))
        for host, members in sorted(by_host.items())), limits, found.generation)


def options(context: dict | None, is_of_1_0: bool = False,
            proved: Mapping[str, str] | None = None,
            drop_internal_snapshots: bool = False) -> str:
    """What hosts are told besides their members.

    :param is_of_1_0: hosts of version 1.0 began it, and forgot it when it had ended there
    :param proved: see `proofs`
    :param drop_internal_snapshots: those in the disks of today, and checkpoints, may go with them
    """
    told = {'context': {key: value for key, value in (context or {}).items() if key != 'names'}}
    if proved:
        told['proofs'] = dict(proved)
    if drop_internal_snapshots:
        told['drop_internal_snapshots'] = True
    return json.dumps(told | ({'ended_where_unknown': True} if is_of_1_0 else {}))


def proofs(found) -> dict[str, str]:
    """By member's id, what proves that a store tells of it what hosts told of it.

    Members of which the row, of an older version, has not kept that are left out.
    """
    return {each.member_id: measurements.proof(each.detail['facts'], each.detail['files'])
            for each in found.members
            if each.detail and each.detail.get('facts') and each.detail.get('files')}


def names(found) -> dict[str, str]:
    """Of the snapshot's members, by id."""
    return {each.member_id: each.name for each in found.members}


def begun(row: durable.Restore, request_id: str) -> dict:
    """Columns with which a restore begins."""
    return _begins(row) | {'abort_request': None} | actions.begun(
        'restore', request_id, hosts(row), _warned(row) or None)


def begun_after(row: durable.Restore, action: dict) -> dict:
    """Likewise, of one whose action was begun before: it may have been aborted meanwhile."""
    return _begins(row) | actions.goes_on(action, **_warned(row))


def hosts(row: durable.Restore) -> tuple[str, ...]:
    """That bring members back."""
    return tuple(host for host, _ in row.hosts)


def _begins(row):
    return {'status': rows.RESTORING, 'phase': 'prepare', 'restore': _dump(row)}


def load(found, limits: durable.RestoreLimits) -> durable.Restore:
    """The restore that a row is at.

    :param limits: of one that an older version began
    """
    plain = json.loads(found.restore)
    if 'kind' in plain:
        return wire.decode({**plain, 'generation': found.generation})
    # Version 1.0: its steps, up to "decided"
    row = planned(found, plain['restore_id'], limits, plain['paused'], plain.get('places'),
                  plain.get('context'), is_of_1_0=True)
    decided = plain['step'] == 'decided'
    return dataclasses.replace(
        row, resolution=durable.Resolution.RESUME if decided else durable.Resolution.NONE)


def resolved(row: durable.Restore, write: commands.Resolve, action: dict | None,
             called: Mapping[str, str], untold: Mapping[str, str] | None = None) -> dict:
    """Columns that make a decision durable.

    :param action: the row's `last_action`
    :param called: names of members, by id
    :param untold: see `failure`
    """
    row = dataclasses.replace(
        row, generation=write.generation + 1, resolution=write.resolution, closed=write.closed,
        cause=write.cause, faults=write.faults, absent=write.absent,
        warnings=write.warnings)
    if not write.closed:
        return {'restore': _dump(row), 'phase': str(row.resolution)}
    result = dict((action and action['result']) or {})
    result.pop(WARNINGS, None)
    if row.resolution is durable.Resolution.RESUME:    # else nothing came of what they warn of
        result |= _warned(row)
    return {'status': rows.AVAILABLE, 'phase': 'closed', 'restore': None} | actions.ended(
        action, failure(row, called, untold), result or None)


def warnings(action: dict | None) -> tuple[dict, ...]:
    """What a row's `last_action` warns of: {member, name, host, device, cause, remedy} each.

    Without a member it is of the group.
    """
    return tuple(((action and action['result']) or {}).get(WARNINGS, ()))


def _warned(row):
    """What there is to warn of, as the result of an action has it."""
    called = {member.id: member.name for _host, share in row.hosts for member in share.members}
    told = [{'member': each.member, 'name': called.get(each.member) or each.member or _GROUP,
             'host': each.host, 'device': each.device, 'cause': each.cause, 'remedy': each.remedy}
            for each in row.warnings]
    told.sort(key=lambda each: each['name'])
    sizes = itertools.accumulate(len(json.dumps(each)) for each in told)
    count = sum(size <= _WARNINGS_BYTES for size in sizes)
    if more := len(told) - count:
        told = [*told[:count], {
            'member': '', 'name': _GROUP, 'host': '', 'device': 'guest',
            'cause': f'{more} more warnings have no room here', 'remedy': ''}]
    return {WARNINGS: told} if told else {}


def failure(row: durable.Restore, called: Mapping[str, str],
            untold: Mapping[str, str] | None = None) -> exception.HotsnapError | None:
    """Why a restore that is over did not bring all members back, or left something.

    :param called: names of members, by id
    :param untold: why absent hosts, which may live, were not even asked, by host
    """
    untold = untold or {}
    booted = [fault for fault in row.faults if fault.cause.code == exception.MemberRebooted.code]
    left = [_told(fault, called) for fault in row.faults if fault not in booted]
    if row.resolution is durable.Resolution.RESUME:
        left += [f'{_members(row, host, called)}: ' + (
            f'host {host} does its part when it is told; {untold[host].rstrip(".")}'
            if host in untold else
            f'host {host} does not answer, and does its part when it is back')
            for host in row.absent]
        return exception.RestoreIncomplete(
            left='; '.join(left), member=_only(fault.member for fault in row.faults),
            host=_only(row.absent)) if left else None
    cause = row.cause or messages.Cause(exception.Aborted.code, 'it was given up')
    text = _sentence(cause)
    if left:
        return exception.RestoreNotUndone(reason=text, left='; '.join(left))
    if booted:
        names = ', '.join(sorted(called.get(fault.member, fault.member) for fault in booted))
        text += f'; stopped by then, and booted anew from the disks as they were: {names}'
    for host in row.absent:
        when = f'told; {untold[host].rstrip(".")}' if host in untold else 'back'
        text += (f'; {_members(row, host, called)}: host {host} puts back what it had when it is '
                 f'{when}')
    return rpc.exception_of({'code': cause.code, 'message': f'{text}.', 'details': {
        'member': cause.member or None, 'host': cause.host or None}})


def _members(row, host, called):
    """Names of those that this host has, in words."""
    return ', '.join(sorted(called.get(member.id, member.name or member.id)
                            for member in dict(row.hosts)[host].members))


def _told(fault, called):
    """A host's own sentence, which names whom it is about, or one of the protocol's."""
    text = _sentence(fault.cause)
    if fault.cause.member and fault.cause.code not in causes.REASONS:
        return text
    return f'{called.get(fault.member, fault.member)}: {text}'


def _sentence(cause):
    """A host's or the protocol's own words, without their full stop."""
    text = cause.text.rstrip('.') or cause.code.replace('_', ' ')
    return text[:1].upper() + text[1:]


def _only(found):
    """The one there is, or None."""
    found = tuple(found)
    return found[0] if len(found) == 1 else None


def _dump(row):
    return json.dumps(wire.encode(row))
