# SPDX-License-Identifier: Apache-2.0
"""What is told of a restore that did not bring all members back names them."""

import dataclasses
import json

import pytest

from hotsnap_nova import exception
from hotsnap_nova.conductor import actions, restorations
from hotsnap_nova.protocol import messages
from hotsnap_nova.protocol.restore import commands, durable
from hotsnap_nova.protocol.restore import messages as restores

ROW = durable.Restore('r1', 's1', tuple(
    (host, restores.Share('s1', tuple(messages.Member(each, f'instance-{each}') for each in here)))
    for host, here in (('h1', 'a'), ('h2', 'cb'))), absent=('h2',))
CALLED = {'a': 'web', 'b': 'db', 'c': 'cache'}


@pytest.mark.parametrize(('resolution', 'code', 'told'), [
    (durable.Resolution.RESUME, exception.RestoreIncomplete.code,
     'cache, db: host h2 does not answer, and does its part when it is back'),
    (durable.Resolution.UNDO, 'timeout',
     'cache, db: host h2 puts back what it had when it is back')])
def test_members_of_a_host_that_is_away_are_named(resolution, code, told):
    row = dataclasses.replace(ROW, resolution=resolution, cause=messages.Cause('timeout', 'Late'))

    error = restorations.failure(row, CALLED)

    assert (error.code, error.kwargs['host']) == (code, 'h2' if code != 'timeout' else None)
    assert told in str(error)
    assert 'web' not in str(error)


def ended(row, resolution, result=None):
    """The result that an action has at the end of a restore."""
    action = actions.begun('restore', 'req-1', result=result)['last_action']
    write = commands.Resolve('r1', 0, resolution, True, warnings=row.warnings)
    return restorations.resolved(row, write, action, CALLED)['last_action']['result']


def test_a_row_tells_what_a_restore_warns_of_until_it_is_undone():
    row = dataclasses.replace(ROW, absent=(), warnings=(
        restores.MemberWarning('b', 'clock', 'it lags', 'have it set', 'h2'),
        restores.MemberWarning('', 'guest', 'of all', host='h1')))
    kept = {'kept_present': 's0'}

    (of_b, of_all) = begun = restorations.begun(row, 'req-1')['last_action']['result']['warnings']

    assert of_b == {'member': 'b', 'name': 'instance-b', 'host': 'h2', 'device': 'clock',
                    'cause': 'it lags', 'remedy': 'have it set'}
    assert (of_all['member'], of_all['name']) == ('', 'the group')
    assert ended(row, durable.Resolution.RESUME, kept) == kept | {'warnings': begun}
    assert ended(row, durable.Resolution.UNDO, kept | {'warnings': begun}) == kept


def test_a_row_has_room_for_many_warnings_and_says_how_many_it_leaves_out():
    row = dataclasses.replace(ROW, warnings=tuple(
        restores.MemberWarning('b', f'vd{number}', 'über' * 500) for number in range(250)))

    action = restorations.begun(row, '')['last_action']

    assert 30_000 < len(json.dumps(action)) < 60_000
    *most, last = action['result']['warnings']
    assert [each['device'] for each in most] == [f'vd{number}' for number in range(len(most))]
    assert last['cause'].startswith(f'{250 - len(most)} more warnings')


@pytest.mark.parametrize('resolution', [durable.Resolution.RESUME, durable.Resolution.UNDO])
def test_a_host_that_is_told_nothing_is_not_said_to_be_silent(resolution):
    row = dataclasses.replace(ROW, resolution=resolution, cause=messages.Cause('timeout', 'Late'))
    pinned = exception.HostTooOld(host='h2', method='order, for calls are pinned to version 1.2')

    error = restorations.failure(row, CALLED, {'h2': str(pinned)})

    assert 'cache, db: host h2' in str(error)
    assert 'calls are pinned to version 1.2' in str(error)
    assert 'does not answer' not in str(error)
    assert 'when it is back' not in str(error)
