# SPDX-License-Identifier: Apache-2.0
"""The coordinator service with hosts that go away and come back, and others that die."""

import threading
import time

import pytest
from oslo_config import cfg

from hotsnap_nova import conf, exception, rpc
from hotsnap_nova.compute import endpoint as compute_endpoint
from hotsnap_nova.compute import rpcapi as compute_rpcapi
from hotsnap_nova.conductor import (
    drive,
    errands,
    hosts,
    manager,
    recovery,
    rpcapi,
    service,
    snapshots,
)
from hotsnap_nova.protocol.restore import messages as restores
from hotsnap_nova.storage import local
from tests.fakes import cells as fake_cells
from tests.fakes import cluster as clusters

CALLER = {'user_id': 'u', 'project_id': 'p', 'request_id': 'req-1'}


@pytest.fixture
def impatient(monkeypatch):
    """Hosts that are away are given up soon."""
    monkeypatch.setattr(compute_rpcapi, '_SHORT_S', 2.0)
    monkeypatch.setattr(compute_rpcapi, '_PING_S', 0.5)
    monkeypatch.setattr(compute_rpcapi, '_LOST_ANSWERS', 1)
    monkeypatch.setattr(errands, '_CALL_S', 0.5)
    monkeypatch.setattr(recovery.Recovery.__init__, '__defaults__', tuple(
        1.0 if each == 30.0 else each for each in recovery.Recovery.__init__.__defaults__))


@pytest.fixture
def config(cluster):
    made = cfg.ConfigOpts()
    conf.register(made)
    made([], default_config_files=[], default_config_dirs=[])
    for name, value in {
            'database_connection': f'sqlite:///{cluster.folder}/hotsnap.db', 'lease_s': 5,
            'max_hold_ms': 5000, 'service_interval_s': 1, 'host_interval_s': 5,
            'silence_timeout_s': 10}.items():
        made.set_override(name, value, group='hotsnap')
    return made.hotsnap


@pytest.fixture
def cells(cluster):
    return fake_cells.Cells(cluster)


@pytest.fixture
def start(cluster, config, cells):
    """Start a coordinator of this name."""
    started = []

    def start(name='c1'):
        made = service.Service(config, name, cluster.transport, cells)
        made.start()
        started.append(made)
        return made
    yield start
    for each in started:
        each.stop()


@pytest.fixture
def api(cluster, start):
    start()
    return rpcapi.ConductorApi(cluster.transport, CALLER)


def create(api, **more):
    return api.create('g', **{'name': None, 'description': '', 'properties': {}, 'gate': 'auto',
                              'disk': 'backup', **more})['id']


def available(api):
    snapshot = create(api)
    clusters.until(lambda: api.get(snapshot)['status'] != 'creating')
    assert api.get(snapshot)['status'] == 'available', api.get(snapshot)
    return snapshot


def gone(api, snapshot):
    try:
        api.get(snapshot)
    except exception.SnapshotNotFound:
        return True
    return False


def ended(api, snapshot):
    """The snapshot, once what was asked for last is over."""
    clusters.until(lambda: api.get(snapshot)['last_action']['status'] != 'running', 60)
    return api.get(snapshot)


def order(found, host, step='undo'):
    """The errand to end a restore of the snapshot at a host."""
    return errands.of(restores.Order('r', host, restores.Step(step), restores.Share(
        found.id, tuple(errands.messages.Member(each.member_id, each.name)
                        for each in found.members if each.host == host))))


def test_a_quota_of_bytes_is_kept_when_the_snapshot_is_added(
        api, config, monkeypatch):
    """Others may be added, and tell of what they copy, while hosts are asked for this one."""
    config._conf.set_override('max_gib_per_project', 1, group='hotsnap')
    real = snapshots.Snapshots._check

    def check(self, *args):
        self._database.create(
            {'id': 'other', 'name': 'other', 'group_id': 'another', 'epoch': 1, 'gate': 'hold',
             'status': 'available', 'phase': 'closed', 'closed': True, 'project_id': 'p'},
            [{'member_id': 'z', 'name': 'z', 'host': 'h9', 'size_bytes': 2 << 30}])
        return real(self, *args)
    monkeypatch.setattr(snapshots.Snapshots, '_check', check)

    with pytest.raises(exception.HotsnapError) as refused:
        create(api)

    assert refused.value.code == 'over_quota_bytes'
    found = api.list(filters={}, limit=None, marker=None, detail=False)
    assert [each['id'] for each in found] == ['other']


