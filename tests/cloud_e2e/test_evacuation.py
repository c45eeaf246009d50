# SPDX-License-Identifier: Apache-2.0
"""A host loses its power in the middle of a snapshot; its server is evacuated; it comes back."""

import pytest

from tests.cloud import hosts, servers
from tests.cloud_e2e import middle, power
from tests.lab.guest import wait_for

pytestmark = pytest.mark.timeout(1200)
_ENDS_S = 300


@pytest.fixture
def away(place):
    """A group of one server."""
    with servers.ready_group(place, 'away', 1) as made:
        yield made


@pytest.fixture
def lost(place, away):
    """Its host, which works again afterwards whatever happens."""
    host = away[0].host
    yield host
    if not hosts.Host(place, host).answers():
        power.comes_back(place, host)


def test_an_evacuation_wins_over_a_snapshot_of_which_nothing_is_left(
        place, connection, client, away, lost, record_property):
    files = middle.files(place)
    with (place.connect() as admin,
          middle.in_the_middle(place, connection, client, away) as snapshot):
        hosts.power_off(place, lost)
        power.held_to_be_down(admin, lost, True)
        admin.compute.evacuate_server(away[0].id)
        wait_for(lambda: admin.compute.get_server(away[0].id).compute_host != lost, _ENDS_S,
                 'Nova to evacuate it')
        # Of an evacuated server Nova's newer versions say that it is stopped.
        servers.wait_until(connection, away[0], 'SHUTOFF')
        connection.compute.start_server(away[0].id)
        servers.wait_until(connection, away[0], 'ACTIVE')

    ended = client.wait_while(lambda found: found.status == 'creating', snapshot, _ENDS_S)
    record_property('ended', str(ended.error))
    assert ended.status == 'error'
    assert ended.error.message

    power.comes_back(place, lost)
    wait_for(lambda: hosts.Host(place, lost).connection.listAllDomains() == [], _ENDS_S,
             'Nova to remove what was evacuated')
    client.delete(snapshot)
    client.wait_until_deleted(snapshot, _ENDS_S)
    assert middle.files(place) == files

    # Where it is now it takes part as any other.
    made = client.create(away.id).id
    ended = client.wait_while(lambda found: found.status == 'creating', made, _ENDS_S)
    assert ended.status == 'available', ended.error
    client.delete(made)
    client.wait_until_deleted(made, _ENDS_S)
