# SPDX-License-Identifier: Apache-2.0
"""What QEMU is asked for so that disks stay frozen, in which order."""

import types

import pytest

from hotsnap_nova import exception
from hotsnap_nova.virt import member, monitor
from hotsnap_nova.virt.disks import extents, freezing

#: A tenth of a second's worth of a slow store; QEMU's own limits let it be eighty times that.
MOST_UNDER_WAY = 1 << 20


class Recorder(monitor.Monitor):
    """A monitor that answers all and keeps what it was asked."""

    def __init__(self):
        super().__init__(None, 'a')
        self.asked = []

    def execute(self, command, arguments=None, fds=()):
        self.asked.append((command, arguments))
        return {}


TIB = 1 << 40


def started(size_bytes, limit_bytes_s=0):
    """What was asked to start the copy of three disks."""
    recorder = Recorder()
    frozen = freezing.FrozenDisks(recorder, 'a', '123abc', tuple(
        freezing.Disk(target, f'/machine/{target}', f'node-{target}', f'/{target}', size_bytes)
        for target in ('vda', 'vdb', 'vdc')))
    frozen.start_copy(limit_bytes_s)
    return recorder


@pytest.fixture
def qemu():
    return started(1 << 20)


def jobs(qemu):
    return [action['data'] for command, arguments in qemu.asked if command == 'transaction'
            for action in arguments['actions']]


def test_no_node_is_added_once_a_job_runs(qemu):
    """QEMU would wait for the job with the guest standing: 170 ms where this was first seen."""
    commands = [command for command, _arguments in qemu.asked]

    assert commands == ['blockdev-add'] * 3 + ['transaction']
    assert [job['device'] for job in jobs(qemu)] == [
        arguments['node-name'] for command, arguments in qemu.asked if command == 'blockdev-add']


@pytest.fixture
def told(monkeypatch):
    """Disks have nothing in them; returned is what QEMU is told that they have."""
    listed = []

    def tell(qemu, _node, _helper, _size_bytes, found):
        listed.append(found)
        qemu.add_node(node_name='helper')
        qemu.del_node('helper')
        return 'data'
    monkeypatch.setattr(monitor.Monitor, 'children', lambda _self: {
        (f'hs-123abc-f-node-{target}', 'file'): 'node' for target in ('vda', 'vdb', 'vdc')})
    monkeypatch.setattr(monitor.Monitor, 'images', lambda _self: {'node': {'actual-size': 1}})
    monkeypatch.setattr(extents, 'of', lambda *_image: [])
    monkeypatch.setattr(extents, 'tell', tell)
    return listed


def test_nor_is_one_to_tell_what_there_is_to_copy(told):

    asked = started(TIB)

    commands = [command for command, _arguments in asked.asked]
    assert commands[3:] == ['blockdev-add', 'blockdev-del'] * 3 + ['transaction']
    assert {(job['sync'], job['bitmap'], job['bitmap-mode']) for job in jobs(asked)} == {
        ('bitmap', 'data', 'never')}


def test_of_an_empty_disk_too_something_is_read(told):
    """Or nobody would learn of a filter that broke before the list was made."""
    started(TIB)

    assert told == [[(0, extents.GRANULARITY)]] * 3


@pytest.mark.parametrize(('own', 'below', 'looked_at'), [
    (TIB - extents.WORTH_BYTES + 1, 0, 0), (TIB // 2, TIB // 2, 0),
    (TIB - extents.WORTH_BYTES - 1, 1, 3)])
def test_where_images_take_all_the_room_that_the_disk_has_nothing_is_listed(
        told, monkeypatch, own, below, looked_at):
    monkeypatch.setattr(monitor.Monitor, 'images', lambda _self: {'node': {
        'actual-size': own, 'backing-image': {'actual-size': below}}})

    started(TIB)

    assert len(told) == looked_at


def test_little_is_under_way_when_the_first_job_ends(qemu):
    """QEMU takes the job's filter out then, and waits for the other jobs' I/O."""
    perf = [job['x-perf'] for job in jobs(qemu)]

    assert sum(each['max-workers'] * each['max-chunk'] for each in perf) <= MOST_UNDER_WAY


@pytest.mark.parametrize(('limit', 'each'), [(0, 0), (300, 100), (1, 1)])
def test_a_limit_is_of_all_disks_together(limit, each):
    assert {job['speed'] for job in jobs(started(1 << 20, limit))} == {each}


def test_what_the_store_refused_fails_the_snapshot_though_all_copies_have_ended():
    ended = types.SimpleNamespace(
        guest=types.SimpleNamespace(spec='a'),
        _disks=types.SimpleNamespace(disks=[types.SimpleNamespace(target='vda')],
                                     progress=lambda: (1, 1, True)),
        _relay=types.SimpleNamespace(failure=lambda _name: None,
                                     refusal=lambda _name: 'No space left on device'))

    with pytest.raises(exception.TargetFailed, match='vda.*No space left on device'):
        member.Member._disks_progress(ended)