# -- the life of a snapshot ----------------------------------------------------------------------


def test_a_snapshot_is_made_restored_and_deleted(cluster, api):
    snapshot = available(api)

    api.restore(snapshot, False)
    assert ended(api, snapshot)['last_action']['error'] is None
    assert {cluster.world.guest(name)['disk'] for name in 'abc'} == {snapshot}
    api.verify(snapshot)
    assert ended(api, snapshot)['last_action']['result']['files'] == 9
    api.delete(snapshot, False)

    clusters.until(lambda: gone(api, snapshot))
    assert cluster.hosts['h1'].store.list() == ()
    assert cluster.clean()


def test_what_goes_on_is_in_the_row_before_the_answer(cluster, api):
    snapshot = available(api)
    cluster.hosts['h1'].engine.faults['restore_prepare'] = lambda _work: time.sleep(0.5)

    api.restore(snapshot, False)

    shown = api.get(snapshot)
    assert (shown['status'], shown['last_action']['status']) == ('restoring', 'running')
    assert shown['last_action']['request_id'] == 'req-1'
    assert ended(api, snapshot)['status'] == 'available'


def test_a_verdict_that_takes_too_long_refuses_a_restore_for_good(cluster, api, monkeypatch):
    """Whoever asked was told that it failed: it must not begin after that."""
    snapshot = available(api)
    monkeypatch.setattr(manager, '_CHECK_S', 0.5)
    goes_on = threading.Event()
    cluster.hosts['h2'].engine.faults['restore_check'] = lambda _work: goes_on.wait(20)

    with pytest.raises(exception.HostUnreachable, match='h2.*longer than 0.5 s'):
        api.restore(snapshot, False)

    goes_on.set()
    shown = api.get(snapshot)
    assert (shown['status'], shown['last_action']) == ('available', None)
    cluster.hosts['h2'].engine.faults.clear()
    api.restore(snapshot, False)
    assert ended(api, snapshot)['last_action']['error'] is None


@pytest.mark.parametrize('keeps', [None, 'before'])
@pytest.mark.parametrize('drops', [False, True])
def test_hosts_are_told_whether_internal_snapshots_may_go(cluster, api, drops, keeps):
    snapshot, told = available(api), []
    for host in cluster.hosts.values():
        for step in ('restore_check', 'restore_start'):
            host.engine.faults[step] = lambda work: told.append(work.drops_internal_snapshots)

    api.restore(snapshot, False, drops, keeps)

    assert ended(api, snapshot)['last_action']['error'] is None
    asked = 3 if keeps else 2    # once more, when the present is kept
    assert told == [drops] * asked * len(cluster.hosts)


@pytest.mark.parametrize('more', [
    {'drop_internal_snapshots': True}, {'keep_present': 'before'}])
def test_a_coordinator_that_does_not_know_what_a_restore_is_to_do_is_named_too_old(
        cluster, api, monkeypatch, more):
    snapshot = available(api)
    monkeypatch.setattr(rpcapi, '_RESTORE_VERSION', '1.99')    # to it, ours is as old

    with pytest.raises(exception.HostTooOld):
        api.restore(snapshot, False, **more)

    assert api.get(snapshot)['last_action'] is None


def test_a_restore_does_not_begin_when_nobody_waits_for_its_answer(cluster, api, monkeypatch):
    snapshot = available(api)
    monkeypatch.setattr(manager, '_SPARE_S', rpcapi.HOSTS_S)

    with pytest.raises(exception.Unavailable, match='nothing was begun'):
        api.restore(snapshot, False)

    assert api.get(snapshot)['last_action'] is None
    assert 'restore_prepare' not in cluster.hosts['h1'].engine.calls


