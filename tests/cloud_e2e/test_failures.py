# SPDX-License-Identifier: Apache-2.0
"""Something of the cloud dies in the middle of a snapshot, and the guests do not notice."""

import signal

import pytest

from tests.cloud import broker, database, nova, ours
from tests.cloud_e2e import middle
from tests.functional.witness import Witness
from tests.lab.guest import wait_for

pytestmark = pytest.mark.timeout(1200)
_ENDS_S = 300
_TRIES = 5


def _restart_broker(place):
    place.processes.stop('broker', signal.SIGKILL)
    wait_for(lambda: not broker.answers(place), 30, 'the port to close')
    broker.start_node(place)


def _restart_compute(place):
    nova.restart_compute(place, place.settings.hosts[1], signal.SIGKILL)


def _restart_conductor(place):
    place.processes.stop(ours.CONDUCTOR, signal.SIGKILL)
    ours.start(place)


@pytest.mark.parametrize('restart', [_restart_broker, _restart_compute, _restart_conductor],
                         ids=lambda function: function.__name__.strip('_'))
def test_the_snapshot_is_whole_or_in_error_and_nothing_is_left(place, group, connection, client,
                                                               restart, record_property):
    # Where the broker was away, some say nothing for a while, and Nova holds them to be down.
    wait_for(lambda: _computes(place) == {'up'}, _ENDS_S, 'all computes to be up')
    witness, files = Witness(group), middle.files(place)
    snapshot = _saving(place, group, client)

    restart(place)

    ended = client.wait_while(lambda found: found.status == 'creating', snapshot, _ENDS_S)
    record_property('ended', f'{ended.status} {ended.error}')
    assert ended.status == 'available' or ended.error.message
    wait_for(lambda: _states(connection, group) == [('ACTIVE', None)] * len(group), _ENDS_S,
             'task states to be given back')
    assert witness.left(60) == []
    assert witness.harmed() == []
    assert all('hotsnap' not in server.domain.XMLDesc() for server in group)
    if ended.status == 'available':
        client.verify(snapshot)
        assert client.wait_until_acted(snapshot, _ENDS_S).last_action.status == 'done'
    client.delete(snapshot)
    client.wait_until_deleted(snapshot, _ENDS_S)
    middle.wait_for_files(place, files)


def _saving(place, group, client):
    """A snapshot that is being saved: guests run on, with filters in their disks' way."""
    for number in range(_TRIES):
        made = client.create(group.id, name=f'cut-short-{number}').id
        statement = f"SELECT status, phase FROM snapshots WHERE id = '{made}'"
        row = None
        while row is None or row[0] == 'creating':
            row = database.query(place, 'hotsnap', statement)[0]
            if row == ('creating', 'save'):
                return made
        # A busy machine gave it up, or it was quick.
        client.wait_while(lambda found: found.status == 'creating', made, _ENDS_S)
        client.delete(made)
        client.wait_until_deleted(made, _ENDS_S)
    return pytest.fail(f'{_TRIES} snapshots were over before they were seen saving')


def _computes(place):
    with place.connect() as connection:
        return {service.state for service in connection.compute.services(binary='nova-compute')}


def _states(connection, group):
    found = [connection.compute.get_server(server.id) for server in group]
    return [(each.status, each.task_state) for each in found]
