# SPDX-License-Identifier: Apache-2.0
"""Group snapshots over two hosts and a real broker, as users type them."""

import pytest
from openstack import exceptions

from tests.cloud import servers
from tests.cloud.command import Snapshots
from tests.lab.guest import wait_for
from tests.rounds import rounds
from tests.rounds.command import CommandFailed

pytestmark = pytest.mark.timeout(900)
_MESSAGES = 200


@pytest.fixture
def snapshots(place, group):
    return Snapshots(place, group)


def test_three_snapshots_are_restored_consistent(group, snapshots, record_property):
    assert len({server.host for server in group}) == 2
    series = rounds.Rounds(group, snapshots, messages=_MESSAGES)
    made = []

    # A busy machine may have some given up, which harms nobody.
    for _try in range(8):
        done = series.run('auto', limits=())
        if done.shown:
            made.append(done)
            record_property('skew_ms', done.skew_ms)
            record_property('stall_ms', done.shown['stall_ms'])
        if len(made) == 3:
            break

    assert [(done.consistent, done.error, done.summary) for done in made] == [(True, '', {})] * 3


def test_servers_live_on_as_ever(place, nova):
    with place.connect('demo') as connection:
        # Alone, at an address that no member of the group has.
        server = servers.make_server(connection, 'alone', 40, 1, servers.SPEC)
        try:
            servers.wait_until(connection, server, 'ACTIVE')
            nova.reboot_server(server.id, 'HARD')
            servers.wait_until(connection, server, 'ACTIVE')
            nova.pause_server(server.id)
            servers.wait_until(connection, server, 'PAUSED')
            nova.unpause_server(server.id)
            servers.wait_until(connection, server, 'ACTIVE')
            image = nova.create_server_image(server.id, 'of-alone', wait=True, timeout=300)
            assert connection.image.get_image(image.id).status == 'active'
            connection.image.delete_image(image.id)
        finally:
            nova.delete_server(server.id)
            wait_for(lambda: not servers.exists(connection, server.id), 120, 'the server to go')


def test_a_member_is_not_rebooted_during_a_snapshot_and_is_after_it(place, group, nova,
                                                                   snapshots):
    snapshots.run('create', group.id, '--name', 'busy')
    conflicts = []

    def ended():
        try:
            nova.reboot_server(group[0].id, 'HARD')
        except exceptions.ConflictException:
            conflicts.append(True)
        else:
            return True
        return False
    wait_for(ended, 120, 'the snapshot to end')

    assert conflicts
    with place.connect('demo') as connection:
        servers.wait_until(connection, nova.get_server(group[0].id), 'ACTIVE')
    assert snapshots.show('busy')['status'] in ('available', 'error')
    snapshots.delete('busy')
    # Its peers' connections ended with it.
    for server in group:
        nova.reboot_server(server.id, 'HARD')
    group.forget_boots()
    group.wait_ready()


def test_a_snapshot_of_nothing_is_refused(place, nova, snapshots):
    empty = nova.create_server_group(name='empty', policy='soft-anti-affinity')
    try:
        with pytest.raises(CommandFailed, match='400'):
            snapshots.run('create', empty.id, '--wait')
    finally:
        nova.delete_server_group(empty.id)