@pytest.mark.parametrize('method', ['create', 'restore'])
@pytest.mark.parametrize('waited', ['before it was served', 'for the hosts'])
def test_what_nobody_waits_for_by_now_does_not_begin(cluster, api, monkeypatch, method, waited):
    snapshot = available(api)
    timeout_s = manager._SPARE_S - 1 if waited == 'before it was served' else 60
    for fault in ('check', 'restore_check'):
        cluster.hosts['h1'].engine.faults[fault] = lambda _about: monkeypatch.setattr(
            manager, '_SPARE_S', 120)
    asked = {'create': {'group': 'g', 'name': None, 'description': '', 'properties': {},
                        'gate': 'auto', 'disk': 'backup'},
             'restore': {'snapshot': snapshot, 'ignore_new_members': False}}[method]
    client = rpc.Client(cluster.transport, rpcapi.TOPIC, rpcapi.VERSION, CALLER)

    with pytest.raises(exception.Unavailable, match='nothing was begun'):
        client.call(None, method, timeout_s, **asked)

    assert [each.id for each in cluster.database.list()] == [snapshot]
    assert api.get(snapshot)['last_action'] is None


def test_a_failed_restore_tells_why_and_leaves_the_snapshot(cluster, api):
    snapshot = available(api)
    cluster.hosts['h2'].engine.faults['restore_start'] = exception.HypervisorError(
        member='c', reason='no memory')

    api.restore(snapshot, False)

    shown = ended(api, snapshot)
    assert (shown['status'], shown['last_action']['status']) == ('available', 'failed')
    assert shown['last_action']['error']['code'] == 'hypervisor_error'
    assert 'no memory' in shown['last_action']['error']['message']


def test_a_damaged_snapshot_is_found_by_a_verification(cluster, api):
    snapshot = available(api)
    path = cluster.hosts['h1'].store.path(snapshot, cluster.world.spec('a').id, 'memory.save')
    with open(path, 'r+b') as file:
        file.write(b'x')

    api.verify(snapshot)

    shown = ended(api, snapshot)
    assert (shown['status'], shown['last_action']['status']) == ('available', 'failed')
    assert shown['last_action']['error']['code'] == 'snapshot_damaged'


def test_reset_status_sets_the_status_and_nothing_else(cluster, api):
    snapshot = available(api)
    before = api.get(snapshot)

    api.reset_status(snapshot, 'error')

    after = api.get(snapshot)
    assert after == before | {'status': 'error', 'updated_at': after['updated_at']}
    with pytest.raises(exception.InvalidValue):
        api.reset_status(snapshot, 'restoring')


@pytest.mark.parametrize('waits_for', ['h2', 'nobody'])
def test_what_is_deleted_or_was_given_up_cannot_be_called_available(
        cluster, impatient, api, waits_for):
    snapshot = available(api)
    if waits_for == 'h2':
        cluster.hosts['h2'].silence()
        api.delete(snapshot, False)
    else:
        row = cluster.database.get(snapshot)
        cluster.database.compare_and_swap(
            snapshot, row.generation, status='error', decision='discard')

    with pytest.raises(exception.SnapshotBusy, match='nothing of it is kept') as told:
        api.reset_status(snapshot, 'available')

    assert told.value.http_status == 409
    assert api.get(snapshot)['status'] != 'available'
    api.reset_status(snapshot, 'error')


def test_two_requests_at_once_begin_one_action(cluster, api, config, cells):
    snapshot = available(api)
    first, second = (service.Service(config, 'x', cluster.transport, cells) for _ in range(2))
    for each in (first, second):
        each.database = service.open_database(config)
    found = first.database.get(snapshot)
    first.database.compare_and_swap(found.id, found.generation, status='restoring')

    with pytest.raises(exception.SnapshotBusy):
        api.verify(snapshot)
    for each in (first, second):
        each.database.close()


# -- hosts that are away -------------------------------------------------------------------------


def test_a_deletion_with_a_dead_host_ends_and_by_force_is_made_good(cluster, impatient, api):
    snapshot = available(api)
    cluster.hosts['h2'].kill()

    api.delete(snapshot, False)
    clusters.until(lambda: api.get(snapshot)['status'] == 'error_deleting', 60)
    error = api.get(snapshot)['error']
    assert (error['code'], error['host']) == ('host_unreachable', 'h2')

    api.delete(snapshot, True)
    clusters.until(lambda: gone(api, snapshot), 60)
    assert [each.kind for each in cluster.database.errands('h2')] == ['delete']
    cluster.hosts['h2'].start()
    clusters.until(lambda: not cluster.database.errands(), 60)
    assert cluster.clean()


