# SPDX-License-Identifier: Apache-2.0
"""Group snapshots over two hosts and a real broker, as users type them."""

import pytest

from tests.rounds import rounds
from tests.rounds.command import CommandFailed

pytestmark = pytest.mark.timeout(1500)
_MESSAGES = 200
_SNAPSHOTS = 3
_GIVEN_UP = 6


def test_three_snapshots_are_restored_consistent(group, snapshots, record_property,
                                                 capfd_disabled):
    assert len({server.host for server in group}) == 2
    series = rounds.Rounds(group, snapshots, messages=_MESSAGES)
    made, given_up = [], []

    # A busy machine may have some given up, which harms nobody.
    while len(made) < _SNAPSHOTS and len(given_up) < _GIVEN_UP:
        done = series.run('auto', limits=())
        if not done.shown:
            given_up.append(done.error)
            continue
        made.append(done)
        record_property('skew_ms', done.skew_ms)
        record_property('stall_ms', done.shown['stall_ms'])
    with capfd_disabled():
        print(f'\n{len(made)} snapshots made, {len(given_up)} given up', *given_up, sep='\n  ')

    assert [(done.consistent, done.error, done.summary)
            for done in made] == [(True, '', {})] * _SNAPSHOTS, given_up
    assert all(done.alive == done.connections for done in made)


def test_bad_input_is_told_in_one_sentence_and_changes_nothing(connection, group, snapshots):
    empty = connection.compute.create_server_group(name='empty', policy='soft-anti-affinity')
    before = snapshots.run('list', '-f', 'json')
    try:
        for words, told in (
                (('create', empty.id), 'no members'),
                (('create', 'nobody-knows-it'), 'nobody-knows-it'),
                (('restore', 'nobody-knows-it'), 'nobody-knows-it')):
            with pytest.raises(CommandFailed) as failure:
                snapshots.run(*words)
            assert told in failure.value.message
    finally:
        connection.compute.delete_server_group(empty.id)
    assert snapshots.run('list', '-f', 'json') == before
