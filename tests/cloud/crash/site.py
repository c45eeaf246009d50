# SPDX-License-Identifier: Apache-2.0
"""A cloud whose services stand still where they are told to, with guests that boot in a second."""

import json
import os
import pathlib
import signal
import sys
import tempfile
import time

from openstack import exceptions

from tests.cloud import cloud, database, files, hosts, images, nova, ours, servers
from tests.cloud.processes import Supervisor
from tests.crash import bed, cases, guests, services
from tests.crash.bed import COORDINATOR
from tests.crash.faults import FAULTS

_MET = pathlib.Path(__file__).with_name('met.py')
_NAME = 'crash'
_MEMORY_MB = 16
_DISK_GB = 1
_SERVERS = ('g1', 'g2', 'g3')
#: Far above what is needed; nothing waits that long. And nobody waits for what is looked at often.
_OURS = {'max_pause_ms': 2000, 'max_hold_ms': 3000, 'prepare_timeout_s': 120,
         'save_timeout_s': 120, 'silence_timeout_s': 60, 'restore_keep_hours': 0,
         'service_interval_s': 1, 'host_interval_s': 5}
_HEALS_S = 180.0
#: Of servers and hosts one each: the one where the steps are met.
_FAULTS = ('coordinator', 'service h1', 'service h2', 'QEMU g1', 'power h1')
_ABOUT = '''A cloud with two compute hosts: Keystone, Glance, Placement, Neutron, Nova and ours,
with MariaDB and RabbitMQ. Servers `g1` and `g2` are on h1, `g3` on h2. The steps are the commands
of a restore's machines ([protocol.md](protocol.md)), as undisturbed runs carry them out; of two
hosts that do the same one is in the table. At each step, *before* / *after* its command, something
is killed: our conductor, a host's nova-compute, a server's QEMU, or all of a host at once, which
comes back with its libvirtd and nova-compute. What died is started again, but no server by us.
Without Nova, and with all lost that a host's disk had not synced: [crash.md](crash.md).

Every server has in the end no task, and whichever runs is active for Nova.
'''


class Guest(guests.Guest):
    """A server; as a domain it has another name."""

    def __init__(self, server, home: hosts.Host):
        self.name = server.name
        self.uuid = server.id
        self.home = home
        self.form = 'qcow2'
        self.disk = home.folder / 'nova/instances' / server.id / 'disk'

    @property
    def domain(self):
        return self.home.connection.lookupByUUIDString(self.uuid)

    @property
    def pid(self):
        return servers.qemu_pid(self.uuid)


class Process(services.Service):
    """A service that a supervisor keeps.

    :param process: the supervisor's name for it
    """

    def __init__(self, name: str, control: services.Control, supervisor: Supervisor, process: str,
                 module: str, command: list, called: dict[str, str],
                 environment: dict[str, str]):
        mark = f'{control.folder}/{name}'
        given = json.dumps({
            'control': str(control.path), 'name': name, 'module': module, 'called': called,
            'environment': environment | {services.MARK: mark}})
        super().__init__(name, mark, supervisor.log(process), lambda: supervisor.start(
            process, sys.executable, _MET, given, *command))
        self._supervisor = supervisor
        self._process = process
        control.know(self)

    def kill(self, with_children=False):
        """All that it forked dies with it."""
        self._supervisor.stop(self._process, signal.SIGKILL)
        while self.lives:
            time.sleep(0.002)


class Host(bed.Host):
    """A compute host."""

    def __init__(self, name: str, real: str, site: 'Site'):
        settings = site.place.settings
        folder = settings.host_folder(real)
        self.name = name
        self._place, self._real = site.place, real
        self.home = hosts.Host(site.place, real)
        self.guests = []
        self.images = folder / 'nova/instances'
        self.state, self.store = folder / 'hotsnap', settings.folder / 'snapshots'
        self.locks, self.temporary = folder / 'run/hotsnap', folder / 'tmp'
        self.temporary.mkdir(exist_ok=True)
        self.service = Process(
            name, site.control, hosts.processes(site.place, real), nova.compute(real),
            'nova.cmd.compute', [*nova.compute_command(site.place, real), *site.more], site.called,
            {'TMPDIR': str(self.temporary)})

    def cut_power(self):
        hosts.power_off(self._place, self._real)

    def boot(self):
        hosts.power_on(self._place, self._real)
        self.service.start()


