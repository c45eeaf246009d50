# SPDX-License-Identifier: Apache-2.0
"""Two hosts with real guests, a coordinator, a broker; killed in parts, and healed."""

import contextlib
import os
import pathlib
import shutil
import sqlite3
import tempfile
import time

from hotsnap_nova.virt.definition import aside
from tests.crash import bed, cases, guests, power, services
from tests.crash.bed import COORDINATOR
from tests.fakes import tables
from tests.lab import enclosure
from tests.lab.broker import Broker

#: Another, which is asked for nothing, and takes over whatever it can.
OTHER = 'other'
#: Its clock.
_AHEAD_S = 600
#: Guests of each host, and their disks' formats.
LAYOUT = {'h1': {'g1': 'qcow2', 'g2': 'raw'}, 'h2': {'g3': 'qcow2'}}
#: Far above what is needed on a machine that does other things; nothing waits that long.
_LIMITS = {'max_pause_ms': 2000, 'max_hold_ms': 3000, 'prepare_timeout_s': 120,
           'save_timeout_s': 120, 'silence_timeout_s': 60, 'max_snapshots_per_project': -1,
           'max_snapshots_per_group': -1, 'restore_keep_hours': 0}
_ANSWER_S = 120.0
_LOCKED_S = 0.5
_LOOKS_S = 3.0
_OFTEN = {'service_interval_s': 1.0, 'host_interval_s': 1.0}


class Host(bed.Host):
    """A lab, and a disk that can lose what was not synced.

    :ivar disk: with all that the host has to remember
    """

    def __init__(self, name: str, site: 'Site', ends: contextlib.ExitStack):
        self.name = name
        self.home = enclosure.Enclosure()
        ends.callback(self.home.close)
        folder, on_disk = site.folder / name, self.home.folder / 'guests'
        self.claims, self.locks, self.temporary = folder / 'claims', folder / 'run', folder / 'tmp'
        for each in (self.claims, self.temporary):
            each.mkdir(parents=True)
        self.images = on_disk
        self.disk = power.Disk(folder / 'disk', on_disk)
        ends.callback(self.disk.close)
        self.state, self.store = on_disk / 'state', on_disk / 'store'
        for each in (self.state, self.store):
            each.mkdir()
        self.guests = [guests.Guest(self.home, guest, on_disk, form)
                       for guest, form in LAYOUT[name].items()]
        os.sync()
        self.service = site.services.add(
            name, kind='host', url=site.broker.url, uri=self.home.uri, claims=str(self.claims),
            environment={'TMPDIR': str(self.temporary)},
            settings=_LIMITS | {'state_path': str(self.state), 'store_path': str(self.store),
                                'lock_path': str(self.locks)})

    def cut_power(self):
        services.kill([*self.qemus().values(), *self._trials(), *self.service.children(),
                       self.home.daemon_pid,
                       *([self.service.pid] if self.service.lives else [])])
        for path in (self.home.folder / 'run/libvirt/qemu').glob('*.xml'):
            path.unlink(missing_ok=True)
        shutil.rmtree(self.locks, ignore_errors=True)
        self.disk.cut_power()

    def _trials(self):
        """Processes of loads on trial."""
        for path in (self.home.folder / 'run/libvirt/qemu').glob(f'{aside.name_of("*")}.pid'):
            with contextlib.suppress(FileNotFoundError, ValueError):    # it has just ended
                if pid := self.home.outside_pid(int(path.read_text())):
                    yield pid

    def boot(self):
        self.home.wait_until_answering()
        self.service.start()


_ABOUT = '''Two hosts with real guests (`g1` and `g2` on h1, `g3` on h2), their services and the
coordinator, each in a process of its own, over RabbitMQ. The steps are the commands of the
protocols' machines ([protocol.md](protocol.md)), as undisturbed runs carry them out; of two hosts
that do the same one is in the table. At each step, *before* / *after* its command, something is
killed: the coordinator, a host's service, a guest's QEMU, or a host's power with all that its disk
had not synced, which comes back a moment later; or the *other coordinator*, whose clock is ten
minutes ahead, takes over while the first stands still, which then goes on. What died is started
again, but no guest by us. With Nova around it: [crash-cloud.md](crash-cloud.md).

Of a snapshot must be left one of two:

- *available*: whole, proved by its digests;
- *gone*: from database, stores, drafts, journals and QEMU; every guest that was not killed runs on
  in the same process, counts, had no failed transfer and went back nowhere, nor did its disk.
'''