def test_a_host_that_dies_in_the_middle_is_told_to_discard_when_it_returns(
        cluster, impatient, api, config):
    for engine in cluster.engines():
        engine.save_s = 60
    snapshot = create(api)
    clusters.until(lambda: api.get(snapshot)['phase'] == 'save')
    host = cluster.hosts['h2']
    host.silence()

    api.delete(snapshot, True)

    clusters.until(lambda: gone(api, snapshot), 60)
    clusters.until(lambda: not cluster.hosts['h1'].left(), 60)
    assert [each.kind for each in cluster.database.errands('h2')] == ['message', 'delete']
    host.kill()
    host.start()
    clusters.until(lambda: not cluster.database.errands(), 60)
    assert cluster.clean()


def test_a_snapshot_whose_host_is_away_has_failed_and_is_cleaned_up_later(
        cluster, impatient, api):
    for engine in cluster.engines():
        engine.save_s = 60
    snapshot = create(api)
    clusters.until(lambda: api.get(snapshot)['phase'] == 'save')
    cluster.hosts['h2'].silence()

    api.abort(snapshot)

    clusters.until(lambda: api.get(snapshot)['status'] == 'error', 60)
    assert (api.get(snapshot)['phase'], api.get(snapshot)['error']['code']) == ('', 'aborted')
    assert [each.kind for each in cluster.database.errands('h2')] == ['message']
    cluster.hosts['h2'].kill()
    cluster.hosts['h2'].start()
    clusters.until(lambda: not cluster.database.errands(), 60)
    assert cluster.clean()


def test_a_host_that_falls_silent_in_its_save_fails_the_snapshot_and_frees_the_others(
        cluster, impatient, monkeypatch):
    coordinator = cluster.coordinator('other', silence_s=3.0)
    monkeypatch.setattr(drive, 'CALL_MS', 500)
    for engine in cluster.engines():
        engine.save_s = 60
    snapshot = coordinator.create(cluster.request())
    clusters.until(lambda: coordinator.get(snapshot).phase == 'save')
    began = time.monotonic()
    cluster.hosts['h2'].silence()

    clusters.until(lambda: not cluster.hosts['h1'].left(), 60)

    assert time.monotonic() - began >= 3.0 - drive.CALL_MS / 1e3
    cluster.hosts['h2'].kill()
    cluster.hosts['h2'].start()
    assert coordinator.wait(snapshot, 60)
    found = coordinator.get(snapshot)
    assert (found.status, found.error_code, found.error_host) == (
        'error', 'host_unreachable', 'h2')
    assert cluster.clean()


def test_hosts_that_answer_may_save_for_as_long_as_they_like(cluster):
    coordinator = cluster.coordinator('other', silence_s=1.5)
    for engine in cluster.engines():
        engine.save_s = 4

    snapshot = coordinator.create(cluster.request())

    assert coordinator.wait(snapshot, 60)
    assert coordinator.get(snapshot).status == 'available'


@pytest.mark.parametrize(('dies_at', 'disk', 'code'), [
    ('start', 'own', 'host_unreachable'), ('resume', 'snapshot', 'restore_incomplete')])
def test_a_restore_whose_host_dies_ends_and_is_made_good_when_it_returns(
        cluster, impatient, api, dies_at, disk, code):
    snapshot = available(api)
    host = cluster.hosts['h2']
    # Nothing after this is answered: asked for by the other host's engine.
    silent = threading.Event()
    cluster.hosts['h1'].engine.faults[f'restore_{dies_at}'] = (
        lambda _work: (host.silence(), silent.set()))
    host.engine.faults[f'restore_{dies_at}'] = lambda _work: silent.wait(60)

    api.restore(snapshot, False)

    shown = ended(api, snapshot)
    assert shown['status'] == 'available'
    error = shown['last_action']['error']
    assert (error['code'], error['host']) == (code, 'h2')
    assert 'host h2' in error['message'].lower()
    assert [each.kind for each in cluster.database.errands('h2')] == ['order']
    host.kill()
    host.start()
    clusters.until(lambda: not cluster.database.errands(), 60)
    expected = {'own': 'own', 'snapshot': snapshot}[disk]
    assert {cluster.world.guest(name)['disk'] for name in 'abc'} == {expected}
    assert not any(each.left() for each in cluster.hosts.values())


