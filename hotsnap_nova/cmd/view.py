# SPDX-License-Identifier: Apache-2.0
"""What is shown of a snapshot."""

from hotsnap_nova import terminal
from hotsnap_nova.cmd import base

_FIELDS = ('id', 'name', 'description', 'status', 'phase', 'gate', 'epoch', 'created_at',
           'skew_ms')
#: What counts packets; QEMU does not.
_COUNTS = 'host kernel'
_ERROR = ('code', 'message', 'member', 'host')


def detailed(row, machine: bool) -> tuple[tuple, tuple]:
    """Names and values of everything known; for programs, members as objects."""
    shown = {name: getattr(row, name) for name in _FIELDS}
    shown['created_at'] = time(row.created_at)
    if row.error_code:
        shown['error'] = ({key: getattr(row, f'error_{key}') or '' for key in _ERROR}
                          if machine else error(row))
    if warnings := warnings_of(row):
        shown['warnings'] = warnings if machine else '\n'.join(map(warned, warnings))
    members = [_member(each) for each in row.members]
    shown['members'] = members if machine else '\n'.join(map(_line, members))
    return tuple(shown), tuple(shown.values())


def error(row) -> str:
    """Why a snapshot failed, in one line."""
    culprit = next((each.name for each in row.members if each.member_id == row.error_member),
                   row.error_member or '')
    where = ', '.join(each for each in (culprit, row.error_code) if each)
    return f'{row.error_message or "failed"} ({where})'


def warnings_of(row) -> list[dict]:
    """What the last restore warns of: {member, name, host, device, cause, remedy} each."""
    return list(((row.last_action and row.last_action['result']) or {}).get('warnings', ()))


def warned(warning: dict) -> str:
    """One of these in one line."""
    return terminal.warning(*(warning[key] for key in ('name', 'device', 'cause', 'remedy')))


def time(value) -> str:
    return value.strftime('%Y-%m-%dT%H:%M:%SZ') if value else ''


def _member(each):
    detail = each.detail or {}
    return {
        'id': each.member_id, 'name': each.name, 'host': each.host,
        'pause_ms': each.pause_ms, 'wait_ms': each.wait_ms, 'hold_ms': each.hold_ms,
        'parts_ms': detail.get('parts_ms', {}),
        'carried_by': detail.get('carried_by', ''),
        'asked_by_mark': detail.get('asked_by_mark', False),
        'packets': detail.get('packets', {}),
        'done_bytes': each.done_bytes, 'total_bytes': each.total_bytes,
        'size_bytes': each.size_bytes,
        'files': [{'name': file['name'], 'size_bytes': file['size_bytes'],
                   'blake3': file['digest']} for file in detail.get('files', ())],
    }


def _line(member):
    measured = ', '.join(
        f'{word} {member[key]:.1f} ms' for word, key in
        (('pause', 'pause_ms'), ('wait', 'wait_ms'), ('hold', 'hold_ms'))
        if member[key] is not None)
    lines = [f'{member["name"]} on {member["host"]}: {measured or "not cut"}']
    if member['carried_by']:
        told = f'  gate carried by the {member["carried_by"]}'
        if member['carried_by'] == _COUNTS:
            told += ': packets ' + ', '.join(
                f'{count} {word}' for word, count in member['packets'].items())
        lines.append(told + ('; a packet asked for its cut' if member['asked_by_mark'] else ''))
    if not member['files'] and member['total_bytes']:
        lines.append(f'  saved {base.size(member["done_bytes"])} of at most '
                     f'{base.size(member["total_bytes"])}')
    lines += [f'  {file["name"]}  {base.size(file["size_bytes"])}  {file["blake3"]}'
              for file in member['files']]
    return '\n'.join(lines)
