# SPDX-License-Identifier: Apache-2.0
"""Something of the cloud dies in the middle of a snapshot, and the guests do not notice."""

import signal

import pytest

from tests.cloud import broker, hosts, nova, ours
from tests.cloud.command import Snapshots
from tests.lab import verdict
from tests.lab.guest import wait_for

pytestmark = pytest.mark.timeout(900)
_ENDS_S = 240


def _restart_broker(place):
    place.processes.stop('broker', signal.SIGKILL)
    wait_for(lambda: not broker.answers(place), 30, 'the port to close')
    broker.start_node(place)


def _restart_compute(place):
    host = place.settings.hosts[1]
    hosts.processes(place, host).stop(f'nova-compute-{host}', signal.SIGKILL)
    nova.start_compute(place, host)


def _restart_conductor(place):
    place.processes.stop(ours.CONDUCTOR, signal.SIGKILL)
    ours.start(place)


@pytest.mark.parametrize('restart', [_restart_broker, _restart_compute, _restart_conductor],
                         ids=lambda function: function.__name__.strip('_'))
def test_the_snapshot_is_whole_or_in_error_and_nothing_is_left(place, group, restart):
    snapshots = Snapshots(place, group)
    before = group.counters()
    snapshots.run('create', group.id, '--name', 'cut-short')

    restart(place)
    wait_for(lambda: snapshots.show('cut-short')['status'] in ('available', 'error'), _ENDS_S,
             'the snapshot to end')

    shown = snapshots.show('cut-short')
    assert shown['status'] == 'available' or shown['error']['message']
    with place.connect('demo') as connection:
        def states():
            found = [connection.compute.get_server(server.id) for server in group]
            return [(each.status, each.task_state) for each in found]
        wait_for(lambda: states() == [('ACTIVE', None)] * len(group), _ENDS_S,
                 'task states to be given back')
    assert group.wait_messages(50, before) == []
    assert verdict.check_health(group.counters()) == []
    for server in group:
        xml = server.domain.XMLDesc()
        assert 'hotsnap' not in xml
    snapshots.delete('cut-short')