def test_a_member_of_another_project_is_neither_checked_nor_kept_nor_restored(
        cluster, api, cells):
    snapshot = available(api)
    cells.changes['b'] = {'project_id': 'another'}

    for call in (lambda: create(api), lambda: api.check('g', 'auto', 'backup'),
                 lambda: api.restore(snapshot, False)):
        with pytest.raises(rpcapi.MembersForeign, match='project than the group: b') as told:
            call()
        assert (told.value.code, told.value.http_status) == ('members_foreign', 409)

    assert [each.id for each in cluster.database.list()] == [snapshot]
    assert cluster.world.untouched()


def test_a_host_that_nova_holds_to_be_down_is_not_waited_for(cluster, api, cells):
    cells.down['h2'] = 'down'

    for call in (lambda: create(api), lambda: api.check('g', 'auto', 'backup')):
        began = time.monotonic()
        with pytest.raises(exception.HostUnreachable, match='h2'):
            call()
        assert time.monotonic() - began < 5
    assert api.list(filters={}, limit=10, marker=None, detail=False) == []


# -- coordinators that die -----------------------------------------------------------------------


def test_a_coordinator_takes_over_what_another_left(cluster, start):
    for engine in cluster.engines():
        engine.save_s = 4
    first = start('c1')
    api = rpcapi.ConductorApi(cluster.transport, CALLER)
    snapshot = create(api)
    clusters.until(lambda: api.get(snapshot)['phase'] == 'save')
    start('c2')

    first.stop()
    first.stop = lambda: None

    clusters.until(lambda: api.get(snapshot)['status'] != 'creating', 60)
    shown = api.get(snapshot)
    assert shown['error'] is None
    assert shown['status'] == 'available'
    assert cluster.clean()


def test_a_verification_whose_coordinator_died_is_told_to_have_failed(cluster, api):
    snapshot = available(api)
    row = cluster.database.get(snapshot)
    cluster.database.compare_and_swap(
        snapshot, row.generation, action_status='running', lease_owner='dead', lease_expires_at=0,
        last_action={'name': 'verify', 'status': 'running', 'started_at': 'x',
                     'finished_at': None, 'request_id': '', 'error': None, 'result': None})

    shown = ended(api, snapshot)

    assert (shown['last_action']['status'], shown['last_action']['error']['code']) == (
        'failed', 'aborted')


def test_a_deletion_whose_coordinator_died_goes_on(cluster, api):
    snapshot = available(api)
    row = cluster.database.get(snapshot)

    cluster.database.compare_and_swap(snapshot, row.generation, status='deleting',
                                      lease_owner='dead', lease_expires_at=0)

    clusters.until(lambda: gone(api, snapshot), 60)
    assert cluster.hosts['h1'].store.list() == ()


def test_a_deletion_by_force_stays_one_when_it_is_taken_over(cluster, impatient, api):
    """Of an older version, whose rows were there until it was done."""
    snapshot = available(api)
    cluster.hosts['h2'].kill()
    row = cluster.database.get(snapshot)

    cluster.database.compare_and_swap(
        snapshot, row.generation, status='deleting', phase='delete by force', lease=('dead', 0))

    clusters.until(lambda: gone(api, snapshot), 60)
    clusters.until(lambda: not cluster.database.errands('h1'), 60)
    assert [each.kind for each in cluster.database.errands('h2')] == ['delete']


def test_a_restore_whose_coordinator_died_is_ended_whatever_status_was_set(cluster, api):
    snapshot = available(api)
    reached, goes_on = threading.Event(), threading.Event()
    cluster.hosts['h1'].engine.faults['restore_stop'] = lambda _work: (
        reached.set(), goes_on.wait(60))
    found = cluster.database.get(snapshot)
    cluster.snapshots.begin_restore(found, cluster.snapshots.plan_restore(found))
    assert reached.wait(60)

    api.reset_status(snapshot, 'available')
    cluster.snapshots.leave()
    goes_on.set()

    assert ended(api, snapshot)['status'] == 'available'
    assert not cluster.hosts['h1'].left()
    assert cluster.database.get(snapshot).restore is None


def test_a_host_that_has_yet_to_end_a_restore_is_given_no_other(cluster, api):
    snapshot = available(api)
    found = cluster.database.get(snapshot)
    cluster.hosts['h2'].engine.faults['restore_touched'] = exception.HypervisorError(
        member='c', reason='it hangs')
    cluster.hosts['h2'].silence()
    cluster.database.add_errand('another', 'h2', *order(found, 'h2'))

    with pytest.raises(exception.SnapshotBusy, match='host h2 has yet to end a restore'):
        api.restore(snapshot, False)

    assert cluster.world.untouched()


