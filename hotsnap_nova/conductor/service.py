# SPDX-License-Identifier: Apache-2.0
"""One coordinator: its endpoint on the bus, and what it looks after from time to time."""

import threading
import time
import uuid
from importlib import metadata

from oslo_log import log as logging

from hotsnap_nova import exception, rpc
from hotsnap_nova.compute import rpcapi as compute_rpcapi
from hotsnap_nova.conductor import hosts, manager, rpcapi, snapshots
from hotsnap_nova.db import api

LOG = logging.getLogger(__name__)

#: What is under way gets so long to end by itself when the service ends.
_END_S = 10.0


class Service:
    """Serves from `start` to `stop`.

    :param conf: group ``[hotsnap]`` of the configuration
    :param host: this one's name
    :param transport: of Nova's API
    :param cells: `cells.Cells`, or one like it
    """

    def __init__(self, conf, host: str, transport, cells):
        self._conf = conf
        self._host = host
        self._transport = transport
        self._cells = cells
        self._ended = threading.Event()
        self._loops: list[threading.Thread] = []

    def start(self) -> None:
        """Take over what dead coordinators left, and serve.

        :raises DatabaseUnavailable: or its tables are of another version
        """
        conf, owner = self._conf, f'{self._host}/{uuid.uuid4()}'
        self.database = open_database(conf)
        self.database.must_be_current()
        self.compute = compute_rpcapi.ComputeApi(
            self._cells.transport_of, pin=conf.compute_rpc_version)
        self.snapshots = snapshots.Snapshots(
            self.database, self.compute, owner, conf.lease_s, silence_s=conf.silence_timeout_s,
            has_errands=True, restore_timeout_s=conf.save_timeout_s)
        self._hosts = hosts.Hosts(self.database, self.compute, self._cells,
                                  self.snapshots.errands, conf.host_interval_s)
        self._started_at = time.time()
        endpoint = manager.ConductorManager(conf, self.database, self.snapshots, self._cells)
        self._server = rpc.open_server(self._transport, rpcapi.TOPIC, self._host, [endpoint])
        self._server.start()
        self._loop(self._look_after_snapshots, conf.service_interval_s)
        self._loop(self._hosts.look, min(conf.service_interval_s, conf.host_interval_s))
        LOG.info('Coordinator %s serves', owner)

    def stop(self) -> None:
        """End; another coordinator, or the next of this host, goes on with what is left."""
        self._ended.set()
        rpc.close([self._server], _END_S)
        self.snapshots.leave()
        self.snapshots.errands.close(_END_S)
        for loop in self._loops:
            loop.join(_END_S)
        self._hosts.close(_END_S)
        self.database.close()

    def _look_after_snapshots(self):
        self.database.heard_of(
            hosts.CONDUCTOR, self._host, version=version(), rpc_version=rpcapi.VERSION,
            started_at=self._started_at)
        self.snapshots.recover()

    def _loop(self, look, every_s):
        def run():
            while not self._ended.is_set():
                try:
                    look()
                except exception.HotsnapError as exc:
                    LOG.error('%(look)s: %(error)s', {'look': look.__name__, 'error': exc})
                except Exception:    # the next time may be better
                    LOG.exception('%s failed', look.__name__)
                self._ended.wait(every_s)
        loop = threading.Thread(target=run, daemon=True, name=f'hotsnap-{look.__name__}')
        self._loops.append(loop)
        loop.start()


def open_database(conf) -> api.Database:
    """The coordinators' database.

    :raises InvalidValue: no option tells where it is
    :raises DatabaseUnavailable:
    """
    if not conf.database_connection:
        raise exception.InvalidValue(
            name='[hotsnap] database_connection', reason='it is not set in nova.conf')
    return api.Database(conf.database_connection)


def check_database(conf) -> None:
    """Nothing, where a coordinator can work with its database.

    :raises InvalidValue, DatabaseUnavailable: likewise
    """
    database = open_database(conf)
    try:
        database.must_be_current()
    finally:
        database.close()


def version() -> str:
    """Of this software."""
    try:
        return metadata.version('hotsnap-nova')
    except metadata.PackageNotFoundError:    # run from a checkout
        return 'unknown'
