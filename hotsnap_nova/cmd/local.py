# SPDX-License-Identifier: Apache-2.0
"""Both services in this process, joined by ``fake:/``; what the commands work with.

Heavy imports are made when they are needed: ``hotsnap --help`` takes none.
"""

import contextlib
import os
import threading
import uuid

from hotsnap_nova import exception

#: How long a command waits for the clean-up after an earlier process.
_RECOVERY_S = 60.0
#: How long the services may take to end, beyond what they are patient with.
_END_S = 60.0
_OWNER = 'owner-'


class Local:
    """The database, and where asked for coordinator, participant and engine.

    :param conf: read configuration
    :param open_engine: gives an engine for (uri, keep_hours); None: QEMU
    :ivar hangs: something did not end; the process has to be ended as it is
    """

    def __init__(self, conf, open_engine=None):
        self._conf = conf
        self._open_engine = open_engine
        self._ends = contextlib.ExitStack()
        self._manager = None
        self.recovered: tuple[str, ...] = ()
        self.hangs = False

    @property
    def host(self) -> str:
        return self._conf.host

    def __enter__(self):
        return self

    def __exit__(self, *error):
        # An engine's call that hangs must not keep the user from the prompt.
        ending = threading.Thread(target=self._ends.close, daemon=True, name='hotsnap-end')
        ending.start()
        ending.join(_END_S)
        self.hangs = ending.is_alive()

    def open_database(self):
        """The coordinator's `Database`: enough for looking."""
        from hotsnap_nova.db import api
        connection = self._conf.database_connection
        if not connection:
            connection = f'sqlite:///{os.path.join(self._state_path(), "hotsnap.db")}'
        database = api.Database(connection)
        self._ends.callback(database.close)
        database.upgrade()
        return database

    def open(self):
        """`Snapshots` that can do everything; first cleans up after dead processes.

        :raises Unavailable: libvirt, the store or the state folder cannot be used
        """
        from oslo_config import cfg

        from hotsnap_nova import rpc
        from hotsnap_nova.compute import endpoint, locks, rpcapi, server, service
        from hotsnap_nova.conductor import snapshots

        database = self.open_database()
        owners = locks.Locks(os.path.join(self._state_path(), 'locks'))
        owner = f'{_OWNER}{uuid.uuid4()}'
        owners.take(owner)
        self._ends.callback(owners.release, owner)

        manager = self._manager = service.open_manager(self._conf, self._open_engine)
        manager.start()
        self._ends.callback(manager.stop)
        transport = rpc.open_transport(cfg.CONF, rpc.IN_PROCESS, exchange=owner)
        self._ends.callback(transport.cleanup)
        serving = server.Server(transport, self.host, endpoint.Endpoint(manager))
        serving.start()
        self._ends.callback(serving.close, 2 * _END_S)    # `__exit__` gives up before that

        def is_dead(lease_owner):
            other = lease_owner.partition('/')[0]    # of one piece of its work
            if not other.startswith(_OWNER):
                return None
            if other == owner or not owners.take(other):
                return False
            owners.release(other)
            return True

        found = snapshots.Snapshots(database, rpcapi.ComputeApi(transport), owner,
                                    self._conf.lease_s, is_dead)
        self._ends.callback(found.close)
        self.recovered = found.recover()
        for snapshot in self.recovered:
            found.wait(snapshot, timeout_s=_RECOVERY_S)
        with contextlib.suppress(exception.HotsnapError):    # the log has why it is left
            found.errands.run()
        return found

    def export(self, name: str, folder: str) -> dict[str, dict[str, str]]:
        """See `compute.exports`.

        :param name: of a snapshot; or the id of one that Nova made and the store here keeps
        """
        from hotsnap_nova.compute import exports
        from hotsnap_nova.conductor import restorations, snapshots
        proofs = {}
        try:
            found = self.open().get(name)
            snapshots.must_be_available(found)
            name, proofs = found.id, restorations.proofs(found)
        except exception.SnapshotNotFound:
            if name not in self._manager.store.list():
                raise
        return exports.export(self._manager.store, self._manager.engine, name, folder, proofs)

    def _state_path(self):
        path = os.path.abspath(self._conf.state_path)
        try:
            os.makedirs(path, mode=0o700, exist_ok=True)
        except OSError as exc:
            raise exception.StoreUnavailable(
                store=path, reason=f'{exc.strerror}; name another folder with --state') from exc
        return path