def test_what_is_deleted_next_is_not_published_before(cluster, impatient, api):
    """Version 1.0 left both errands; on a store that is shared another host had deleted it."""
    def fails(_about):
        raise exception.StoreUnavailable(store='store', reason='is full')
    cluster.hosts['h2'].engine.faults['finish'] = fails
    snapshot = create(api)
    clusters.until(lambda: cluster.hosts['h2'].store.list() == (snapshot,))
    cluster.hosts['h2'].silence()
    finish = errands.of(errands.messages.Finish(snapshot, cluster.database.get(snapshot).epoch,
                                                'h2'))
    api.delete(snapshot, True)
    clusters.until(lambda: gone(api, snapshot) and not cluster.database.errands('h1'), 60)
    for errand in cluster.database.errands('h2'):
        cluster.database.end_errand(errand)
    for kind, detail in (finish, (errands.DELETE, {})):
        cluster.database.add_errand(snapshot, 'h2', kind, detail)

    cluster.hosts['h2'].kill()
    cluster.hosts['h2'].start()

    clusters.until(lambda: not cluster.database.errands(), 30)
    assert cluster.clean()


def test_an_errand_that_fails_does_not_keep_those_of_other_snapshots(cluster):
    failing, row = cluster.create('failing'), cluster.create()
    planned = cluster.snapshots.plan_restore(failing)
    cluster.database.add_errand(failing.id, 'h1', *errands.of(restores.Order(
        planned.restore, 'h1', restores.Step.UNDO, dict(planned.hosts)['h1'])))
    cluster.database.add_errand(row.id, 'h1', errands.DELETE, {})
    host = cluster.hosts['h1']
    host.engine.restore_touched = lambda _work: True
    host.engine.faults['restore_undo'] = exception.HypervisorError(
        member='a', reason='it hangs')

    with pytest.raises(exception.HotsnapError, match='Member a: it hangs'):
        cluster.snapshots.errands.run()

    assert [each.snapshot_id for each in cluster.database.errands('h1')] == [failing.id]
    assert host.store.list() == (failing.id,)


def test_what_a_host_has_no_longer_got_it_owes_nothing_for(cluster, api):
    snapshot = available(api)
    cluster.database.add_errand(
        snapshot, 'h1', *order(cluster.database.get(snapshot), 'h1'))
    with cluster.world.open() as guests:
        del guests['a']

    clusters.until(lambda: not cluster.database.errands(), 20)


@pytest.mark.parametrize('keeps', [None, 'before'])
def test_a_host_that_nova_no_longer_knows_owes_nothing(cluster, api, cells, keeps):
    snapshot = available(api)
    cluster.database.add_errand(snapshot, 'removed', *order(cluster.database.get(snapshot), 'h2'))

    api.restore(snapshot, False, keep_present=keeps)    # it is in nobody's way
    assert ended(api, snapshot)['last_action']['error'] is None
    assert cluster.database.errands('removed')    # for its mapping may be away for a moment only

    hosts.Hosts(cluster.database, cluster.compute, cells, cluster.snapshots.errands, 60,
                gone_s=0).look()
    assert not cluster.database.errands()


@pytest.mark.parametrize('state', ['down', 'fenced', 'up'])
def test_a_host_whose_mapping_is_away_for_a_moment_owes_what_it_owed(cluster, cells, state):
    row = cluster.create()
    cluster.database.add_errand(row.id, 'h1', *order(row, 'h1'))
    cells.down['h1'] = state
    cells.hosts = lambda: ('h2',)

    hosts.Hosts(cluster.database, cluster.compute, cells, cluster.snapshots.errands, 60,
                gone_s=0).look()

    assert cluster.database.errands('h1')


def test_a_database_of_another_version_is_refused(cluster, config, cells):
    made = service.Service(config, 'c', cluster.transport, cells)
    with cluster.database._engine.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")

    with pytest.raises(exception.DatabaseUnavailable, match='db sync'):
        made.start()


# -- signs of life, and versions -----------------------------------------------------------------


