# SPDX-License-Identifier: Apache-2.0
"""A row as `rpcapi` tells it."""

from hotsnap_nova.conductor import actions, rows

_SAME = ('id', 'name', 'description', 'properties', 'group_id', 'group_name', 'project_id',
         'user_id', 'request_id', 'status', 'gate', 'disk', 'epoch', 'skew_ms', 'last_action')
_MEASURED = ('pause_ms', 'wait_ms', 'hold_ms', 'size_bytes', 'done_bytes', 'total_bytes')
_BUSY = (rows.CREATING, rows.RESTORING, rows.DELETING)


def of(found, detail: bool = True) -> dict:
    """A snapshot, with ``detail`` also its members."""
    shown = {key: getattr(found, key) for key in _SAME}
    shown |= {'phase': _phase(found), 'error': _error(found),
              'created_at': actions.moment(found.created_at),
              'updated_at': actions.moment(found.updated_at)}
    if detail:
        shown['members'] = [
            {'id': each.member_id, 'name': each.name, 'host': each.host}
            | {key: getattr(each, key) for key in _MEASURED} for each in found.members]
    return shown


def _phase(found):
    if found.status in _BUSY or (found.status == rows.ERROR and not found.closed):
        return '' if found.phase == 'closed' else found.phase
    if found.action_status == actions.RUNNING:
        return found.last_action['name']
    return ''


def _error(found):
    if not found.error_code or found.status not in (rows.ERROR, rows.ERROR_DELETING):
        return None
    # Hosts of before RPC 1.3 tell of a member by its name.
    ids = {each.name: each.member_id for each in found.members}
    ids |= {each.member_id: each.member_id for each in found.members}
    return {'code': found.error_code, 'message': found.error_message or '',
            'member': ids.get(found.error_member, found.error_member) or None,
            'host': found.error_host or None}
