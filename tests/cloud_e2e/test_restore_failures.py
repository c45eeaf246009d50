# SPDX-License-Identifier: Apache-2.0
"""Something of the cloud dies in the middle of a restore, and the group ends as one.

At every step of it, with guests that do not talk, see ``tests.cloud.crash``.
"""

import os
import signal

import libvirt
import pytest

from hotsnap_nova.client import rest
from tests.cloud import broker, database, hosts, nova, ours
from tests.cloud_e2e import middle, power
from tests.lab.guest import LabError, wait_for

pytestmark = pytest.mark.timeout(1200)
_ENDS_S = 400
_TRIES = 5


@pytest.fixture(scope='module')
def kept(place, group):
    """A snapshot of the group."""
    with place.connect('demo') as connection:
        client = rest.Client(connection.compute, poll_s=0.5)
        for number in range(_TRIES):
            made = client.create(group.id, name=f'kept-{number}').id
            ended = client.wait_while(lambda found: found.status == 'creating', made, _ENDS_S)
            if ended.status == 'available':
                break
            client.delete(made)
            client.wait_until_deleted(made, _ENDS_S)
        else:
            pytest.fail(f'{_TRIES} snapshots were given up, the last because of {ended.error}')
        yield made
        client.delete(made)
        client.wait_until_deleted(made, _ENDS_S)


def _kill_compute_a(place, _group):
    nova.restart_compute(place, place.settings.hosts[0], signal.SIGKILL)


def _kill_compute_b(place, _group):
    nova.restart_compute(place, place.settings.hosts[1], signal.SIGKILL)


def _kill_broker(place, _group):
    place.processes.stop('broker', signal.SIGKILL)
    wait_for(lambda: not broker.answers(place), 30, 'the port to close')
    broker.start_node(place)


def _kill_database(place, _group):
    place.processes.stop('database', signal.SIGKILL)
    database.start_again(place)


def _kill_conductor(place, _group):
    place.processes.stop(ours.CONDUCTOR, signal.SIGKILL)
    ours.start(place)


def _kill_qemu(_place, group):
    """That of the member which is started again first."""
    while True:
        for server in group:
            try:
                return os.kill(server.pid, signal.SIGKILL)
            except (LabError, ProcessLookupError):
                continue


@pytest.mark.parametrize(('phase', 'kill'), [
    pytest.param('stop', _kill_broker, marks=pytest.mark.long),
    ('start', _kill_database),
    pytest.param('start', _kill_compute_a, marks=pytest.mark.long),
    pytest.param('start', _kill_conductor, marks=pytest.mark.long),
    pytest.param('start', _kill_qemu, marks=pytest.mark.long),
    ('resume', _kill_compute_b),
], ids=lambda value: value if isinstance(value, str) else value.__name__.strip('_'))
def test_the_group_is_at_the_cut_or_as_it_was(
        place, group, connection, client, kept, phase, kill, record_property):
    nova.wait_until_up(place)
    middle.restore_until(place, client, kept, phase)

    kill(place, group)

    ended = client.wait_while(middle.is_being_restored, kept, _ENDS_S).last_action
    record_property('ended', f'{ended.status} {ended.error}')
    _is_quiet(place, connection, group, {'ACTIVE'})
    assert ended.status == 'done' or ended.error.message
    # Once it is decided, the cut it is; who is away for too long is named, and does it later.
    if phase == 'resume' or ended.status == 'done':
        _is_at_the_cut(group)
    else:
        # As it was: of its own disks, booted where it had been stopped. The boot of the cut is
        # not forgotten, for there it will be again.
        group.wait_ready()


@pytest.mark.long
def test_a_host_that_loses_power_at_the_decision_keeps_no_member_of_another(
        place, group, connection, client, kept, record_property):
    lost = group[-1].host
    nova.wait_until_up(place)
    middle.restore_until(place, client, kept, 'resume')
    hosts.power_off(place, lost)
    try:
        ended = client.wait_while(middle.is_being_restored, kept, _ENDS_S).last_action
        record_property('ended', f'{ended.status} {ended.error}')
        named = [server.name for server in group if server.host == lost]
        assert ended.status == 'done' or any(name in ended.error.message for name in named)
        assert {server.domain.state()[0] for server in group if server.host != lost} == {
            libvirt.VIR_DOMAIN_RUNNING}
    finally:
        power.comes_back(place, lost)
    _is_quiet(place, connection, group, {'ACTIVE', 'SHUTOFF'})

    # Whatever it came to: from there it can be restored.
    client.restore(kept)
    ended = client.wait_while(middle.is_being_restored, kept, _ENDS_S).last_action
    assert (ended.status, ended.error) == ('done', None)
    _is_quiet(place, connection, group, {'ACTIVE'})
    _is_at_the_cut(group)


def _is_quiet(place, connection, group, statuses):
    """Nobody claims a member, no host owes anything."""
    def found():
        now = [connection.compute.get_server(server.id) for server in group]
        return ({each.status for each in now} <= statuses
                and {each.task_state for each in now} == {None}
                and not database.query(place, 'hotsnap', 'SELECT * FROM errands'))
    wait_for(found, _ENDS_S, 'task states and errands to end')


def _is_at_the_cut(group):
    group.suspend()
    try:
        findings = group.verdict()
    finally:
        for server in group:
            server.domain.resume()
    assert findings == []
    assert group.wait_messages(20) == []