def test_coordinators_and_hosts_are_in_the_table_of_services(cluster, start):
    start('c1')

    clusters.until(lambda: len(cluster.database.services()) == 3, 60)
    found = {(each.binary, each.host): each for each in cluster.database.services()}
    assert set(found) == {(hosts.CONDUCTOR, 'c1'), (hosts.COMPUTE, 'h1'), (hosts.COMPUTE, 'h2')}
    assert all(time.time() - each.seen_at < 60 for each in found.values())
    assert all(0 <= each.seen_at - each.started_at < 60 for each in found.values())
    assert found[hosts.COMPUTE, 'h1'].rpc_version == compute_endpoint.VERSION


def test_a_silent_host_is_not_heard_of(cluster, impatient, start):
    made = start('c1')
    clusters.until(lambda: len(cluster.database.services(hosts.COMPUTE)) == 2, 60)
    cluster.hosts['h2'].silence()
    seen = {each.host: each.seen_at for each in cluster.database.services(hosts.COMPUTE)}

    made._hosts._interval_s = 0
    assert made._hosts.look() == ('h1',)

    now = {each.host: each.seen_at for each in cluster.database.services(hosts.COMPUTE)}
    assert now['h1'] > seen['h1']
    assert now['h2'] == seen['h2']


@pytest.mark.parametrize('hangs_at', ['ping', 'delete'])
def test_a_host_that_hangs_does_not_keep_others_from_being_asked(cluster, cells, monkeypatch,
                                                                 hangs_at):
    monkeypatch.setattr(hosts, '_LOOK_S', 2)
    cluster.database.add_errand('x', 'h1', errands.DELETE, {})
    cluster.database.add_errand('x', 'h2', errands.DELETE, {})
    goes_on, hung, real = threading.Event(), [], getattr(cluster.compute, hangs_at)

    def hang(host, *args):
        if host == 'h1':
            hung.append(host)
            goes_on.wait(60)
        return real(host, *args)
    monkeypatch.setattr(cluster.compute, hangs_at, hang)
    doing = cluster.snapshots.errands
    looking = hosts.Hosts(cluster.database, cluster.compute, cells, doing, 0)

    seen = []
    for _ in range(2):
        began = time.monotonic()
        assert 'h2' in looking.look()
        assert time.monotonic() - began < 10
        seen.append({each.host: each.seen_at
                     for each in cluster.database.services(hosts.COMPUTE)}['h2'])
        clusters.until(lambda: not cluster.database.errands('h2'))

    assert seen[1] > seen[0]
    assert hung == ['h1']    # one thing at a time
    assert [each.host for each in cluster.database.errands()] == ['h1']
    goes_on.set()
    looking.close(60)
    clusters.until(lambda: not cluster.database.errands() or doing.begin(['h1']))


def test_hundreds_of_hosts_are_asked_by_a_few_threads(cluster, cells, monkeypatch):
    names, asked, threads = [f'h{number}' for number in range(300)], [], set()

    def ping(host):
        asked.append(host)
        threads.add(threading.get_ident())
        raise exception.HostUnreachable(host=host, reason='it is off')
    monkeypatch.setattr(cluster.compute, 'ping', ping)
    cells.hosts = lambda: names
    looking = hosts.Hosts(cluster.database, cluster.compute, cells, cluster.snapshots.errands, 0)

    looking.look()

    looking.close(60)
    assert sorted(asked) == sorted(names)
    assert len(threads) <= 32


class OldManager:
    """The first version's endpoint: no ping, and restores of another kind."""

    target = rpc.oslo_messaging.Target(version='1.0')

    def __init__(self, real):
        for name in ('find', 'check', 'receive', 'manifest', 'delete', 'verify'):
            setattr(self, name, getattr(real, name))


@pytest.fixture
def old_host(cluster):
    """Host h2 is of the version before."""
    host = cluster.hosts['h2']
    host.silence()
    served = OldManager(compute_endpoint.Endpoint(host.manager))
    server = rpc.open_server(cluster.transport, compute_rpcapi.TOPIC, 'h2', [served])
    server.start()
    yield
    assert rpc.close([server], 60)


