# SPDX-License-Identifier: Apache-2.0
"""What is told of a restore that did not bring all members back names them."""

import dataclasses

import pytest

from hotsnap_nova import exception
from hotsnap_nova.conductor import restorations
from hotsnap_nova.protocol import messages
from hotsnap_nova.protocol.restore import durable
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


@pytest.mark.parametrize('resolution', [durable.Resolution.RESUME, durable.Resolution.UNDO])
def test_a_host_that_is_told_nothing_is_not_said_to_be_silent(resolution):
    row = dataclasses.replace(ROW, resolution=resolution, cause=messages.Cause('timeout', 'Late'))
    pinned = exception.HostTooOld(host='h2', method='order, for calls are pinned to version 1.2')

    error = restorations.failure(row, CALLED, {'h2': str(pinned)})

    assert 'cache, db: host h2' in str(error)
    assert 'calls are pinned to version 1.2' in str(error)
    assert 'does not answer' not in str(error)
    assert 'when it is back' not in str(error)