class Site(bed.Bed):
    """Two labs, and services that are forked."""

    plots = cases.PLOTS
    about = _ABOUT
    group = 'group'
    context = {'user_id': 'user', 'project_id': 'project'}

    def _open(self):
        power.enclose_mounts()
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix='hscrash-'))
        self._ends.callback(self._remove)
        self.broker = Broker(_made(self.folder / 'broker'))
        self._ends.callback(self.broker.stop)
        self.broker.start()
        self.services = services.Services(self.folder)
        self._ends.callback(self.services.close)
        self.hosts = {}
        for name in LAYOUT:
            self.hosts[name] = Host(name, self, self._ends)
        self.guests = {guest.name: guest for host in self.hosts.values() for guest in host.guests}
        self._database_path = self.folder / 'hotsnap.db'
        tables.make(self._database_path)
        self.coordinator, other = (self.services.add(
            name, kind='coordinator', url=self.broker.url, hosts=list(self.hosts),
            servers=[{'id': guest.uuid, 'name': guest.name, 'host': host.name}
                     for host in self.hosts.values() for guest in host.guests],
            settings=_LIMITS | _OFTEN | {
                'database_connection': f'sqlite:///{self._database_path}'},
            is_asked=name == COORDINATOR, ahead_s=0 if name == COORDINATOR else _AHEAD_S)
            for name in (COORDINATOR, OTHER))
        self.processes = {COORDINATOR: self.coordinator, OTHER: other} | {
            host.name: host.service for host in self.hosts.values()}
        self._join(self.broker.url, f'sqlite:///{self._database_path}',
                   {host.name: host.home.uri for host in self.hosts.values()})
        self.heal()

    def logs(self):
        found = {log.name: log for log in self.folder.glob('*.log')}
        for name, host in self.hosts.items():
            found |= {f'{name}-{log.name}': log
                      for log in host.home.folder.glob('log/**/*.log')}
        return found

    def claims(self):
        for host in self.hosts.values():
            yield from (f'{host.name}: claim {name}' for name in os.listdir(host.claims))

    def heal(self):
        self._start_services()
        for guest in self.guests.values():
            if guest.state == 'off':
                guest.domain.create()
            elif guest.state == 'paused':
                guest.domain.resume()
        for guest in self.guests.values():
            guest.counts_on()

    def switch_off(self, guest):
        guest.domain.destroy()

    def end_leases(self, timeout_s: float = _ANSWER_S) -> None:
        """As every bed's.

        :raises sqlite3.OperationalError: it stands still at a write
        """
        database = sqlite3.connect(self._database_path, timeout=timeout_s)
        with contextlib.closing(database), database:
            database.execute('UPDATE snapshots SET lease_expires_at = 0 '
                             'WHERE lease_owner IS NOT NULL')
            database.execute('UPDATE errands SET claimed_until = 0 '
                             'WHERE claimed_until IS NOT NULL')

    def take_over(self):
        ends = time.monotonic() + _ANSWER_S
        while time.monotonic() < ends:
            with self.coordinator.frozen(), contextlib.suppress(sqlite3.OperationalError):
                self.end_leases(_LOCKED_S)
                looked = time.monotonic()
                while time.monotonic() < looked + _LOOKS_S:
                    if all((found.lease_owner or '').startswith(f'{OTHER}/')
                           for found in self.database.open_snapshots()):
                        return
                    time.sleep(0.02)
        raise services.ServiceError('nobody takes over')

    def _remove(self):
        shutil.rmtree(self.folder, ignore_errors=True)


def _made(folder):
    folder.mkdir()
    return folder

