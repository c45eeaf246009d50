# SPDX-License-Identifier: Apache-2.0
"""Files of a host that cannot be read are in nobody's way, and none are left for ever."""

import dataclasses
import errno
import os

import pytest

from hotsnap_nova import exception
from hotsnap_nova.compute import journal, locks, manager, orders
from hotsnap_nova.protocol import durable, hoststate, messages
from hotsnap_nova.protocol.restore import durable as restores
from hotsnap_nova.protocol.restore import messages as orders_messages
from hotsnap_nova.storage import local
from tests.fakes import cluster as clusters
from tests.fakes import engine

MEMBER = messages.Member('a', 'a')
PART = durable.Part('s1', 1, durable.Phase.SAVED,
                    messages.Work('g', (MEMBER,), messages.Gate.HOLD, 100, 150))
ORDER = restores.RestorePart('r1', orders_messages.Share('s1', (MEMBER,)),
                             orders_messages.Step.PREPARE)
UNREADABLE = [b'', b'{"v": 1, "kind":', b'[7]', b'null', b'{"v": 1, "kind": "Part"}', b'\xff']


@pytest.fixture
def state(tmp_path):
    return tmp_path / 'state'


def open_journal(state):
    return journal.Journal(str(state), locks.Locks(f'{state}/locks'))


def open_orders(state):
    return orders.Orders(str(state), locks.Locks(f'{state}/locks'))


@pytest.mark.parametrize('content', UNREADABLE)
def test_a_part_that_cannot_be_read_does_not_hide_the_others(state, content, caplog):
    kept = open_journal(state)
    kept.write(PART)
    (state / 'journal' / 's0.json').write_bytes(content)

    assert open_journal(state).adopt() == ()    # s1 is in kept's hands
    kept = open_journal(state)
    assert kept.known() == ('s1',)
    assert journal.damaged(kept.folder) == (f'{state}/journal/s0.json.damaged',)
    assert (state / 'journal' / 's0.json.damaged').read_bytes() == content
    assert f'{state}/journal/s0.json.damaged' in caplog.text


@pytest.mark.parametrize('content', UNREADABLE)
def test_an_order_that_cannot_be_read_does_not_hide_the_others(state, content):
    open_orders(state).write(ORDER)
    (state / 'restores' / 'r0.json').write_bytes(content)
    (state / 'restores' / 'ended.json').write_bytes(content)
    (state / 'locks' / 'restore-r1.lock').unlink()    # its holder died

    kept = open_orders(state)

    assert (kept.under_way(), kept.ended(), kept.adopt()) == ({'r1': ('a',)}, (), (ORDER,))
    assert journal.damaged(kept.folder) == tuple(
        f'{state}/restores/{name}.json.damaged' for name in ('ended', 'r0'))


ROW = durable.Decided('g', MEMBER, 1, 's1', durable.Decision.FINISH)
END = restores.RestoreEnded('r1', orders_messages.Step.UNDO)
PASSING = [errno.EMFILE, errno.EIO, errno.ESTALE]


class Unreadable:
    """Files of one name give an error when they are opened.

    :ivar times: for so many times
    """

    def __init__(self, monkeypatch):
        self.times, self.name, self.error = 0, '', 0
        monkeypatch.setattr(journal, 'open', self._open, raising=False)
        monkeypatch.setattr(journal, '_AGAIN_S', (0.0, 0.0))

    def fail(self, name, error, times=1):
        self.name, self.error, self.times = name, error, times

    def _open(self, path, *args):
        if self.times and os.path.basename(path) == self.name:
            self.times -= 1
            raise OSError(self.error, os.strerror(self.error), path)
        return open(path, *args)


@pytest.fixture
def unreadable(monkeypatch):
    return Unreadable(monkeypatch)


def died(state):
    """Processes that held these locks did."""
    for lock in (state / 'locks').iterdir():
        lock.unlink()


@pytest.mark.parametrize('error', PASSING)
def test_what_cannot_be_read_for_a_moment_is_adopted_all_the_same(state, unreadable, error):
    open_journal(state).write(PART)
    open_orders(state).write(ORDER)
    died(state)

    unreadable.fail('s1.json', error)
    assert open_journal(state).adopt() == (PART,)
    unreadable.fail('r1.json', error)
    assert open_orders(state).adopt() == (ORDER,)


@pytest.mark.parametrize('error', PASSING)
def test_who_asks_what_is_under_way_moves_nothing(state, unreadable, error):
    kept = open_orders(state)
    kept.write(ORDER)
    kept.write(dataclasses.replace(ORDER, restore='r2'))

    unreadable.fail('r1.json', error)
    assert open_orders(state).under_way() == {'r1': None, 'r2': ('a',)}
    assert open_orders(state).under_way() == {'r1': ('a',), 'r2': ('a',)}

    (state / 'restores' / 'r1.json').write_text('{')
    assert open_orders(state).under_way() == {'r2': ('a',)}
    assert journal.damaged(kept.folder) == ()


