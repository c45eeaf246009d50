# SPDX-License-Identifier: Apache-2.0
"""The RPC endpoint of a host; `rpcapi` is its other end and has the versions' history."""

import dataclasses
import os
import time
from importlib import metadata

import oslo_messaging
from oslo_log import log as logging

from hotsnap_nova import exception, rpc
from hotsnap_nova.compute import expiry, locks, owner, participants, restores, tasks
from hotsnap_nova.protocol import messages, wire
from hotsnap_nova.storage import base
from hotsnap_nova.storage import manifest as manifests
from hotsnap_nova.virt import records

LOG = logging.getLogger(__name__)

#: What this end serves; `rpcapi` asks for as little of it as it needs.
VERSION = '1.2'


class ComputeManager:
    """Serves one host's guests and store.

    :param engine: `virt.host.Engine`, or one like it
    :param domain_locks: see `participants.Participants`
    :param guests_owner: likewise
    """

    target = oslo_messaging.Target(version=VERSION)

    def __init__(self, host: str, engine, store: base.Store, state_path: str,
                 domain_locks: locks.Locks | None = None,
                 guests_owner: owner.Owner | None = None):
        self._host = host
        self._started_at = time.time()
        self._engine = engine
        self._store = store
        self._participants = participants.Participants(
            host, engine, store, state_path, domain_locks, guests_owner)
        self._restores = restores.Restores(host, engine, store, state_path,
                                           self._participants.domain_locks, guests_owner)
        self._tasks = tasks.Tasks()
        self._expiry = expiry.Expiry(engine.drop_expired)

    def start(self) -> tuple[str, ...]:
        """Clean up after processes that died; ids of the snapshots they left."""
        self._store.sweep()
        found = self._participants.start()
        for snapshot in found:
            LOG.warning('Cleaned up after snapshot %s, which a process left', snapshot)
        self._expiry.start()
        return found

    def stop(self) -> None:
        self._expiry.stop()
        self._participants.close()
        self._engine.close()

    def withdraw(self, member_id: str, why: str) -> None:
        """A guest's owner needs it: snapshots and restores that have it are given up.

        :raises GuestBusy: one does not let go of it in time
        """
        self._restores.withdraw(member_id)
        self._participants.withdraw(member_id, self._withdrawn(why))

    def holds(self, member_id: str) -> bool:
        """Whether a snapshot or restore is at work on this guest."""
        return self._participants.domain_locks.holds(f'domain-{member_id}')

    def withdraw_all(self, why: str) -> None:
        """This service is about to end; what is under way cannot go on without it."""
        self._participants.withdraw_all(self._withdrawn(why))

    def _withdrawn(self, why):
        return messages.Cause('withdrawn', why, self._host)

    @rpc.answers
    def ping(self, _context):
        try:
            version = metadata.version('hotsnap-nova')
        except metadata.PackageNotFoundError:
            version = 'unknown'
        return {'host': self._host, 'version': version, 'rpc_version': VERSION,
                'started_at': self._started_at}

    @rpc.answers
    def find(self, _context, names):
        return [dataclasses.asdict(spec) for spec in self._engine.find(tuple(names))]

    @rpc.answers
    def check(self, _context, members, gate):
        specs = tuple(records.MemberSpec(**member) for member in members)
        verdict = self._engine.check(specs, gate, self._store.free_bytes())
        return {'gates': list(verdict.gates),
                'findings': [dataclasses.asdict(each) | {'refuses': each.refuses}
                             for each in verdict.findings]}

    @rpc.answers
    def receive(self, _context, request):
        try:
            message = wire.decode(request)
        except ValueError as exc:
            raise exception.InvalidValue(name='request', reason=str(exc)) from exc
        answer = self._participants.serve(message)
        return None if answer is None else wire.encode(answer)

    @rpc.answers
    def manifest(self, _context, snapshot):
        return self._store.load(snapshot)

    @rpc.answers
    def delete(self, _context, snapshot):
        return self._store.delete(snapshot)

    @rpc.answers
    def verify(self, _context, task, snapshot):
        def verify(tell):
            # Hosts that share a store see the same: each proves what it saved.
            mine = {member['id'] for member in manifests.kept_members(self._store.load(snapshot))
                    if member['host'] == self._host}
            found = self._store.verify(
                snapshot, lambda _member, _file, done, total: tell(done, total), mine or None)
            return dataclasses.asdict(found)
        return self._tasks.ask(task, verify)

    @rpc.answers
    def export(self, _context, task, snapshot, destination):
        def export(_tell):
            self._store.verify(snapshot)
            manifest = self._store.load(snapshot)
            paths = {}
            for member in manifests.kept_members(manifest):
                folder = os.path.dirname(
                    self._store.path(snapshot, member['id'], member['files'][0]['name']))
                paths[member['name']] = self._engine.export(
                    folder, {**member, 'member': member['id']}, destination)
            return paths
        return self._tasks.ask(task, export)

    @rpc.answers
    def restore(self, _context, task, step, snapshot, restore_id, paused, context=None,
                members=None):
        return self._tasks.ask(task, lambda tell: self._restores.do(
            step, snapshot, restore_id, paused, tell, context, members))
