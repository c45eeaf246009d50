# SPDX-License-Identifier: Apache-2.0
"""Hosts with fake engines, a coordinator and a real database, joined by a transport."""

import os
import time
import uuid

from oslo_config import cfg

from hotsnap_nova import rpc
from hotsnap_nova.compute import endpoint, manager, rpcapi, server
from hotsnap_nova.conductor import fanout, requests, snapshots
from hotsnap_nova.db import api
from hotsnap_nova.storage import local
from tests.fakes import tables
from tests.fakes.engine import Died, Engine, World


def until(true, timeout_s=60, every_s=0.005):
    """Return when ``true()`` is, which is asked so often."""
    ends = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < ends, 'it does not happen'
        time.sleep(every_s)


class Host:
    """One host's service; `kill` and `start` again make a restart."""

    def __init__(self, name, folder, transport, world):
        self.name = name
        self.folder = folder
        self.engine = Engine(world)
        self.store = local.LocalStore(f'{folder}/store')
        self._transport = transport
        self.threads = None    # of its server
        self.owner = None    # of its guests
        self.manager = None
        self._server = None

    def start(self):
        """Ids of the snapshots that were cleaned up."""
        self.manager = self._manager()
        found = self.manager.start()
        self._server = server.Server(
            self._transport, self.name, endpoint.Endpoint(self.manager), self.threads)
        self._server.start()
        return found

    def manager_only(self):
        """What another process of this host would clean up as it starts."""
        other = self._manager()
        try:
            return other.start()
        finally:
            other.stop()

    def _manager(self):
        return manager.ComputeManager(
            self.name, self.engine, self.store, f'{self.folder}/state-{self.name}',
            guests_owner=self.owner)

    def phases(self):
        return {str(part.phase) for part in self.manager._participants._machine.state.parts}

    def die_at(self, method):
        """At the engine's next ``method`` the service ends, silent to those who wait."""
        def die(_about):
            self.engine.faults.clear()
            self._end_threads()
            raise Died
        self.engine.faults[method] = die

    def silence(self):
        """Answer nothing any more; the process, as it were, lives."""
        if self._server:
            self._server.close(60)
            self._server = None

    def kill(self):
        """End without any tidying: journal and guests stay as they are, wherever threads are."""
        world = self.engine.world
        self.engine.die()
        if self.manager:
            self._end_threads()
        self.silence()
        if self.manager:
            self.manager._participants.locks.release_all()
            self.manager = None
        self.engine = Engine(world)

    def lose_power(self, *guests):
        """As `kill`, and these guests are off."""
        self.kill()
        self.engine.world.kill(*guests)

    def _end_threads(self):
        def ended(*_anything):
            raise Died
        for serving in (self.manager._participants, self.manager._restores):
            serving._runner.carry_out = ended

    def stop(self):
        self.silence()
        if self.manager:
            self.manager.stop()

    def left(self):
        """Whatever of ours is in the state folder, but the ledger."""
        state = f'{self.folder}/state-{self.name}'
        return [name for part in ('journal', 'locks', 'restores')
                for name in os.listdir(f'{state}/{part}') if name != 'ended.json']


class Cluster:
    """As many hosts as named, one guest a letter: ``{'h1': 'ab', 'h2': 'c'}``."""

    def __init__(self, folder, guests, url=rpc.IN_PROCESS):
        conf = cfg.CONF
        conf([], project='hotsnap', default_config_files=[], default_config_dirs=[])
        self.folder = str(folder)
        self.transport = rpc.open_transport(conf, url, exchange=uuid.uuid4().hex)
        self.world = World(f'{folder}/world.json')
        self.hosts = {}
        self.members = []
        for name, letters in guests.items():
            self.hosts[name] = Host(name, self.folder, self.transport, self.world)
            for letter in letters:
                self.world.add(letter)
                self.members.append((letter, name))
        if not os.path.exists(f'{folder}/hotsnap.db'):    # else: of another version
            tables.make(f'{folder}/hotsnap.db')
        self.database = api.Database(f'sqlite:///{folder}/hotsnap.db')
        self.compute = rpcapi.ComputeApi(self.transport)
        self.snapshots = self.coordinator('first')

    def coordinator(self, owner, **more):
        return snapshots.Snapshots(self.database, self.compute, owner, **more)

    def __enter__(self):
        for host in self.hosts.values():
            host.start()
        return self

    def __exit__(self, *error):
        self.snapshots.close()
        fanout.each(self.hosts.values(), Host.stop)    # over a broker each takes a second
        self.database.close()
        self.transport.cleanup()

    def engines(self):
        return [host.engine for host in self.hosts.values()]

    def request(self, name='nightly', **more):
        return requests.CreateRequest(**{
            'name': name, 'members': tuple(self.members), 'max_hold_ms': 5000, **more})

    def create(self, name='nightly', **more):
        """The row of a snapshot that has ended."""
        snapshot = self.snapshots.create(self.request(name, **more))
        assert self.snapshots.wait(snapshot, timeout_s=60)
        return self.snapshots.get(snapshot)

    def clean(self):
        """Whether guests run, gates are open and nothing of ours is left on any host."""
        return (self.world.untouched() and not any(host.left() for host in self.hosts.values())
                and not any(host.store.drafts() for host in self.hosts.values()))
