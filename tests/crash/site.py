# SPDX-License-Identifier: Apache-2.0
"""Two hosts with real guests, a coordinator, a broker; killed in parts, and healed."""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import sqlite3
import tempfile
import threading
import time
import uuid
from concurrent import futures

from oslo_config import cfg

from hotsnap_nova import exception, rpc
from hotsnap_nova.conductor import actions, rpcapi
from hotsnap_nova.db import api
from hotsnap_nova.virt.host import Engine
from tests.crash import guests, power, process, services
from tests.fakes import tables
from tests.lab import enclosure
from tests.lab.broker import Broker

GROUP = 'group'
COORDINATOR = 'coordinator'
#: Another, which is asked for nothing, and takes over whatever it can.
OTHER = 'other'
#: Its clock.
_AHEAD_S = 600
#: Guests of each host, and their disks' formats.
LAYOUT = {'h1': {'g1': 'qcow2', 'g2': 'raw'}, 'h2': {'g3': 'qcow2'}}
_CONTEXT = {'user_id': 'user', 'project_id': 'project', 'request_id': 'req-crash'}
#: Far above what is needed on a machine that does other things; nothing waits that long.
_LIMITS = {'max_pause_ms': 2000, 'max_hold_ms': 3000, 'prepare_timeout_s': 120,
           'save_timeout_s': 120, 'silence_timeout_s': 60, 'max_snapshots_per_project': -1,
           'max_snapshots_per_group': -1, 'restore_keep_hours': 0}
_ANSWER_S = 120.0
_LOCKED_S = 0.5
_LOOKS_S = 3.0
_OFTEN = {'service_interval_s': 1.0, 'host_interval_s': 1.0}


class Host:
    """One host: a libvirtd, its guests, the service beside it.

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

    def qemus(self) -> dict[str, int]:
        """Processes of its guests, by the guest's name."""
        return {guest.name: pid for guest in self.guests if (pid := guest.pid)}

    def cut_power(self) -> None:
        """All that runs on it is gone in one instant, and what was not synced.

        The service is `Service.frozen`: it starts nothing meanwhile.
        """
        services.kill([*self.qemus().values(), *self.service.children(), self.home.daemon_pid,
                       *([self.service.pid] if self.service.lives else [])])
        for path in (self.home.folder / 'run/libvirt/qemu').glob('*.xml'):
            path.unlink(missing_ok=True)
        shutil.rmtree(self.locks, ignore_errors=True)
        self.disk.cut_power()

    def boot(self) -> None:
        """libvirtd answers, and the service starts."""
        self.home.wait_until_answering()
        self.service.start()


@dataclasses.dataclass(frozen=True)
class Cut:
    """A snapshot that restores bring back, and what its members were then."""

    snapshot: str
    then: dict[str, guests.Seen]


