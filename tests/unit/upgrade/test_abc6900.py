# SPDX-License-Identifier: Apache-2.0
"""What abc6900 left in each unfinished state is read, and ended.

`unfinished` tells how it came to each, `states` how they are written down, and `make` makes them
anew. Their hosts are h1 with guests a and b, and h2 with c.
"""

import dataclasses
import json
import os
import pathlib
import time

import pytest
from oslo_config import cfg

from hotsnap_nova import conf, exception
from hotsnap_nova.conductor import service
from hotsnap_nova.db import migration
from hotsnap_nova.storage import local
from tests.fakes import cells as fake_cells
from tests.fakes import cluster as clusters
from tests.unit.upgrade import states

STATES = pathlib.Path(__file__).parent / 'abc6900'
#: What others are made from; nothing in them is to be ended.
ENDED = {'new', 'available', 'available-apart'}
#: A guest that runs, or is off, with the disk it had; and that runs, or stands, with that of
#: the cut.
RUNS, OFF, CUT, STANDS = 'running own', 'shut off own', 'running cut', 'paused cut'


class Upgraded:
    """This version over what a state left; all that is known here of our inside.

    :ivar tables: the versions of the tables, before and after ``db sync``
    """

    def __init__(self, folder):
        self._folder = folder
        world = folder / states.WORLD
        then = json.loads(world.read_text())['guests']
        world.unlink()
        self._cluster = clusters.Cluster(folder, {'h1': 'ab', 'h2': 'c'})
        self._database = self._cluster.database
        self._service = None
        for host in self._cluster.hosts.values():
            if os.path.isdir(own := f'{folder}/store-{host.name}'):
                host.store = local.LocalStore(own)
        restores = self._restores()
        with self._cluster.world.open() as guests:
            for name, guest in guests.items():
                _take_over(guest, then[name], restores.get(guest['id']))

    def _restores(self):
        """{member's id: restore's}, of the orders that hosts have."""
        orders = [json.loads(path.read_text())
                  for path in self._folder.glob('state-*/restores/*.json')]
        return {member['spec']['id']: order['restore_id']
                for order in orders for member in order['members']}

    def __enter__(self):
        before, _ = self._database.version()
        self._database.upgrade()
        self.tables = before, self._database.version()[0]
        self._cluster.__enter__()
        return self

    def __exit__(self, *error):
        if self._service:
            self._service.stop()
        self._cluster.__exit__(*error)

    def serve(self) -> None:
        """Start the coordinator service."""
        made = cfg.ConfigOpts()
        conf.register(made)
        made([], default_config_files=[], default_config_dirs=[])
        for name, value in {'database_connection': f'sqlite:///{self._folder}/hotsnap.db',
                            'service_interval_s': 1, 'host_interval_s': 5}.items():
            made.set_override(name, value, group='hotsnap')
        self._service = service.Service(made.hotsnap, 'c1', self._cluster.transport,
                                        fake_cells.Cells(self._cluster))
        self._service.start()

    def recover(self) -> None:
        """What the command hotsnap does first."""
        coordinator = self._cluster.coordinator('heir')
        for snapshot in coordinator.recover():
            assert coordinator.wait(snapshot, 20)

    def delete(self) -> None:
        """Ask for it, as somebody did before, and again while something is at it."""
        snapshot = self._database.list()[-1].id

        def is_deleted():
            try:
                self._service.snapshots.delete(snapshot)
            except (exception.SnapshotBusy, exception.StaleGeneration):
                return False
            except exception.SnapshotNotFound:
                pass
            return True
        clusters.until(is_deleted)

    def pause(self, guest: str) -> None:
        """As its owner does."""
        with self._cluster.world.open() as guests:
            guests[guest]['state'] = 'paused'

    def wait_for_the_end(self, timeout_s: float = 60) -> None:
        ends = time.monotonic() + timeout_s
        while next(self._left(), None):
            assert time.monotonic() < ends, f'{self.rows()}: {list(self._left())}'
            time.sleep(0.05)

    def _left(self):
        """Whatever is not ended; what is quickly looked at comes first."""
        hosts = self._cluster.hosts.values()
        yield from (f'{host.name} {name}' for host in hosts for name in host.left())
        with self._cluster.world.open() as guests:
            found = [f'guest {name} {key}' for name, guest in guests.items()
                     for key in ('left', 'closed_by', 'stopped_by') if guest[key]]
        yield from found
        yield from (f'guest {name} writes to a disk that is not its own'
                    for name in self._cluster.world.misplaced())
        yield from (f'errand {each.kind}' for each in self._database.errands())
        yield from (f'row {each.status} is open' for each in self._database.open_snapshots())
        rows = self._database.list()
        yield from (f'row {each.status}' for each in rows if each.restore or each.lease_owner)
        kept = {each.id for each in rows if each.status == 'available'}
        for host in hosts:
            yield from (f'draft of {each.host}' for each in host.store.drafts())
            yield from (f'{host.name} keeps {each}' for each in set(host.store.list()) - kept)

    def rows(self) -> tuple[tuple[str, str | None], ...]:
        """Status of each snapshot, and of what was done with it last; oldest first."""
        return tuple((each.status, each.action_status)
                     for each in reversed(self._database.list()))

    def files(self) -> int:
        """How many of the oldest snapshot are as they were written."""
        return self._cluster.snapshots.verify(self._database.list()[-1].id)['files']

    def guests(self) -> tuple[str, ...]:
        """RUNS and the like, of each."""
        with self._cluster.world.open() as guests:
            return tuple(f'{each["state"]} {each["disk"] if each["disk"] == "own" else "cut"}'
                         for _, each in sorted(guests.items()))


