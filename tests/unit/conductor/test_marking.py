# SPDX-License-Identifier: Apache-2.0
"""Gate ``marker``: what every host is told before it prepares, and when there is none."""

import json

import pytest

from hotsnap_nova import exception
from tests.fakes import cluster as clusters

CODES = (3, 7, 11)


@pytest.fixture
def cluster(tmp_path):
    """Two hosts; of the guests of one no address is known."""
    with clusters.Cluster(tmp_path, {'h1': 'a', 'h2': 'c'}) as made:
        made.world.add('a', ips=('10.0.0.1', 'fd00::1'))
        yield made


def told(cluster, name, **more):
    """What each host is told of marks, by the host."""
    seen = {}
    for host in cluster.hosts.values():
        def prepare(work, host=host.name, do=host.engine.prepare):
            seen[host] = work.marker
            return do(work)
        host.engine.prepare = prepare
    row = cluster.create(name, gate='marker', addresses=(
        (cluster.world.guest('c')['mac'], ('10.0.0.3',)),), **more)
    assert (row.status, row.gate) == ('available', 'marker'), row.error_message
    return seen


def test_every_host_is_told_the_same_with_the_addresses_that_hosts_and_users_know(cluster):
    seen = told(cluster, 'one')

    assert seen['h1'] == seen['h2']
    assert sorted(map(json.dumps, seen['h1']['addresses'])) == [
        json.dumps({'mac': '52:54:00:00:00:61', 'ips': ['10.0.0.1', 'fd00::1']}),
        json.dumps({'mac': '52:54:00:00:00:63', 'ips': ['10.0.0.3']})]
    assert cluster.clean()


def test_each_snapshot_of_a_group_has_the_next_code_point(cluster):
    codes = [told(cluster, name, marker_dscp=CODES)['h1']['code'] for name in ('1', '2', '3', '4')]

    assert sorted(codes[:3]) == list(CODES)
    assert codes[3] == codes[0]


def test_a_member_of_which_no_address_is_known_is_refused_by_name(cluster):
    with pytest.raises(exception.GateNotPossible, match='marker is not possible for c: .*--addr'):
        cluster.create(gate='marker')

    assert 'prepare' not in [call for engine in cluster.engines() for call in engine.calls]


def test_a_member_that_cannot_mark_is_refused_with_the_cause(cluster):
    cluster.world.add('c', ips=('10.0.0.3',), says=(
        ('tap0', 'it has an ingress qdisc', 'use hold', ('marker',)),))

    with pytest.raises(exception.GateNotPossible, match='for c: tap0: it has an ingress qdisc'):
        cluster.create(gate='marker')


@pytest.mark.parametrize('codes', [(), (3,), (3, 3), (3, 7, 3)])
def test_where_two_in_turn_would_have_the_same_mark_nothing_is_touched(cluster, codes):
    with pytest.raises(exception.InvalidValue, match='marker_dscp'):
        cluster.create(gate='marker', marker_dscp=codes)


def test_a_host_of_before_marks_nothing(cluster, monkeypatch):
    check = cluster.compute.check
    monkeypatch.setattr(cluster.compute, 'check', lambda host, members, gate: (
        check(host, members, 'auto') if host == 'h2' else check(host, members, gate)))

    with pytest.raises(exception.GateNotPossible, match='its host cannot do it'):
        cluster.create(gate='marker')


def test_auto_marks_nothing_and_asks_nobody_about_it(cluster):
    cluster.world.add('c', ips=('10.0.0.3',))
    row = cluster.create()

    assert row.gate == 'hold'
    assert 'marker' not in json.loads(dict(_hosts(row))['h1']['options'])


def test_a_verdict_says_that_it_is_possible_where_that_is_asked(cluster):
    cluster.world.add('c', ips=('10.0.0.3',))
    members = tuple(cluster.members)

    assert cluster.snapshots.check(members, 'marker')['gates'] == ['marker', 'hold', 'barrier']
    assert cluster.snapshots.check(members)['gates'] == ['hold', 'barrier']


def _hosts(row):
    return json.loads(row.machine)['hosts']
