# SPDX-License-Identifier: Apache-2.0
"""Snapshots as rows: short for people, whole for programs."""

import dataclasses

from cliff import columns
from osc_lib.cli import format_columns

from hotsnap_nova import terminal

_SHOWN = ('id', 'name', 'description', 'status', 'phase', 'server_group_id', 'server_group_name',
          'project_id', 'user_id', 'gate', 'disk', 'epoch', 'skew_ms', 'created_at', 'updated_at',
          'request_id')


class ErrorColumn(columns.FormattableColumn):
    """Why it failed."""

    def human_readable(self):
        return f'{self._value.message} ({self._value.code})' if self._value else ''

    def machine_readable(self):
        return _plain(self._value)


class ActionColumn(columns.FormattableColumn):
    """The last restore or verification."""

    def human_readable(self):
        action = self._value
        if not action:
            return ''
        return '\n'.join((f'{action.name} {action.status}' + (
            f': {action.error.message} ({action.error.code})' if action.error else ''),
            *map(warned, action.warnings)))

    def machine_readable(self):
        return _plain(self._value)


class MembersColumn(columns.FormattableColumn):
    """A line a member."""

    def human_readable(self):
        return '\n'.join(_line(each) for each in self._value)

    def machine_readable(self):
        return [_plain(each) for each in self._value]


class FindingsColumn(columns.FormattableColumn):
    """A line a finding."""

    def human_readable(self):
        return '\n'.join(
            f'{each.server_name}, {each.device}: {each.cause} ({_ruled_out(each)}). '
            f'Remedy: {each.remedy}.' for each in self._value)

    def machine_readable(self):
        return [_plain(each) for each in self._value]


def detailed(snapshot) -> tuple[tuple, tuple]:
    """Names and values of everything known."""
    shown = {name: getattr(snapshot, name) for name in _SHOWN}
    shown['size_bytes'] = snapshot.size_bytes
    shown['properties'] = format_columns.DictColumn(snapshot.properties)
    shown['error'] = ErrorColumn(snapshot.error)
    shown['last_action'] = ActionColumn(snapshot.last_action)
    shown['members'] = MembersColumn(snapshot.members)
    return tuple(shown), tuple(shown.values())


def warned(warning) -> str:
    """A line of what a restore warns of."""
    return terminal.warning(warning.server_name, warning.device, warning.cause, warning.remedy)


def _ruled_out(finding):
    return f'rules out {", ".join(finding.rules_out)}' if finding.rules_out else 'a warning'


def _plain(value):
    return dataclasses.asdict(value) if value else None


def _line(member):
    measured = [f'{word} {value:.1f} ms' for word, value in (
        ('pause', member.pause_ms), ('wait', member.wait_ms), ('hold', member.hold_ms))
        if value is not None]
    where = f'{member.name} ({member.server_id})' + (f' on {member.host}' if member.host else '')
    if member.size_bytes is not None:
        measured.append(f'{member.size_bytes} bytes')
    elif member.total_bytes:
        measured.append(f'saved {100 * member.done_bytes // member.total_bytes}%')
    return f'{where}: {", ".join(measured) or "not cut yet"}'