class Site:
    """A context manager; what it made ends with it.

    :ivar cut: what restores bring back; None: it is still to be taken
    """

    def __init__(self):
        self.unanswered = ''
        self.cut: Cut | None = None
        power.enclose_mounts()
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix='hscrash-'))
        self._ends = contextlib.ExitStack()
        self._ends.callback(self._remove)
        try:
            self._open()
        except BaseException:
            self._ends.close()
            raise

    def _open(self):
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
        process.settings_of({})
        self._transport = rpc.open_transport(cfg.CONF, self.broker.url)
        self._ends.callback(self._transport.cleanup)
        self.api = rpcapi.ConductorApi(self._transport, _CONTEXT)
        self.database = api.Database(f'sqlite:///{self._database_path}')
        self._ends.callback(self.database.close)
        self.engines = {}
        for host in self.hosts.values():
            self.engines[host.name] = engine = Engine(host.home.uri)
            self._ends.callback(engine.close)
        self.heal()

    def __enter__(self) -> 'Site':
        return self

    def __exit__(self, *_error) -> None:
        self.close()

    def close(self) -> None:
        """End everything; safe to repeat."""
        self._ends.close()

    def kinds_met(self) -> set[str]:
        """Names of all commands that were met."""
        return set().union(*(service.kinds for service in self.processes.values()))

    def host_of(self, guest: guests.Guest) -> Host:
        return next(host for host in self.hosts.values() if guest in host.guests)

    def heal(self) -> None:
        """Return when every service serves and every guest counts."""
        starting = [service for service in self.processes.values() if not service.lives]
        for service in starting:
            service.start()
        for service in starting:
            service.wait_ready()
        for guest in self.guests.values():
            if guest.state == 'off':
                guest.domain.create()
            elif guest.state == 'paused':
                guest.domain.resume()
        for guest in self.guests.values():
            guest.counts_on()

    def end_leases(self, timeout_s: float = _ANSWER_S) -> None:
        """The coordinator that had them is dead or stands still, and their time over.

        :raises sqlite3.OperationalError: it stands still at a write
        """
        database = sqlite3.connect(self._database_path, timeout=timeout_s)
        with contextlib.closing(database), database:
            database.execute('UPDATE snapshots SET lease_expires_at = 0 '
                             'WHERE lease_owner IS NOT NULL')
            database.execute('UPDATE errands SET claimed_until = 0 '
                             'WHERE claimed_until IS NOT NULL')

    def take_over(self) -> None:
        """The coordinator stands still for so long that the other one takes over all it is at.

        :raises ServiceError: it does not
        """
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

    def ask(self, request, *arguments, **named) -> None:
        """Ask the coordinator, which may die of it; nobody waits for its answer."""
        def ask():
            try:
                request(*arguments, **named)
            except Exception as exc:    # perhaps all has ended meanwhile
                self.unanswered = f'{type(exc).__name__}: {exc}'
        threading.Thread(target=ask, daemon=True).start()

    def create(self, gate: str = 'hold') -> str:
        """The id of a snapshot that is now being made."""
        name = uuid.uuid4().hex[:8]
        self.ask(self.api.create, GROUP, name=name, description='', properties={}, gate=gate,
                 disk='backup')
        ends = time.monotonic() + _ANSWER_S
        while not (found := self.database.list(name=name)):
            if time.monotonic() > ends:
                raise services.ServiceError(f'no snapshot is made: {self.unanswered}')
            time.sleep(0.01)
        return found[0].id

    def restore(self, snapshot: str) -> str:
        """The id of a request to restore, which is now being done."""
        request = f'req-{uuid.uuid4()}'
        api = rpcapi.ConductorApi(self._transport, _CONTEXT | {'request_id': request})
        self.ask(api.restore, snapshot, ignore_new_members=False)
        ends = time.monotonic() + _ANSWER_S
        while (self.database.get(snapshot).last_action or {}).get('request_id') != request:
            if time.monotonic() > ends:
                raise services.ServiceError(f'nothing is restored: {self.unanswered}')
            time.sleep(0.01)
        return request

    def is_closed(self, snapshot: str) -> bool:
        """Whether no coordinator is at it."""
        found = self.database.get(snapshot)
        return (found.closed and not found.restore
                and found.action_status != actions.RUNNING)

    def mark(self, mark: str) -> None:
        """Have memory and disk of every guest bear it."""
        with futures.ThreadPoolExecutor() as pool:
            for _ in pool.map(lambda guest: guest.mark(mark), self.guests.values()):
                pass

    def wait_over(self, snapshot: str, timeout_s: float) -> list[str]:
        """What still goes on with a snapshot, after waiting for the end of it."""
        ends = time.monotonic() + timeout_s
        while True:
            found, left = self.database.get(snapshot), []
            if not self.is_closed(snapshot):
                left.append(f'it goes on: {found.status}, {found.phase}')
            left += [f'host {errand.host} owes {errand.kind}'
                     for errand in self.database.errands() if errand.snapshot_id == snapshot]
            if not left or time.monotonic() > ends:
                return left
            time.sleep(0.05)

    def delete(self, snapshot: str) -> None:
        """Return when there is none of this id.

        :raises SnapshotBusy: it is being made
        """
        self.api.delete(snapshot, force=False)
        ends = time.monotonic() + _ANSWER_S
        with contextlib.suppress(exception.SnapshotNotFound):
            while time.monotonic() < ends:
                self.database.get(snapshot)
                time.sleep(0.02)

    def _remove(self):
        shutil.rmtree(self.folder, ignore_errors=True)


def _made(folder):
    folder.mkdir()
    return folder