class Site(bed.Bed):
    """A cloud of its own.

    :ivar place: the cloud
    :ivar called: hosts' names in the table, by their own
    """

    plots = (cases.Restoring, cases.Undoing, cases.RestoringWithout)
    faults = tuple(fault for fault in FAULTS if str(fault) in _FAULTS)
    about = _ABOUT
    title = 'Killed at every step of a restore in a cloud'

    def _open(self):
        self.folder = pathlib.Path(f'/tmp/hscrash{os.getpid()}')
        self._ends.callback(cloud.down, self.folder)
        self.place = cloud.up(self.folder, stock=False, say=lambda _: None)
        control = self.folder / 'crash'
        control.mkdir()
        self.control = services.Control(control)
        self._ends.callback(self.control.close)
        made = self._make_servers()
        self._name_hosts(made)
        self._replace_services()
        self.guests = {}
        for server in made:
            host = self.hosts[self.called[server.compute_host]]
            guest = self.guests[server.name] = Guest(server, host.home)
            host.guests.append(guest)
        self._join(self.place.settings.broker_url, self.place.settings.database_url('hotsnap'),
                   {self.called[real]: hosts.uri(self.place, real) for real in self.called},
                   exchange='nova')
        self.heal()

    def _make_servers(self):
        """Three on two hosts."""
        with self.place.connect() as admin, tempfile.TemporaryDirectory() as folder:
            # Glance takes a raw boot sector for a partition table, and refuses it.
            images.add(admin, _NAME, guests.make_disk(
                pathlib.Path(folder), _NAME, 'qcow2'))
            admin.compute.create_flavor(name=_NAME, ram=_MEMORY_MB, vcpus=1, disk=_DISK_GB)
        with self.place.connect('demo') as connection:
            compute = connection.compute
            made = compute.create_server_group(name=_NAME, policy='soft-anti-affinity')
            network = connection.network.find_network(images.NETWORK, ignore_missing=False)
            asked = []
            for name in _SERVERS:    # one by one, or two may be put on one host
                asked.append(servers.wait_until(connection, compute.create_server(
                    name=name, image_id=connection.image.find_image(_NAME).id,
                    flavor_id=compute.find_flavor(_NAME).id, networks=[{'uuid': network.id}],
                    scheduler_hints={'group': made.id}), 'ACTIVE'))
            self.group = made.id
            self.context = {'user_id': connection.current_user_id,
                            'project_id': connection.current_project_id}
        with self.place.connect() as admin:
            return [admin.compute.get_server(server.id) for server in asked]

    def _name_hosts(self, made):
        """The fuller is h1; and servers are as they are called."""
        found = [server.compute_host for server in made]
        self.called = {real: f'h{number}' for number, real in enumerate(
            sorted(set(found), key=found.count, reverse=True), 1)}
        on_second = next(server for server in made if self.called[server.compute_host] == 'h2')
        others = [server for server in made if server is not on_second]
        with self.place.connect('demo') as connection:
            for server, name in zip([*others, on_second], _SERVERS, strict=True):
                connection.compute.update_server(server.id, name=name)
                server.name = name

    def _replace_services(self):
        """Those of the cloud by such as can be met."""
        more = files.write_ini(self.folder / 'etc/crash.conf', hotsnap=_OURS,
                               DEFAULT={'shutdown_timeout': 0})
        self.more = ['--config-file', more]
        self.place.processes.stop(ours.CONDUCTOR)
        for real in self.called:
            hosts.processes(self.place, real).stop(nova.compute(real))
        self.hosts = {name: Host(name, real, self) for real, name in self.called.items()}
        self.coordinator = Process(
            COORDINATOR, self.control, self.place.processes, ours.CONDUCTOR,
            'hotsnap_nova.cmd.conductor', [*ours.command(self.place), *self.more], self.called, {})
        self.processes = {COORDINATOR: self.coordinator} | {
            host.name: host.service for host in self.hosts.values()}

    def logs(self):
        found = {log.name: log for log in self.place.settings.logs.glob('*.log')}
        for host in self.hosts.values():
            found |= {f'{host.name}-{log.name}': log
                      for log in host.home.folder.glob('log/**/*.log')}
        return found

    def claims(self):
        for guest in self.guests.values():
            (task, state), = database.query(
                self.place, 'nova', 'SELECT task_state, vm_state FROM instances '
                                    f"WHERE deleted = 0 AND uuid = '{guest.uuid}'")
            if task:
                yield f'{guest.name}: task {task}'
            elif guest.state == 'running' and state != 'active':
                yield f'{guest.name}: runs, and is {state} for Nova'

    def heal(self):
        self._start_services()
        nova.wait_until_up(self.place)
        with self.place.connect() as admin:
            for guest in self.guests.values():
                if guest.state != 'running':
                    self._ask(admin, guest, 'ACTIVE', lambda server: (
                        admin.compute.reboot_server(server, 'HARD')))
        for guest in self.guests.values():
            guest.counts_on()

    def switch_off(self, guest):
        with self.place.connect() as admin:
            self._ask(admin, guest, 'SHUTOFF', admin.compute.stop_server)

    def _ask(self, admin, guest, status, ask):
        """Have Nova do it, once it has ended what it is at."""
        ends = time.monotonic() + _HEALS_S
        while True:
            try:
                ask(guest.uuid)
                servers.wait_until(admin, admin.compute.get_server(guest.uuid), status)
            except exceptions.ConflictException:
                if time.monotonic() > ends:
                    raise
                time.sleep(0.2)
            else:
                return

    def end_leases(self):
        for table, column, whose in (('snapshots', 'lease_expires_at', 'lease_owner'),
                                     ('errands', 'claimed_until', 'claimed_until')):
            database.query(self.place, 'hotsnap',
                           f'UPDATE {table} SET {column} = 0 WHERE {whose} IS NOT NULL')