def test_of_a_disk_that_has_lost_it_a_part_is_put_aside(state, unreadable):
    for kept, part, name in ((open_journal(state), PART, 's1'), (open_orders(state), ORDER, 'r1')):
        kept.write(part)
        died(state)
        unreadable.fail(f'{name}.json', errno.EIO, times=9)

        assert type(kept)(str(state), locks.Locks(f'{state}/locks')).adopt() == ()
        assert journal.damaged(kept.folder) == (f'{kept.folder}/{name}.json.damaged',)


def test_what_cannot_be_read_at_a_start_keeps_no_other_and_is_there_at_the_next(
        state, unreadable):
    other = durable.Part('s2', 1, durable.Phase.SAVED, PART.work)
    for part in (PART, other):
        open_journal(state).write(part)
    died(state)
    unreadable.fail('s1.json', errno.EACCES, times=9)

    kept = open_journal(state)
    assert kept.adopt() == (other,)
    assert kept.has('s1')
    with pytest.raises(exception.Unavailable, match='s1.json could not be read'):
        kept.must_be_read('s1')
    kept.must_be_read('s2')
    unreadable.times = 0
    died(state)
    assert set(open_journal(state).adopt()) == {PART, other}


def test_a_host_does_not_say_that_it_lost_what_it_could_not_read(tmp_path, unreadable):
    with clusters.Cluster(tmp_path, {'h1': 'a'}) as cluster:
        host = cluster.hosts['h1']
        host.kill()
        state = tmp_path / 'state-h1'
        open_journal(state).write(PART)
        open_orders(state).write(ORDER)
        died(state)
        for name, request in (
                ('s1.json', messages.Finish('s1', 1, 'h1')),
                ('r1.json', orders_messages.Order('r1', 'h1', orders_messages.Step.UNDO,
                                                  ORDER.share))):
            unreadable.fail(name, errno.EACCES, times=9)
            host.start()

            with pytest.raises(exception.Unavailable, match=name):
                host.manager.serve(request)
            id_ = name.removesuffix('.json')
            (row,) = [row for row in host.manager.remains.list() if row['id'] == id_]
            assert (row['state'], name in row['reason']) == ('unread', True)
            with pytest.raises(exception.Unavailable, match=name):
                host.manager.remains.end(id_)
            host.kill()


def test_a_host_says_nothing_of_what_a_ledger_would_tell_that_it_could_not_read(
        tmp_path, unreadable):
    with clusters.Cluster(tmp_path, {'h1': 'a'}) as cluster:
        host = cluster.hosts['h1']
        host.kill()
        state = tmp_path / 'state-h1'
        open_journal(state).forget('s1', [ROW])
        open_orders(state).end(END)
        died(state)
        for name, request in (
                ('epochs.json', messages.Finish('s1', 1, 'h1')),
                ('ended.json', orders_messages.Order('r1', 'h1', orders_messages.Step.UNDO,
                                                     ORDER.share))):
            unreadable.fail(name, errno.EACCES, times=9)
            host.start()

            with pytest.raises(exception.Unavailable, match=name):
                host.manager.serve(request)
            host.kill()
            unreadable.times = 0
        host.start()
        assert isinstance(host.manager.serve(request), orders_messages.OrderDone)


@pytest.mark.parametrize('error', PASSING)
def test_a_ledger_that_cannot_be_read_forgets_no_end(state, unreadable, error):
    later = durable.Decided('g', MEMBER, 2, 's2', durable.Decision.FINISH)
    ended = restores.RestoreEnded('r2', orders_messages.Step.UNDO)
    open_journal(state).forget('s1', [ROW])
    open_orders(state).end(END)

    unreadable.fail('epochs.json', error)
    with pytest.raises(OSError, match='epochs.json'):
        open_journal(state).forget('s2', [later])
    unreadable.fail('ended.json', error)
    with pytest.raises(OSError, match='ended.json'):
        open_orders(state).end(ended)
    died(state)

    open_journal(state).forget('s2', [later])
    open_orders(state).end(ended)
    assert set(open_journal(state).decided()) == {ROW, later}
    assert open_orders(state).ended() == (END, ended)


def test_what_a_host_drops_spares_restores_that_may_not_have_ended(tmp_path):
    with clusters.Cluster(tmp_path, {'h1': 'a'}) as cluster:
        host = cluster.hosts['h1']
        host.kill()
        state = tmp_path / 'state-h1'
        open_orders(state).write(ORDER)
        died(state)
        (state / 'restores' / 'r2.json').write_text('{')
        (state / 'restores' / 'ended.json').write_text('[]')

        host.start()

        clusters.until(lambda: getattr(host.manager.engine, 'spared', None) == {'r1', 'r2'})


