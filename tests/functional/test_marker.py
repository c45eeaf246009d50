# SPDX-License-Identifier: Apache-2.0
"""Snapshots whose members' packets are marked: guests as they are, on one host and on two."""

import contextlib
import ctypes
import os
import pathlib

import pytest

from hotsnap_nova.virt import host
from tests.fakes import cluster as clusters
from tests.functional import devices
from tests.functional.command import Hotsnap, until
from tests.lab import GuestSpec, Lab

#: Between the first member's cut and the turn of the second: many messages.
DELAY_S = 0.3


def addresses(guests):
    """What the command is told of them."""
    return [word for guest in guests for word in guest.address_words]


@pytest.fixture
def user(shared_lab, tmp_path):
    with devices.user_beside(shared_lab, tmp_path) as made:
        yield made


def check(user, guests, *words):
    domains = [word for guest in guests for word in ('--domain', guest.domain_name)]
    return user.run('check', '--gate', 'marker', *domains, *words, '-f', 'json')


def test_what_stands_in_its_way_is_told_and_what_does_not_is_possible(
        shared_lab, user, pair, tmp_path):
    elsewhere = Hotsnap(shared_lab.uri, tmp_path / 'elsewhere')

    unseen = check(elsewhere, pair, *addresses(pair)).json
    unknown = check(user, pair, *addresses(pair[:1])).json
    known = check(user, pair, *addresses(pair)).json

    assert {row['Member'] for row in unseen if 'another network namespace' in row['Finding']
            and row['Rules out'] == 'marker'} == set(pair.names)
    assert [row['Member'] for row in unknown if '--address' in row['Remedy']] == [pair.names[1]]
    assert not [row for row in unseen + unknown if 'gate marker' in row['Finding']]
    assert [row['Finding'] for row in known if 'gate' in row['Finding']] == [
        'gate marker is possible', 'gate hold is possible', 'gate barrier is possible']


def test_guests_whose_packets_were_marked_are_left_as_they_were(shared_lab, user, pair):
    with devices.left_as_they_were(shared_lab, pair):
        created = user.create('whole', pair, '--gate', 'marker', *addresses(pair))

        assert created.status == 0, created.errors
        assert user.show('whole')['gate'] == 'marker'
        assert '  gate carried by the host kernel: packets ' in user.run(
            'snapshot', 'show', 'whole').output
        assert {each['carried_by'] for each in user.show('whole')['members']} == {'host kernel'}
    assert until(lambda: not user.processes()), user.processes()


def test_they_are_free_though_everything_of_ours_was_killed_and_recovered_whole(
        shared_lab, user, pair):
    """The first is past its cut and marks; the second's gate is armed."""
    words = user.creating('doomed', pair, '--gate', 'marker', '--max-hold-ms', '4000',
                          *addresses(pair))

    with devices.left_as_they_were(shared_lab, pair) as witness:
        devices.killed_between(user, words)

        # The devices of those who died go with them, a moment later.
        assert until(lambda: not devices.taps(shared_lab, ours=True))
        assert len(devices.at_devices(shared_lab)) == 4    # both ways of both
        assert witness.harmed(messages=5) == []
        devices.recover(user)


# --- two hosts ---

@contextlib.contextmanager
def in_network_of(lab):
    """This thread, and what it starts, where the guests' devices are."""
    libc = ctypes.CDLL(None, use_errno=True)
    with (open('/proc/thread-self/ns/net') as before,
          open(f'/proc/{lab._home.init_pid}/ns/net') as theirs):
        if libc.setns(theirs.fileno(), 0):
            raise OSError(ctypes.get_errno(), 'setns')
        try:
            yield
        finally:
            if libc.setns(before.fileno(), 0):
                os._exit(70)    # tests after this one would be somewhere else


@pytest.fixture
def apart():
    """A lab of two hosts, and guests that talk, one on each."""
    with Lab(hosts=2) as lab:
        yield lab, lab.start([GuestSpec(host=0), GuestSpec(host=1)], wait=True)


@pytest.fixture
def hosts(apart, tmp_path):
    """Participants of two hosts with a coordinator, as real as they are."""
    lab, group = apart
    with in_network_of(lab):
        made = clusters.Cluster(tmp_path, {'h1': '', 'h2': ''})
        for each, uri, guest in zip(made.hosts.values(), lab.uris, group, strict=True):
            each.engine = host.Engine(uri)
            made.members.append((guest.domain_name, each.name))
        with made:
            yield made


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_on_two_hosts_a_packet_asks_for_the_cut_of_a_member_and_the_cut_is_consistent(
        apart, hosts):
    lab, group = apart
    known = tuple(pair for guest in group for pair in guest.addresses.items())

    row = hosts.create(gate='marker', addresses=known, max_pause_ms=20_000, max_hold_ms=30_000,
                       record_delays_s={group.names[1]: DELAY_S})

    assert row.status == 'available', row.error_message
    late = next(each.detail for each in row.members if each.name == group.names[1])
    assert late['asked_by_mark']
    assert late['packets']['late'] > 0
    for guest in group:
        guest.kill9()
    hosts.snapshots.restore('nightly', True)
    assert group.verdict() == []
    for guest in group:
        guest.domain.resume()
    assert group.wait_messages(30) == []
    assert devices.at_devices(lab) == devices.taps(lab, ours=True) == []
    assert not list(pathlib.Path(hosts.folder).glob('store/.drafts/*/*/*/*'))