def _take_over(guest, then, restore):
    """A guest of the fake engine becomes what that of abc6900 told of it.

    :param restore: its host has an order of this one
    """
    disk, replaced = then.pop('disk'), then.pop('old_disk')
    guest.update(then)
    files, inodes = guest['files'], guest['inodes']
    if replaced:
        inodes['2'] = {'of': disk, 'written': guest['state'] == 'running'}
        files |= {'disk': 2, f'old-{restore}' if restore else 'kept-then': 1}
        # Of whom it had let run that version kept no record.
        guest['loaded'] = bool(restore) and guest['state'] == 'paused'
        guest['booted'] = not restore
    elif restore and guest['left']:
        inodes['2'] = {'of': 'the cut', 'written': False}
        files[f'new-{restore}'] = 2
    guest['open'] = 0 if guest['state'] == 'shut off' else files['disk']


@dataclasses.dataclass(frozen=True)
class End:
    """What becomes of a state.

    :ivar rows: of `Upgraded.rows`; none: the snapshot is gone
    :ivar guests: of `Upgraded.guests`
    :ivar files: that are kept of the first, if it is available
    """

    rows: tuple = ()
    guests: tuple = (RUNS, RUNS, RUNS)
    files: int = 9


def undone(*guests, action='failed'):
    return End((('available', action),), guests)


GIVEN_UP = End((('error', None),))
MADE = End((('available', None),))
RIVAL_GIVEN_UP = End((('available', None), ('error', None)))
RESTORED = End((('available', 'done'),), (CUT, CUT, CUT))
STANDING = End((('available', None),), (STANDS, STANDS, STANDS))
DELETED = End()

