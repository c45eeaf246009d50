# SPDX-License-Identifier: Apache-2.0
"""What is saved waits for its coordinator as long as it takes, and its guests do not."""

import threading
import time

import pytest

from hotsnap_nova import exception
from hotsnap_nova.compute import owner as owners
from tests.fakes import cluster as clusters

SILENCE_NS = 600 * 10**9


class Owner(owners.Owner):
    """Keeps account of what is claimed.

    :ivar claims: by id of the snapshot, ids of guests
    :ivar errors: why claims ended, '' where nothing failed
    :ivar is_away: it does not answer
    :ivar asked: so many times it was asked to end one
    """

    def __init__(self):
        self.claims, self.errors, self.is_away, self.asked = {}, [], False, 0

    def begin_snapshot(self, claim, members, caller):
        self.claims[claim] = {member.id for member in members}

    def end(self, claim, error='', faults=None):
        self.asked += 1
        if self.is_away:
            raise exception.HostUnreachable(host='nova-conductor', reason='it restarts')
        if self.claims.pop(claim, None):
            self.errors.append(error)


@pytest.fixture
def cluster(tmp_path):
    with clusters.Cluster(tmp_path, {'h1': 'a', 'h2': 'b'}) as made:
        yield made


@pytest.fixture
def saving():
    """Set: the other host's save ends."""
    ends = threading.Event()
    yield ends
    ends.set()


@pytest.fixture
def host(cluster, saving):
    """Has saved its part of a snapshot that another host saves yet, whose coordinator is gone."""
    found = cluster.hosts['h1']
    found.owner = Owner()
    found.stop()
    found.start()
    cluster.hosts['h2'].engine.faults['save'] = lambda _work: saving.wait(60)
    cluster.snapshots.create(cluster.request())
    clusters.until(lambda: found.phases() == {'saved'})
    cluster.snapshots.leave()
    return found


@pytest.fixture
def pass_silence(host):
    """Lets so much time pass that a coordinator counts as gone."""
    runner, passed = host.manager._participants._runner, 0

    def pass_silence():
        nonlocal passed
        before = host.owner.asked
        passed += SILENCE_NS
        runner._clock_ns = lambda: time.monotonic_ns() + passed
        runner.tick()
        clusters.until(lambda: host.owner.asked > before)
    return pass_silence


def test_an_owner_has_its_guests_back_after_a_silence_and_the_part_stays(
        cluster, host, pass_silence):
    assert host.owner.claims

    pass_silence()

    clusters.until(lambda: host.owner.errors)
    assert (host.owner.claims, host.owner.errors) == ({}, [''])
    assert host.phases() == {'saved'}
    assert host.manager.holds(cluster.world.spec('a').id)


def test_the_coordinator_that_comes_makes_the_snapshot_available(
        cluster, host, saving, pass_silence):
    pass_silence()
    heir = cluster.coordinator('heir')
    (snapshot,) = heir.recover()

    saving.set()

    assert heir.wait(snapshot, 60)
    assert heir.get(snapshot).status == 'available'
    assert host.owner.errors == ['']    # it was told once
    assert cluster.clean()


def test_an_owner_that_is_away_is_asked_again(host, pass_silence):
    host.owner.is_away = True
    pass_silence()
    assert host.owner.claims
    host.owner.is_away = False

    pass_silence()

    clusters.until(lambda: host.owner.errors)
    assert (host.owner.claims, host.owner.errors) == ({}, [''])
