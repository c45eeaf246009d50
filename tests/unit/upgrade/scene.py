# SPDX-License-Identifier: Apache-2.0
"""A cluster of abc6900 that can be stopped anywhere: what `make` writes its states with.

Ids are counted and the wall clock begins at MOMENT, so that two runs differ in little but in
what was measured; in a state made from others all goes on an hour later.
"""

import collections
import datetime
import itertools
import os
import sys
import threading
import time
import uuid

from oslo_config import cfg

from hotsnap_nova import conf
from hotsnap_nova.compute import rpcapi as compute_rpcapi
from hotsnap_nova.conductor import errands, rpcapi, service
from hotsnap_nova.db import api, claims
from hotsnap_nova.storage import local
from tests.fakes import cells, engine
from tests.fakes import cluster as clusters

GUESTS = {'h1': 'ab', 'h2': 'c'}
MOMENT = datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.UTC).timestamp()
_CALLER = {'user_id': 'u', 'project_id': 'p', 'request_id': 'req-1'}
#: By the module that asks: what its ids end with.
_COUNTED = {'snapshots': 'a', 'restore': 'b', 'service': 'c', 'recovery': 'd'}

until = clusters.until


class Point:
    """Where threads stop; the first that comes sets ``reached``."""

    def __init__(self):
        self.reached = threading.Event()
        self.goes_on = threading.Event()

    def wait(self) -> None:
        assert self.reached.wait(30), 'it does not get there'


class Scene:
    """Two hosts, three guests and a coordinator service over a folder, what is there included.

    :param depth: how many states were made before, one from the other
    :param apart: each host has a store of its own
    :param options: of the coordinator service
    """

    def __init__(self, folder: str, depth: int, apart: bool = False, **options):
        self._depth = depth
        _count_ids(depth)
        _set_clock(MOMENT + 3600 * depth)
        _be_impatient()
        _keep_what_is_there()
        self.cluster = clusters.Cluster(folder, GUESTS)
        self.database = self.cluster.database
        self.cells = cells.Cells(self.cluster)
        self.h1, self.h2 = self.cluster.hosts.values()
        for host in (self.h1, self.h2) if apart else ():
            host.store = local.LocalStore(f'{folder}/store-{host.name}')
        made = cfg.ConfigOpts()
        conf.register(made)
        made([], default_config_files=[], default_config_dirs=[])
        for name, value in {'database_connection': f'sqlite:///{folder}/hotsnap.db',
                            'max_hold_ms': 5000, **options}.items():
            made.set_override(name, value, group='hotsnap')
        self.service = service.Service(made.hotsnap, 'c1', self.cluster.transport, self.cells)
        self.api = rpcapi.ConductorApi(self.cluster.transport, _CALLER)

    def start(self) -> None:
        """Return when all three serve, and have been heard of."""
        self.cluster.__enter__()
        self.service.start()
        began = MOMENT + 3600 * self._depth
        until(lambda: sum(each.seen_at > began for each in self.database.services()) == 3)

    # -- what users do -------------------------------------------------------------------------

    @property
    def row(self):
        """Of the newest snapshot."""
        return self.database.list()[0]

    def create(self, **more) -> None:
        """Begin a snapshot."""
        known = len(self.database.list())
        self.begin(self.api.create, 'g', **{
            'name': None, 'description': '', 'properties': {}, 'gate': 'auto', 'disk': 'backup',
            **more})
        until(lambda: len(self.database.list()) > known)

    def save(self, *hosts) -> None:
        """Begin a snapshot that these hosts never end to save."""
        for host in hosts:
            host.engine.save_s = 3600
        self.create()
        until(lambda: self.row.phase == 'save' and self.row.skew_ms is not None)
        for host in (self.h1, self.h2):
            self.phase(host, 'saving' if host in hosts else 'saved')

    def restore(self) -> None:
        self.begin(self.api.restore, self.row.id, False)

    def begin(self, call, *args, **more) -> None:
        """Call it in a thread."""
        threading.Thread(target=call, args=args, kwargs=more, daemon=True).start()

    # -- where it stops ------------------------------------------------------------------------

    def before(self, thing, name: str, when=lambda *args, **more: True) -> Point:
        """Threads stop when they call a method, and ``when`` is true of its arguments."""
        return self._stop(thing, name, when, True)

    def after(self, thing, name: str, when=lambda *args, **more: True) -> Point:
        """Threads stop when they have called it."""
        return self._stop(thing, name, when, False)

    def before_write(self, **values) -> Point:
        """Before the decision of a snapshot is written."""
        return self.before(api.Database, 'compare_and_swap', _sets(values))

    def after_write(self, **values) -> Point:
        return self.after(api.Database, 'compare_and_swap', _sets(values))

    def trash(self) -> list[str]:
        """What is going away just now."""
        return [name for host in (self.h1, self.h2)
                for name in os.listdir(f'{host.store.root}/.trash')]

    def phase(self, host, phase: str) -> None:
        """Return when a host's only part is in this phase."""
        until(lambda: host.phases() == {phase})

    def did(self, host, method: str) -> Point:
        """Is reached when a host's engine has done this."""
        point = self.after(host.engine, method)
        point.goes_on.set()
        return point

    def _stop(self, thing, name, when, early):
        real, point = getattr(thing, name), Point()

        def stop(*args, **more):
            if not when(*args, **more):
                return real(*args, **more)
            result = None if early else real(*args, **more)
            point.reached.set()
            point.goes_on.wait()
            return real(*args, **more) if early else result
        setattr(thing, name, stop)
        return point


def _sets(values):
    """Whether a write that is no rehearsal sets these columns."""
    return lambda _self, _snapshot, generation, **columns: generation >= 0 and values.items() <= (
        columns.items())


def _count_ids(depth):
    real, counts = uuid.uuid4, collections.defaultdict(itertools.count)

    def counted():
        module = sys._getframe(1).f_globals['__name__'].rpartition('.')[2]
        if module not in _COUNTED:
            return real()
        number = f'{depth}{next(counts[module]):07}'
        return uuid.UUID(f'{number}-0000-4000-8000-{_COUNTED[module] * 12}')
    uuid.uuid4 = counted


def _set_clock(moment):
    began, real = time.monotonic(), datetime.datetime

    class Moment(real):
        @classmethod
        def now(cls, tz=None):
            return cls.fromtimestamp(time.time(), tz)
    datetime.datetime = Moment
    time.time = lambda: moment + time.monotonic() - began
    time.time_ns = lambda: int(time.time() * 1e9)
    claims.Claims.__init__.__defaults__ = (time.time,)


def _be_impatient():
    """Hosts that are away are given up soon."""
    compute_rpcapi._SHORT_S, compute_rpcapi._PING_S, compute_rpcapi._LOST_ANSWERS = 2.0, 0.5, 1
    errands._CALL_S = 0.5


def _keep_what_is_there():
    """A cluster makes everything anew."""
    make, add = clusters.tables.make, engine.World.add
    clusters.tables.make = lambda path: os.path.exists(path) or make(path)

    def add_once(world, name, **more):
        with world.open() as guests:
            there = name in guests
        return world.spec(name) if there else add(world, name, **more)
    engine.World.add = add_once