ENDS = {
    'snapshot-created': GIVEN_UP,
    'snapshot-prepare': GIVEN_UP,
    'snapshot-record': GIVEN_UP,
    'snapshot-record-barrier': GIVEN_UP,
    'snapshot-spoiled': GIVEN_UP,
    'snapshot-release': GIVEN_UP,
    'snapshot-release-halfway': GIVEN_UP,
    'snapshot-save': GIVEN_UP,
    'snapshot-save-set-error': GIVEN_UP,
    'snapshot-save-abort': GIVEN_UP,
    'snapshot-save-halfway': GIVEN_UP,
    'snapshot-saved': MADE,
    'snapshot-finish': MADE,
    'snapshot-finish-halfway': MADE,
    'snapshot-finish-halfway-apart': End(MADE.rows, files=6),
    'snapshot-finish-open': MADE,
    'snapshot-finish-rival': RIVAL_GIVEN_UP,
    'snapshot-finish-halfway-rival': RIVAL_GIVEN_UP,
    'snapshot-discard': GIVEN_UP,
    'snapshot-discard-halfway': GIVEN_UP,
    'snapshot-discard-halfway-shown': GIVEN_UP,
    'snapshot-discard-open': GIVEN_UP,
    'restore-begun': undone(RUNS, RUNS, RUNS),
    'restore-prepare': undone(RUNS, RUNS, RUNS),
    'restore-stop': undone(OFF, OFF, RUNS),
    'restore-stop-set-available': undone(OFF, OFF, RUNS),
    'restore-start': undone(OFF, OFF, OFF),
    'restore-start-moved': undone(OFF, OFF, OFF),
    'restore-started': undone(OFF, OFF, OFF),
    'restore-undo': undone(OFF, OFF, OFF),
    'restore-undone': undone(OFF, OFF, OFF),
    'restore-decided': RESTORED,
    'restore-resume': RESTORED,
    'restore-resume-moved': RESTORED,
    'restore-resumed': RESTORED,
    'restore-finish': RESTORED,
    'restore-finished': RESTORED,
    'verify': undone(RUNS, RUNS, RUNS),
    'delete': DELETED,
    'delete-failed': DELETED,
    'delete-failed-restore': End((), (OFF, OFF, OFF)),
    'delete-failed-save': GIVEN_UP,
    'force-delete': DELETED,
    'force-delete-record': DELETED,
    'force-delete-save': DELETED,
    'force-delete-discard': DELETED,
    'force-delete-finish': DELETED,
    'force-delete-restore': End((), (OFF, OFF, OFF)),
    'force-delete-restore-decided': End((), (CUT, CUT, CUT)),
    'errand-undo': undone(OFF, OFF, OFF),
    'errand-undo-moved': undone(OFF, OFF, OFF),
    'errand-resume': undone(CUT, CUT, CUT),
    'errand-finish-paused': STANDING,
    'errand-discard': DELETED,
    'errand-publish': DELETED,
    'errand-publish-apart': DELETED,
    'errand-delete': DELETED,
    'errand-undo-delete': End((), (OFF, OFF, OFF)),
    'errand-resume-delete': End((), (CUT, CUT, CUT)),
    'hotsnap-record': GIVEN_UP,
    'hotsnap-restore-start': undone(OFF, OFF, OFF, action=None),
    'hotsnap-restore-paused-start': undone(OFF, OFF, OFF, action=None),
    'hotsnap-restore-paused-decided': STANDING,
    'hotsnap-restore-paused-finish': STANDING,
}


#: A deletion that failed, and is asked for again.
ASKED_AGAIN = {'delete-failed', 'delete-failed-restore'}


@pytest.mark.parametrize('state', ENDS)
def test_a_state_of_abc6900_is_read_and_ended(tmp_path, state):
    states.unpack(STATES, state, tmp_path)

    with Upgraded(tmp_path) as upgraded:
        if state.startswith('hotsnap'):
            upgraded.recover()
        else:
            upgraded.serve()
        if state in ASKED_AGAIN:
            upgraded.delete()
        upgraded.wait_for_the_end()

        end = ENDS[state]
        assert upgraded.rows() == end.rows
        assert upgraded.guests() == end.guests
        if end.rows and end.rows[0][0] == 'available':
            assert upgraded.files() == end.files


def test_a_restore_that_has_ended_on_a_host_touches_no_guest_there(tmp_path):
    """No journal of abc6900 tells of its end: that there is no order any more does."""
    states.unpack(STATES, 'restore-finish', tmp_path)

    with Upgraded(tmp_path) as upgraded:
        upgraded.pause('a')
        upgraded.serve()
        upgraded.wait_for_the_end()

        assert upgraded.rows() == RESTORED.rows
        assert upgraded.guests() == (STANDS, CUT, CUT)


def test_the_tables_of_abc6900_become_those_of_this_version(tmp_path):
    states.unpack(STATES, 'available', tmp_path)

    with Upgraded(tmp_path) as upgraded:
        assert upgraded.tables == ('0002', migration.HEAD)
        assert upgraded.files() == 9


def test_each_state_is_ended():
    assert {each.stem for each in STATES.iterdir()} == {*ENDS, *ENDED}
