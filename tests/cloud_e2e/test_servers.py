# SPDX-License-Identifier: Apache-2.0
"""Nova's own life of a server goes on as with Nova's own driver: before, during, after."""

import contextlib

import pytest
from openstack import exceptions

from tests.cloud import images, servers
from tests.cloud.command import Snapshots
from tests.cloud_e2e.middle import TASKS, in_the_middle
from tests.functional.witness import Witness
from tests.lab.guest import wait_for
from tests.rounds.command import CommandFailed

pytestmark = pytest.mark.timeout(1200)
_TRIES = 8


@pytest.fixture(scope='module')
def lone(place):
    """A group of one server; gone before there is the other group, whose addresses it has."""
    with servers.ready_group(place, 'lone', 1) as made:
        yield made


def test_a_server_lives_as_ever_before_it_was_in_a_snapshot(place, connection, lone):
    _live(place, connection, lone)


def test_what_would_disturb_a_snapshot_is_refused_while_it_is_made(place, connection, client,
                                                                   lone):
    compute, server = connection.compute, lone[0].id
    network = connection.network.find_network(images.NETWORK)
    image = connection.image.find_image(images.IMAGE)
    with (place.connect() as admin,
          in_the_middle(place, connection, client, lone) as snapshot):
        for disturb in (
                lambda: compute.reboot_server(server, 'HARD'),
                lambda: compute.pause_server(server),
                lambda: compute.suspend_server(server),
                lambda: compute.stop_server(server),
                lambda: compute.resize_server(server, compute.find_flavor(images.LARGER).id),
                lambda: compute.create_server_image(server, 'busy'),
                lambda: compute.create_server_interface(server, net_id=network.id),
                lambda: compute.rebuild_server(server, image.id),
                lambda: admin.compute.migrate_server(server),
                lambda: admin.compute.live_migrate_server(server, block_migration=True)):
            with pytest.raises(exceptions.ConflictException, match='task_state image_snapshot'):
                disturb()
        found = compute.get_server(server)
        assert (found.status, found.task_state in TASKS) == ('ACTIVE', True)

    ended = client.wait_while(lambda found: found.status == 'creating', snapshot, 240)
    assert ended.status == 'available' or ended.error.message
    servers.wait_until(connection, lone[0], 'ACTIVE')
    client.delete(snapshot)
    client.wait_until_deleted(snapshot, 120)


def test_a_server_that_was_restored_lives_as_ever(place, connection, lone, record_property):
    snapshots = Snapshots(place, lone)
    given_up = 0
    # A busy machine may have some given up, which harms nobody.
    while True:
        try:
            made = snapshots.create(f'lone-{given_up}')
            break
        except CommandFailed:
            given_up += 1
            if given_up == _TRIES:
                raise
    record_property('given_up', given_up)
    lone[0].kill9()
    snapshots.restore(made['id'])

    _live(place, connection, lone)
    snapshots.delete(made['id'])


def test_a_deletion_wins_over_a_snapshot_which_ends_in_error_and_says_so(place, connection, client,
                                                                         lone):
    with in_the_middle(place, connection, client, lone, phase='prepare') as snapshot:
        connection.compute.delete_server(lone[0].id)
        wait_for(lambda: not servers.exists(connection, lone[0].id), 120, 'the server to go')

    ended = client.wait_while(lambda found: found.status == 'creating', snapshot, 240)
    assert ended.status == 'error'
    assert 'destroy the instance' in ended.error.message, ended.error
    client.delete(snapshot)
    client.wait_until_deleted(snapshot, 120)
    assert not (place.settings.folder / 'snapshots' / snapshot).exists()


def _live(place, connection, lone):
    """What users do with a server, each until Nova says that it is done."""
    compute, server = connection.compute, lone[0]

    def do(action, *arguments, then):
        action(server.id, *arguments)
        servers.wait_until(connection, server, then)

    do(compute.pause_server, then='PAUSED')
    do(compute.unpause_server, then='ACTIVE')
    do(compute.suspend_server, then='SUSPENDED')
    do(compute.resume_server, then='ACTIVE')
    _image(connection, server)
    _interface(connection, server)
    do(compute.reboot_server, 'HARD', then='ACTIVE')
    _works(lone)
    memory = {flavor.name: flavor.ram for flavor in compute.flavors()}
    current = compute.get_server(server.id).flavor['original_name']
    other = images.FLAVOR if current == images.LARGER else images.LARGER
    with _only(place, server.host):
        do(compute.resize_server, compute.find_flavor(other).id, then='VERIFY_RESIZE')
        do(compute.confirm_server_resize, then='ACTIVE')
    # One that was resized on its host has no serial console: Nova finds that of before the resize
    # still defined, and adds none.
    do(compute.reboot_server, 'HARD', then='ACTIVE')
    assert server.domain.maxMemory() == memory[other] * 1024
    _works(lone)


def _works(lone):
    """It was booted: it comes up, and writes its disk."""
    lone.forget_boots()
    lone.wait_ready()
    assert Witness(lone).harmed() == []


def _image(connection, server):
    image = connection.compute.create_server_image(server.id, 'of-lone')
    wait_for(lambda: connection.image.get_image(image.id).status != 'queued'
             and connection.compute.get_server(server.id).task_state is None, 300,
             'the image to be made')
    found = connection.image.get_image(image.id)
    connection.image.delete_image(image.id)
    assert found.status == 'active'
    assert found.size > 0


def _interface(connection, server):
    network = connection.network.find_network(images.NETWORK)
    made = connection.compute.create_server_interface(server.id, net_id=network.id)

    def attached():
        return made.port_id in {each.port_id for each
                                in connection.compute.server_interfaces(server.id)}
    wait_for(attached, 120, 'the interface to be attached')
    assert server.domain.XMLDesc().count('<interface ') == 2
    connection.compute.delete_server_interface(made.port_id, server.id)
    wait_for(lambda: not attached(), 240, 'the interface to be detached')
    assert server.domain.XMLDesc().count('<interface ') == 1


@contextlib.contextmanager
def _only(place, host):
    """Nova places nothing on another host than this."""
    with place.connect() as connection:
        others = [service for service in connection.compute.services(binary='nova-compute')
                  if service.host != host]
        for service in others:
            connection.compute.disable_service(service)
        try:
            yield
        finally:
            for service in others:
                connection.compute.enable_service(service)
