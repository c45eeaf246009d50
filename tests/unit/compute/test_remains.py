# SPDX-License-Identifier: Apache-2.0
"""What no coordinator knows any more is listed on its host, and ended by hand."""

import glob
import json
import os
import threading

import pytest

from hotsnap_nova import exception
from hotsnap_nova.protocol import messages
from hotsnap_nova.protocol.restore import messages as orders
from hotsnap_nova.protocol.restore.messages import Step
from tests.fakes import cluster as clusters


@pytest.fixture
def cluster(tmp_path):
    with clusters.Cluster(tmp_path, {'h1': 'a', 'h2': 'b'}) as made:
        yield made


@pytest.fixture
def host(cluster):
    return cluster.hosts['h1']


@pytest.fixture
def orphan(cluster):
    """Id of a snapshot that h1 has saved, and whose row is gone."""
    cluster.hosts['h2'].engine.save_s = 60.0
    snapshot = cluster.snapshots.create(cluster.request('lost'))
    clusters.until(lambda: 'saved' in cluster.hosts['h1'].phases())
    cluster.database.delete(snapshot)
    cluster.snapshots.leave()
    for each in cluster.hosts.values():
        each.kill()
        each.start()
    return snapshot


@pytest.fixture
def restore(cluster):
    """Has h1 do steps of a restore of its member, in the name of a coordinator that is gone."""
    row = cluster.create()
    spec = cluster.world.spec('a')
    share = orders.Share(row.id, (messages.Member(spec.id, spec.name),))

    def order(*steps):
        for step in steps:
            wanted = orders.Order('r', 'h1', step, share)
            clusters.until(lambda wanted=wanted: isinstance(
                cluster.compute.order(wanted, 30), orders.OrderDone))
    return order


def forget(cluster, part):
    clusters.until(lambda: cluster.compute.forget('h1', part))


def drafts(host):
    return glob.glob(f'{host.store.root}/.drafts/*/h1')


def test_a_saved_part_whose_row_is_gone_is_listed_and_freed(cluster, host, orphan):
    (listed,) = cluster.compute.parts('h1')
    assert (listed['kind'], listed['id'], listed['state'], listed['members']) == (
        'snapshot', orphan, 'saved', ['a'])
    assert drafts(host)

    forget(cluster, orphan)

    assert cluster.compute.parts('h1') == []
    assert not drafts(host)
    cluster.hosts['h2'].engine.save_s = 0.0
    assert cluster.create('next').status == 'available'


def test_what_a_host_does_not_have_cannot_be_forgotten(cluster):
    with pytest.raises(exception.SnapshotNotFound):
        cluster.compute.forget('h1', 'none')


def test_what_has_ended_meanwhile_is_no_error(cluster, restore):
    restore(Step.PREPARE, Step.UNDO)

    assert cluster.compute.forget('h1', 'r')
    assert cluster.compute.forget('h1', cluster.database.list()[0].id)


def test_a_snapshot_that_is_decided_is_not_forgotten(cluster, host):
    published, goes_on = threading.Event(), threading.Event()
    real = host.store.publish

    def publish(*about):
        published.set()
        goes_on.wait(60)
        return real(*about)
    host.store.publish = publish
    snapshot = cluster.snapshots.create(cluster.request('kept'))
    assert published.wait(30)

    with pytest.raises(exception.SnapshotBusy, match='already_finished'):
        cluster.compute.forget('h1', snapshot)

    goes_on.set()
    assert cluster.snapshots.wait(snapshot, 30)
    assert cluster.snapshots.get(snapshot).status == 'available'


def test_a_restore_that_was_not_decided_is_undone(cluster, host, restore):
    restore(Step.PREPARE, Step.STOP)
    (listed,) = cluster.compute.parts('h1')
    assert (listed['kind'], listed['id'], listed['state'], listed['members']) == (
        'restore', 'r', 'stop done', ['a'])

    forget(cluster, 'r')

    assert cluster.compute.parts('h1') == []
    assert cluster.world.guest('a')['state'] == 'running'
    assert cluster.world.guest('a')['disk'] == 'own'


def test_a_restore_that_was_decided_goes_on_to_its_end(cluster, host, restore):
    restore(Step.PREPARE, Step.STOP, Step.START)
    host.engine.faults['restore_resume'] = exception.HypervisorError(
        member='a', reason='it is away')
    share = host.manager._restores.busy()[0].share
    cluster.compute.order(orders.Order('r', 'h1', Step.RESUME, share), 30)
    clusters.until(lambda: 'it is away' in cluster.compute.parts('h1')[0]['reason'])
    del host.engine.faults['restore_resume']

    forget(cluster, 'r')

    assert cluster.world.guest('a')['state'] == 'running'
    assert cluster.world.guest('a')['disk'] == share.snapshot


@pytest.mark.parametrize('kind', ['journal', 'restores'])
def test_what_cannot_be_read_is_listed_and_put_away(cluster, host, kind):
    host.kill()
    path = f'{host.folder}/state-h1/{kind}/some.json'
    with open(path, 'w') as file:
        json.dump({'kind': 'of the future'}, file)
    host.start()
    (listed,) = cluster.compute.parts('h1')
    assert (listed['id'], listed['state'], path in listed['reason']) == ('some', 'damaged', True)

    forget(cluster, 'some')

    assert cluster.compute.parts('h1') == []
    assert not os.path.exists(f'{path}.damaged')
