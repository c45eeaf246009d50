# SPDX-License-Identifier: Apache-2.0
"""Coordinator and hosts over a real broker: Debian's RabbitMQ, private ports and folders."""

import statistics
import time

import pytest

from hotsnap_nova import exception
from hotsnap_nova.conductor import fanout
from tests.fakes import cluster as clusters
from tests.fakes.engine import World
from tests.lab.broker import Broker

#: Of 20 hosts with ten members each, from the first Record to the first Release.
MOST_TRIPS = 10


@pytest.fixture(scope='module')
def broker(tmp_path_factory):
    made = Broker(tmp_path_factory.mktemp('rabbit'))
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def cluster(broker, tmp_path):
    with clusters.Cluster(tmp_path, {'h1': 'ab', 'h2': 'c'}, broker.url) as made:
        yield made


@pytest.mark.parametrize('gate', ['hold', 'barrier'])
def test_snapshot_and_restore_over_a_broker(cluster, gate):
    row = cluster.create(gate=gate)
    assert (row.status, row.error_message) == ('available', None)
    assert cluster.clean()

    cluster.snapshots.restore('nightly')

    assert {cluster.world.guest(name)['disk'] for name in 'abc'} == {row.id}
    assert cluster.clean()


def test_an_error_crosses_the_broker_unchanged(cluster):
    with pytest.raises(exception.MemberNotFound, match='zzz') as raised:
        cluster.compute.find('h1', ['zzz'])

    assert raised.value.kwargs == {'member': 'zzz'}


def test_a_host_that_never_answers_is_a_deadline_and_the_others_go_on_running(cluster):
    cluster.hosts['h2'].die_at('record')

    snapshot = cluster.snapshots.create(cluster.request(max_hold_ms=500))
    clusters.until(lambda: cluster.snapshots.get(snapshot).decision == 'discard')
    clusters.until(lambda: not cluster.hosts['h1'].phases())
    assert all(cluster.world.guest(name)['state'] == 'running' for name in 'ab')
    cluster.hosts['h2'].kill()
    cluster.hosts['h2'].start()

    assert cluster.snapshots.wait(snapshot, timeout_s=240)
    assert cluster.snapshots.get(snapshot).status == 'error'
    assert cluster.clean()


def test_an_unknown_host_is_unreachable(cluster):
    with pytest.raises(exception.HostUnreachable, match='h9'):
        cluster.compute._client.call('h9', 'find', 0.5, names=['a'])


@pytest.fixture
def wide(broker, tmp_path):
    """20 hosts of ten guests; each has a file of its own for them, as hosts share none."""
    names = {f'h{host:02}': [f'g{host:02}-{guest}' for guest in range(10)] for host in range(20)}
    made = clusters.Cluster(tmp_path, dict.fromkeys(names, ()), broker.url)
    for name, guests in names.items():
        made.hosts[name].engine.world = World(f'{tmp_path}/{name}.json')
        for guest in guests:
            made.hosts[name].engine.world.add(guest)
            made.members.append((guest, name))
    with made:
        yield made


def record_to_release_s(cluster, name):
    """Seconds by the coordinator's clock, from its first Record to its first Release."""
    at = {}
    snapshot = cluster.snapshots.create(
        cluster.request(name), lambda event: at.setdefault(event['phase'], time.monotonic()))
    assert cluster.snapshots.wait(snapshot, timeout_s=240)
    row = cluster.snapshots.get(snapshot)
    assert (row.status, row.error_message) == ('available', None)
    assert len(row.members) == len(cluster.members)
    assert all(each.pause_ms for each in row.members)
    return at['release'] - at['record']


def round_trip_s(cluster):
    """Seconds until all hosts have answered what costs them nothing, asked at once."""
    began = time.monotonic()
    fanout.each(cluster.hosts, cluster.compute.ping)
    return time.monotonic() - began


def test_200_members_on_20_hosts_take_few_round_trips_from_record_to_release(wide):
    """On a machine that does nothing else this is far below a second.

    All hosts are threads of this process here, and wait for one another as real ones do
    not: what a slow machine makes of that, it makes of the round trips as well.
    """
    took_s, trips_s = [], []
    for number in range(3):
        trips_s += [round_trip_s(wide) for _ in range(3)]
        took_s.append(record_to_release_s(wide, f'n{number}'))
    took, trip = statistics.median(took_s), statistics.median(trips_s)
    print(f'record to release: {took * 1000:.0f} ms; a round trip to all: {trip * 1000:.0f} ms')

    assert took < MOST_TRIPS * trip
