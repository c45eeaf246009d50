# SPDX-License-Identifier: Apache-2.0
"""Coordinators that write to two servers of one cluster: locks of one are not the other's.

Of two transactions that wrote the same row the cluster undoes the second as it commits.
"""

import concurrent.futures
import threading

import pytest

from hotsnap_nova import exception
from hotsnap_nova.db import api, claims
from tests.nova import mariadb
from tests.nova.test_mariadb import MEMBERS, row


@pytest.fixture(scope='module')
def pair(tmp_path_factory):
    made = mariadb.Pair(tmp_path_factory.mktemp('g'))
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def databases(pair, request):
    """One database, by way of each server."""
    first, second = pair.servers
    name = f'd{abs(hash(request.node.name))}'
    made = [api.Database(first.make(name))]
    made[0].upgrade()
    made.append(api.Database(second.url(name)))
    yield made
    for each in made:
        each.close()


def both(databases, call):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return list(pool.map(call, databases))


def test_a_quota_holds_where_two_are_counted_on_two_servers_before_either_is_kept(
        databases, monkeypatch):
    count, here, counted = claims.keep_quota, threading.local(), threading.Barrier(2)

    def count_together(*args):
        count(*args)
        if not hasattr(here, 'met'):    # what the cluster undid comes again, alone
            here.met = counted.wait(60)
    monkeypatch.setattr(claims, 'keep_quota', count_together)

    def create(database):
        try:
            database.create(row(f's{databases.index(database)}'), MEMBERS, unique_name=False,
                            quotas=[('project_id', 'p', 1)])
        except exception.OverQuota as exc:
            return exc
        return None

    outcomes = both(databases, create)

    assert outcomes.count(None) == len(databases[0].list()) == 1


def test_of_two_decisions_on_two_servers_one_is_stale(databases):
    databases[0].create(row('s'), MEMBERS)
    together = threading.Barrier(2)

    def decide(database):
        together.wait(60)
        try:
            return database.compare_and_swap(
                's', 0, phase=f'by {databases.index(database)}')
        except exception.StaleGeneration:
            return None

    outcomes = both(databases, decide)

    assert sorted(outcomes, key=str) == [1, None]
    winner = outcomes.index(1)
    assert {each.get('s').phase for each in databases} == {f'by {winner}'}


def test_an_errand_is_done_by_way_of_one_server(databases):
    databases[0].add_errand('s', 'h', 'delete', {})
    (errand,) = databases[0].errands()
    together = threading.Barrier(2)

    def claim(database):
        together.wait(60)
        return database.claim_errand(errand, f'c{databases.index(database)}', 60)

    assert sorted(both(databases, claim)) == [False, True]
