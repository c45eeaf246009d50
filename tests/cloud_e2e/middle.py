# SPDX-License-Identifier: Apache-2.0
"""A snapshot caught while it is being made or restored, and what it has left when it is over."""

import contextlib
import signal
import time

import pytest

from tests.cloud import database, ours, servers

TASKS = ('image_snapshot_pending', 'image_snapshot')
_TRIES = 8
_FILES_GONE_S = 60


@contextlib.contextmanager
def in_the_middle(place, connection, client, group, phase=''):
    """A snapshot's id, with the conductor standing still while the snapshot is being made.

    So what is done meanwhile is done in its middle, however slow the machine. The conductor
    goes on afterwards.

    :param phase: no later than in this phase
    """
    for number in range(_TRIES):
        made = client.create(group.id, name=f'middle-{number}').id
        while (_task_state(place, group[0]) not in TASKS
               and _state(place, made)[0] == 'creating'):
            time.sleep(0.02)             # all of it may be over within a second
        place.processes.kill(ours.CONDUCTOR, signal.SIGSTOP)
        try:
            found = _state(place, made)
            if found[0] == 'creating' and phase in ('', found[1]):
                yield made
                return
        finally:
            place.processes.kill(ours.CONDUCTOR, signal.SIGCONT)
        # Too late.
        client.wait_while(lambda found: found.status == 'creating', made, 240)
        client.delete(made)
        client.wait_until_deleted(made, 120)
        servers.wait_until(connection, group[0], 'ACTIVE')
    pytest.fail(f'{_TRIES} snapshots were over before their middle was met')


def restore_until(place, client, snapshot, phase):
    """Begin a restore; return when it has come to this phase, and is not over."""
    for _ in range(_TRIES):
        client.restore(snapshot)
        while (found := _state(place, snapshot))[0] == 'restoring':
            if found[1] == phase:
                return
        # A busy machine gave it up, or it was quick.
        client.wait_while(is_being_restored, snapshot, 240)
    pytest.fail(f'{_TRIES} restores were over before they were seen in phase {phase}')


def is_being_restored(found):
    """Whether a restore of this snapshot goes on."""
    return found.last_action.status == 'running'


def _task_state(place, server):
    return database.query(place, 'nova', 'SELECT task_state FROM instances '
                          f"WHERE uuid = '{server.id}' AND deleted = 0")[0][0]


def _state(place, snapshot):
    """Status and phase, by the database: who would tell may be standing still."""
    return database.query(place, 'hotsnap',
                          f"SELECT status, phase FROM snapshots WHERE id = '{snapshot}'")[0]


def files(place):
    """What participants have in files of snapshots, those that are kept for good included."""
    folders = [place.settings.folder / 'snapshots']
    folders += [place.settings.host_folder(host) / 'hotsnap' / name
                for host in place.settings.hosts for name in ('journal', 'restores')]
    return {str(path) for folder in folders for path in folder.rglob('*') if path.is_file()}


def wait_for_files(place, expected):
    """Return when there are these `files` again, and no other."""
    ends = time.monotonic() + _FILES_GONE_S
    while (found := files(place)) != expected and time.monotonic() < ends:
        time.sleep(0.1)
    assert found ^ expected == set()