@pytest.mark.parametrize('pin', [None, '1.0'])
def test_a_new_coordinator_makes_and_deletes_snapshots_with_an_old_host(
        cluster, old_host, config, api, pin):
    """Also where the version is pinned. Only the restore waits for the upgrade."""
    cluster.compute = compute_rpcapi.ComputeApi(cluster.transport, pin=pin)
    told = cluster.compute.ping('h2')
    snapshot = available(api)

    with pytest.raises(exception.HostTooOld, match='h2'):
        api.restore(snapshot, False)
    assert cluster.world.untouched()

    api.delete(snapshot, False)
    clusters.until(lambda: gone(api, snapshot))
    assert (told['rpc_version'], told['version']) == ('1.0', '')
    assert cluster.clean()


def test_what_an_old_host_does_not_know_is_said_so(cluster, old_host):
    with pytest.raises(exception.HostTooOld, match='h2.*ping'):
        cluster.compute._client.call('h2', 'ping', 5, version='1.1')


# -- members that have moved ---------------------------------------------------------------------


def steps(cluster, host):
    return [call for call in cluster.hosts[host].engine.calls if call.startswith('restore_')]


def test_members_that_moved_are_restored_where_they_are_now(cluster, api, cells):
    """The hosts share a store."""
    snapshot = available(api)
    cells.changes |= {'b': {'host': 'h2'}, 'c': {'host': 'h1'}}
    here = {}
    for name, host in cluster.hosts.items():
        host.engine.faults['restore_start'] = lambda work, name=name: here.update(
            {name: {each.spec.name for each in work.members}})

    api.restore(snapshot, False)

    assert ended(api, snapshot)['last_action']['error'] is None
    assert here == {'h1': {'a', 'c'}, 'h2': {'b'}}
    assert {cluster.world.guest(name)['disk'] for name in 'abc'} == {snapshot}
    assert cluster.clean()


@pytest.mark.parametrize('state', ['up', 'fenced', 'gone'])
def test_a_host_that_all_members_left_has_no_part_in_a_restore(cluster, api, cells, state):
    snapshot = available(api)
    cells.changes['c'] = {'host': 'h1'}
    cells.down['h2'] = state

    api.restore(snapshot, False)

    assert ended(api, snapshot)['last_action']['error'] is None
    assert cluster.world.guest('c')['disk'] == snapshot
    assert steps(cluster, 'h2') == []


@pytest.fixture
def own_store(cluster, tmp_path):
    """The store of h1 is its own."""
    cluster.hosts['h1'].kill()
    cluster.hosts['h1'].store = local.LocalStore(f'{tmp_path}/own-store')
    cluster.hosts['h1'].start()


@pytest.mark.usefixtures('own_store')
def test_members_that_moved_to_where_nothing_is_kept_of_them_are_refused(cluster, api, cells):
    """h1 has a manifest that names c, and not its files."""
    snapshot = available(api)
    cells.changes['c'] = {'host': 'h1'}

    with pytest.raises(exception.MembersMoved, match=': c. Migrate'):
        api.restore(snapshot, False)

    assert steps(cluster, 'h1') == []
    assert cluster.world.untouched()


@pytest.mark.usefixtures('own_store')
def test_members_that_moved_to_a_host_without_the_snapshot_are_refused(cluster, api, cells):
    cluster.members = [('c', 'h2')]
    cells.groups['g'] = ['c']
    snapshot = available(api)
    cells.changes['c'] = {'host': 'h1'}

    with pytest.raises(exception.MembersMoved, match=': c. Migrate'):
        api.restore(snapshot, False)


def test_a_restore_of_moved_members_is_undone_where_it_was_begun(cluster):
    """By the coordinator that takes it over, from the row alone."""
    row = cluster.create()
    reached, goes_on = threading.Event(), threading.Event()
    cluster.hosts['h1'].engine.faults['restore_start'] = lambda _work: (
        reached.set(), goes_on.wait(60))
    cluster.snapshots.begin_restore(row, cluster.snapshots.plan_restore(row, places={
        each.member_id: 'h1' for each in row.members}))
    assert reached.wait(60)
    cluster.snapshots.leave()
    goes_on.set()
    heir = cluster.coordinator('heir')

    assert heir.recover() == (row.id,)

    assert heir.wait(row.id, 60)
    assert steps(cluster, 'h1')[-2:] == ['restore_undo', 'restore_clear']
    assert steps(cluster, 'h2') == []
    assert not any(cluster.world.guest(name)['left'] for name in 'abc')
    assert not cluster.hosts['h1'].left()
