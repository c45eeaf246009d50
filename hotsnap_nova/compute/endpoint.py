# SPDX-License-Identifier: Apache-2.0
"""What a host serves on the bus, and nothing else; `rpcapi` is its other end.

`rpcapi` has the versions' history. Only what is marked with `rpc.answers` can be called.
"""

import dataclasses
import time
from importlib import metadata

import oslo_messaging

from hotsnap_nova import exception, rpc
from hotsnap_nova.compute import manager, tasks, translate
from hotsnap_nova.compute import proofs as word
from hotsnap_nova.protocol import wire
from hotsnap_nova.protocol.restore import messages as restores
from hotsnap_nova.storage import manifest as manifests
from hotsnap_nova.virt import records

#: What this end serves; `rpcapi` asks for as little of it as it needs.
VERSION = '1.4'


class Endpoint:
    """Serves one host's manager."""

    target = oslo_messaging.Target(version=VERSION)

    def __init__(self, served: manager.ComputeManager):
        self._manager = served
        self._host = served.host
        self._engine = served.engine
        self._store = served.store
        self._started_at = time.time()
        self._tasks = tasks.Tasks()

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
                'findings': [translate.finding(each) for each in verdict.findings],
                'addresses': [dataclasses.asdict(each) for each in verdict.addresses]}

    @rpc.answers
    def receive(self, _context, request):
        answer = self._manager.serve(_decoded(request))
        return None if answer is None else wire.encode(answer)

    @rpc.answers
    def check_restore(self, _context, task, restore, share):
        wanted = _decoded(share)
        if not isinstance(wanted, restores.Share):
            raise exception.InvalidValue(name='share', reason='it is none')
        # Coordinators that know of no warnings do not look at the result.
        return self._tasks.ask(task, lambda _tell: list(map(
            wire.encode, self._manager.check_restore(restore, wanted))))

    @rpc.answers
    def manifest(self, _context, snapshot):
        return self._store.load(snapshot)

    @rpc.answers
    def delete(self, _context, snapshot, task=None):
        if task is None:    # as up to 1.2
            return self._store.delete(snapshot)
        # By its own name: each attempt is another task, and on a store that hangs each would hang.
        return self._tasks.ask(f'delete {snapshot}', lambda _tell: self._store.delete(snapshot),
                               again=True)

    @rpc.answers
    def verify(self, _context, task, snapshot, members=(), proofs=None):
        def verify(tell):
            manifest = self._store.load(snapshot)
            word.must_name(manifest, members)
            word.must_hold(manifest, proofs or {})
            # Hosts that share a store see the same: each proves what it saved.
            mine = set(members) or {member['id'] for member in manifests.kept_members(manifest)
                                    if member['host'] == self._host}
            found = self._store.verify(
                snapshot, lambda _member, _file, done, total: tell(done, total), mine or None,
                manifest)
            return dataclasses.asdict(found)
        return self._tasks.ask(task, verify)

    @rpc.answers
    def parts(self, _context):
        return self._manager.remains.list()

    @rpc.answers
    def forget(self, _context, part):
        return self._manager.remains.end(part)


def _decoded(plain):
    try:
        return wire.decode(plain)
    except ValueError as exc:
        raise exception.InvalidValue(name='request', reason=str(exc)) from exc
