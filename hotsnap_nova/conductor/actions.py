# SPDX-License-Identifier: Apache-2.0
"""What a snapshot's row tells of a restore or a verification: columns to write."""

import datetime
from collections.abc import Iterable

from hotsnap_nova import exception

RUNNING, DONE, FAILED = 'running', 'done', 'failed'


def begun(name: str, request_id: str, hosts: Iterable[str] = (),
          result: dict | None = None) -> dict:
    """Columns for an action that begins now.

    :param hosts: which it may come to speak of
    :param result: what there is to say of it already
    """
    return _columns({'name': name, 'status': RUNNING, 'started_at': moment(),
                     'finished_at': None, 'request_id': request_id, 'error': None,
                     'result': result, 'hosts': list(hosts)})


def goes_on(action: dict, **result) -> dict:
    """Columns for what `begun` began, and of which there is more to say."""
    return _columns({**action, 'result': {**(action['result'] or {}), **result} or None})


def ended(action: dict | None, error: Exception | None = None,
          result: dict | None = None) -> dict:
    """Columns for the end of what `begun` began; none where nothing was."""
    if not action:
        return {}
    return _columns({**action, 'status': FAILED if error else DONE, 'finished_at': moment(),
                     'error': told(error) if error else None, 'result': result})


def told(error: Exception) -> dict:
    """``{code, message, member, host}`` of an error."""
    if not isinstance(error, exception.HotsnapError):
        error = exception.Bug(reason=f'{type(error).__name__}: {error}')
    return {'code': error.code, 'message': str(error), 'member': error.kwargs.get('member'),
            'host': error.kwargs.get('host')}


def moment(when: datetime.datetime | None = None) -> str:
    """``2026-01-31T12:00:00Z``"""
    when = when or datetime.datetime.now(datetime.UTC)
    return when.astimezone(datetime.UTC).strftime('%Y-%m-%dT%H:%M:%SZ')


def _columns(action):
    return {'last_action': action, 'action_status': action['status']}