def test_a_file_that_cannot_be_read_keeps_no_guest(tmp_path):
    with clusters.Cluster(tmp_path, {'h1': 'a'}) as cluster:
        host = cluster.hosts['h1']
        host.die_at('record_member')
        cluster.snapshots.create(cluster.request())
        clusters.until(lambda: cluster.world.guest('a')['closed_by'])
        cluster.snapshots.leave()
        host.kill()
        for name in ('journal/0000', 'restores/0000', 'restores/ended', 'epochs'):
            (tmp_path / 'state-h1' / f'{name}.json').write_text('{')

        host.start()

        assert cluster.world.untouched()


def test_the_lock_of_what_has_ended_goes_with_the_next_start(tmp_path):
    with clusters.Cluster(tmp_path, {'h1': 'a'}) as cluster:
        host = cluster.hosts['h1']
        host.kill()
        # The end was on record, and the power went before the lock's file was.
        (tmp_path / 'state-h1' / 'locks' / 'restore-r1.lock').touch()

        host.start()

        assert host.left() == []


def test_the_lock_of_a_guest_whose_holder_died_goes_with_the_next_start(tmp_path):
    shared = tmp_path / 'run'
    under_test = manager.ComputeManager(
        'h1', engine.Engine(engine.World(f'{tmp_path}/world.json')),
        local.LocalStore(f'{tmp_path}/store'), f'{tmp_path}/state',
        locks.Locks(str(shared), prefix='libvirt-'))
    # The end was on record, and its process died before the guest's lock was gone.
    (shared / 'libvirt-domain-a.lock').touch()

    under_test.start()

    assert os.listdir(shared) == []
    under_test.stop()


def test_a_damaged_part_goes_with_its_snapshot(state):
    kept = open_journal(state)
    (state / 'journal' / 's1.json').write_text('{')
    kept.adopt()
    assert kept.has('s1')

    kept.forget('s1', ())

    assert not kept.has('s1')


def test_nothing_is_left_of_a_process_that_died_while_it_wrote(state):
    open_journal(state)
    open_orders(state)
    left = [state / folder / f'{name}.json.new{suffix}'
            for folder, name in (('journal', 's1'), ('restores', 'r1'))
            for suffix in ('', '-4711')]
    for path in left:
        path.write_text('{')

    open_journal(state).adopt()
    open_orders(state).adopt()

    assert not [path for path in left if path.exists()]


def test_what_a_live_process_writes_is_left_to_it(state):
    live = open_journal(state)
    live.write(PART)
    writing = state / 'journal' / 's1.json.new'
    writing.write_text('{')

    open_journal(state).adopt()

    assert writing.exists()


def test_an_order_of_the_version_before_is_ended_by_a_decision_alone(state):
    content = ('{"snapshot_id": "s1", "restore_id": "r1", "paused": true, "members": [{"spec": '
               '{"id": "a", "name": "instance-1"}, "folder": "/store/s1/a", "facts": {"disks": '
               '[]}}]}')
    kept = open_orders(state)
    (state / 'restores' / 'r1.json').write_text(content)

    (part,) = kept.adopt()

    assert part.share == orders_messages.Share('s1', (messages.Member('a', 'instance-1'),), True)
    assert (part.step, part.status) == (orders_messages.Step.START, restores.Status.INTERRUPTED)
    assert part.refusal.code == 'upgraded'
    assert kept.kept('r1') == [{'id': 'a', 'name': 'instance-1', 'folder': '/store/s1/a',
                                'facts': {'disks': []}}]


@pytest.mark.parametrize('restore', ['ended', '../r1', 'a/b', '.'])
def test_an_id_names_no_other_file(state, restore):
    kept = open_orders(state)

    kept.write(restores.RestorePart(restore, ORDER.share, orders_messages.Step.PREPARE))

    assert kept.known() == (restore,)
    assert (kept.ended(), len(os.listdir(state / 'restores'))) == ((), 1)
    kept.end(restores.RestoreEnded(restore, orders_messages.Step.UNDO))
    assert os.listdir(state / 'restores') == ['ended.json']
    assert not os.listdir(state / 'locks')


def test_the_ledger_of_restores_is_bounded(state, monkeypatch):
    monkeypatch.setattr(orders.participant, 'KEPT', 3)
    kept = open_orders(state)

    for number in range(5):
        kept.end(restores.RestoreEnded(f'r{number}', orders_messages.Step.UNDO))

    assert [row.restore for row in kept.ended()] == ['r2', 'r3', 'r4']


def test_the_ledger_of_epochs_is_bounded(state):
    kept = open_journal(state)
    rows = [durable.Decided(f'g{number}', MEMBER, number, f's{number}', durable.Decision.FINISH)
            for number in range(hoststate.KEPT + 3)]

    kept.forget('s0', rows[:-1])
    kept.forget('s1', rows[-1:])

    assert set(kept.decided()) == set(rows[3:])


def test_two_processes_do_not_both_go_on_with_a_restore(state):
    first = open_orders(state)
    first.write(ORDER)

    assert open_orders(state).adopt() == ()
