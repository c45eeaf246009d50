# SPDX-License-Identifier: Apache-2.0
"""Between the protocol's row of a snapshot and the database's."""

import dataclasses
import datetime
import json

from hotsnap_nova import measurements
from hotsnap_nova.protocol import commands, durable, messages, wire

#: While a snapshot is being made its ``phase`` column says which of these it is in.
CREATING, AVAILABLE, ERROR = 'creating', 'available', 'error'
RESTORING, DELETING, ERROR_DELETING = 'restoring', 'deleting', 'error_deleting'
#: So often a host that is at work, or does not answer, is asked again.
REPEAT_MS = 500
#: Between the last cut and its host's word of it, and for releases that dawdle.
_SPARE_MS = 1_000


def first(snapshot: str, epoch: int, group: str, gate: str, members: dict, request,
          absent_s: float | None, marker: dict | None = None) -> durable.Snapshot:
    """What hosts are to do for a `requests.CreateRequest`.

    :param members: by host, ``{'id', 'name'}`` each
    :param marker: see `marking.of`; None: nothing is marked
    :param absent_s: for how long a host is waited for once its part is decided; None: for ever
    """
    delays = {each['id']: request.record_delays_s[each['name']]
              for here in members.values() for each in here
              if each['name'] in request.record_delays_s}
    created_at = datetime.datetime.now(datetime.UTC).strftime('%Y-%m-%dT%H:%M:%S.%fZ')
    options = {
        'name': request.name, 'description': request.description,
        'properties': request.properties, 'group_name': request.group_name or request.name,
        'created_at': created_at, 'compress': request.compress, 'record_delays_s': delays}
    if marker:
        options['marker'] = marker
    if request.context:
        options['context'] = request.context
    hosts = tuple(
        (host, messages.Work(
            group, tuple(messages.Member(each['id'], each['name']) for each in here),
            messages.Gate(gate), request.max_pause_ms, request.max_hold_ms, json.dumps(options)))
        for host, here in sorted(members.items()))
    longest = max(len(here) for here in members.values())
    record_ms = (request.max_pause_ms * longest + request.max_hold_ms + _SPARE_MS
                 + int(sum(delays.values()) * 1000))
    deadline_ms = int((request.deadline_s or request.save_timeout_s) * 1000)
    return durable.Snapshot(snapshot, epoch, hosts, durable.Limits(
        prepare_timeout_ms=min(int(request.prepare_timeout_s * 1000), deadline_ms),
        record_timeout_ms=record_ms, save_timeout_ms=deadline_ms, repeat_ms=REPEAT_MS,
        absent_ms=_ms(absent_s)))


def dump(row: durable.Snapshot) -> str:
    return json.dumps(wire.encode(row))


def load(machine: str, generation: int, absent_s: float | None = None) -> durable.Snapshot:
    """The protocol's row; the generation is the database's, which alone counts.

    :param absent_s: as of `first`, where the row, of an older version, does not say
    """
    row = wire.decode({**json.loads(machine), 'generation': generation})
    if row.limits.absent_ms is not None:
        return row
    return dataclasses.replace(
        row, limits=dataclasses.replace(row.limits, absent_ms=_ms(absent_s)))


def decided(row: durable.Snapshot, write: commands.Persist) -> dict:
    """Columns that make a decision durable: one row, one commit, while gates are closed."""
    values = {
        'decision': str(write.decision),
        'closed': write.closed,
        'phase': 'closed' if write.closed else str(write.decision),
        'machine': json.dumps(wire.encode(durable.Snapshot(
            row.snapshot, row.epoch, row.hosts, row.limits, write.generation + 1,
            write.decision, write.closed, write.cause, write.answers, write.absent))),
    }
    if write.cause:
        values |= {'error_code': write.cause.code, 'error_message': write.cause.text,
                   'error_member': write.cause.member, 'error_host': write.cause.host}
    if write.closed:
        # One that a host has lost its part of is of no use, though the others published theirs.
        whole = write.decision is durable.Decision.FINISH and not write.cause
        values['status'] = AVAILABLE if whole else ERROR
    return values


def measured(answers) -> tuple[float | None, dict[str, dict]]:
    """(skew_ms, columns of each member by id) that the answers tell so far."""
    members = measurements.by_member(answers)
    columns = {}
    for member_id, each in members.items():
        saved = each.get('saved', {})
        found = {name: each[name] for name in ('pause_ms', 'wait_ms', 'hold_ms') if name in each}
        if saved:
            found['size_bytes'] = sum(file['size_bytes'] for file in saved['files'])
        detail = {'facts': each.get('facts', {}), 'parts_ms': each.get('parts_ms', {}),
                  'cut_wall_ns': each.get('cut_wall_ns'), 'files': list(saved.get('files', ())),
                  'carried_by': each.get('carried_by', ''), 'packets': each.get('packets', {}),
                  'asked_by_mark': each.get('asked_by_mark', False)}
        columns[member_id] = found | {'detail': detail}
    return measurements.skew_ms(members), columns


def _ms(seconds):
    return None if seconds is None else int(seconds * 1000)
