# SPDX-License-Identifier: Apache-2.0
"""What nova-compute gives back of a restore when it starts, and what it keeps."""

import errno
import os

import pytest

from hotsnap_nova.compute import journal, locks, orders
from hotsnap_nova.nova import participation
from hotsnap_nova.protocol import messages
from hotsnap_nova.protocol.restore import durable
from hotsnap_nova.protocol.restore import messages as restores


class Instances:
    """Keeps what it is told is under way."""

    told = None

    def recover(self, under_way):
        self.told = under_way


@pytest.fixture
def started(tmp_path, monkeypatch):
    """On a host with a restore of server a under way."""
    monkeypatch.setattr(participation, '_READ_AGAIN_S', 0.0)
    orders.Orders(str(tmp_path), locks.Locks(f'{tmp_path}/locks')).write(durable.RestorePart(
        'r1', restores.Share('s1', (messages.Member('a', 'a'),)),
        restores.Step.PREPARE))
    made = participation.Participation()
    made._state_path = str(tmp_path)
    return made


@pytest.fixture
def unreadable(monkeypatch):
    """Have the restore's file not read for so many times."""
    def fail(times):
        left = [errno.EMFILE] * times

        def opened(path, *args):
            if left:
                number = left.pop()
                raise OSError(number, os.strerror(number), path)
            return open(path, *args)
        monkeypatch.setattr(journal, 'open', opened, raising=False)
    return fail


def test_what_cannot_be_read_for_a_moment_is_given_back_to_nobody(started, unreadable):
    instances = Instances()
    unreadable(times=2)

    started._recover(instances)

    assert instances.told == {'r1': ('a',)}


def test_what_cannot_be_read_at_all_is_told_so(started, unreadable):
    instances = Instances()
    unreadable(times=99)

    started._recover(instances)

    assert instances.told == {'r1': None}
