# SPDX-License-Identifier: Apache-2.0
"""Where cases happen: hosts with guests, their services and a coordinator, killed in parts."""

import abc
import contextlib
import dataclasses
import pathlib
import threading
import time
import uuid
from collections.abc import Iterable
from concurrent import futures

from oslo_config import cfg

from hotsnap_nova import exception, rpc
from hotsnap_nova.conductor import actions, rpcapi
from hotsnap_nova.db import api
from hotsnap_nova.virt.host import Engine
from tests.crash import guests, judge, process, services
from tests.crash.faults import FAULTS, Fault

COORDINATOR = 'coordinator'
_ANSWER_S = 120.0
#: Power stays away for so long: others have noticed by then.
_DARK_S = 0.3


@dataclasses.dataclass(frozen=True)
class Cut:
    """A snapshot that restores bring back, and what its members were then."""

    snapshot: str
    then: dict[str, guests.Seen]


class Host(abc.ABC):
    """One host: a libvirtd, its guests, the service beside it.

    :ivar home: has libvirt's ``connection``
    :ivar images: folder of its guests' disks
    :ivar state: folder of what its service has to remember; ``store``, ``locks`` and ``temporary``
        likewise, each of what its name says
    """

    name: str
    guests: list[guests.Guest]
    service: services.Service
    images: pathlib.Path
    state: pathlib.Path
    store: pathlib.Path
    locks: pathlib.Path
    temporary: pathlib.Path

    def qemus(self) -> dict[str, int]:
        """Processes of its guests, by the guest's name."""
        return {guest.name: pid for guest in self.guests if (pid := guest.pid)}

    @abc.abstractmethod
    def cut_power(self) -> None:
        """All that runs on it is gone in one instant, and what was not synced.

        The service is `services.Service.frozen`: it starts nothing meanwhile.
        """

    @abc.abstractmethod
    def boot(self) -> None:
        """libvirtd answers, and the service starts."""


class Bed(abc.ABC):
    """A context manager; what it made ends with it. A `site` fills it.

    :ivar cut: what restores bring back; None: it is still to be taken
    :ivar group: id of the group of all guests
    :ivar context: of who asks for snapshots and restores
    :ivar hosts: by name, as `guests`
    :ivar processes: services that can be made to stand still, by name
    :ivar database: the coordinator's
    :ivar engines: of each host, to look at its guests
    """

    #: What is enacted here, and what dies of it.
    plots: tuple[type, ...]
    faults: tuple[Fault, ...] = FAULTS
    #: What the table of its cases says first, below its title.
    about: str
    title = 'Killed at every step'
    folder: pathlib.Path
    group: str
    context: dict
    hosts: dict[str, Host]
    guests: dict[str, guests.Guest]
    coordinator: services.Service
    processes: dict[str, services.Service]

    def __init__(self):
        self.unanswered = ''
        self.cut: Cut | None = None
        self._ends = contextlib.ExitStack()
        try:
            self._open()
        except BaseException:
            self._ends.close()
            raise

    def __enter__(self) -> 'Bed':
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

    @abc.abstractmethod
    def _open(self) -> None:
        """Bring it up; what is to end with it is in ``_ends``."""

    @abc.abstractmethod
    def logs(self) -> dict[str, pathlib.Path]:
        """Of all that is here, by the names they are to be kept under."""

    @abc.abstractmethod
    def claims(self) -> Iterable[str]:
        """Who is claimed by whom, in words."""

    @abc.abstractmethod
    def heal(self) -> None:
        """Return when every service serves and every guest counts."""

    @abc.abstractmethod
    def switch_off(self, guest: guests.Guest) -> None:
        """As its owner does; return when it is off."""

    @abc.abstractmethod
    def end_leases(self) -> None:
        """The coordinator that had them is dead or stands still, and their time over."""

    def take_over(self) -> None:
        """The coordinator stands still for so long that another takes over all it is at.

        :raises ServiceError: nobody does
        """
        raise services.ServiceError('there is no other coordinator')

    def _join(self, broker: str, database: str, hosts: dict[str, str],
              exchange: str = 'openstack') -> None:
        """Be able to ask the coordinator, and to look at all that there is.

        :param hosts: libvirt's address of each
        :param exchange: the broker's
        """
        process.settings_of({})
        rpc.oslo_messaging.set_transport_defaults(exchange)
        self._transport = rpc.open_transport(cfg.CONF, broker)
        self._ends.callback(self._transport.cleanup)
        self.api = self._api('req-crash')
        self.database = api.Database(database)
        self._ends.callback(self.database.close)
        self.engines = {}
        for name, uri in hosts.items():
            self.engines[name] = engine = Engine(uri)
            self._ends.callback(engine.close)

    def _api(self, request):
        return rpcapi.ConductorApi(self._transport, self.context | {'request_id': request})

    def _start_services(self):
        starting = [service for service in self.processes.values() if not service.lives]
        for service in starting:
            service.start()
        for service in starting:
            service.wait_ready()

    def strike(self, fault: Fault) -> dict[str, str]:
        """Something dies.

        :return: guests that do, by name, and the mark each had where it ran
        """
        match fault.kind:
            case 'coordinator':
                self.coordinator.kill()
            case 'other coordinator':
                self.take_over()
            case 'service':
                self.hosts[fault.name].service.kill()
            case 'QEMU':
                guest = self.guests[fault.name]
                # What is killed shall be as it was looked at.
                with self.host_of(guest).service.frozen():
                    killed = judge.marks([guest])
                    services.kill(list(filter(None, [guest.pid])))
                return killed
            case 'power':
                host = self.hosts[fault.name]
                with host.service.frozen():
                    killed = judge.marks(host.guests)
                    host.cut_power()
                return killed
        return {}

    def revive(self, fault: Fault) -> None:
        """Whatever died of it lives, but for guests."""
        match fault.kind:
            case 'coordinator':
                self.end_leases()
                self.coordinator.start()
                self.coordinator.wait_ready()
            case 'service':
                self.hosts[fault.name].service.start()
                self.hosts[fault.name].service.wait_ready()
            case 'power':
                time.sleep(_DARK_S)
                self.hosts[fault.name].boot()
                self.hosts[fault.name].service.wait_ready()

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
        self.ask(self.api.create, self.group, name=name, description='', properties={}, gate=gate,
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
        self.ask(self._api(request).restore, snapshot, ignore_new_members=False)
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
