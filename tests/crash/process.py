# SPDX-License-Identifier: Apache-2.0
"""The production services, each in a process that stands still where it is told to.

``python -m tests.crash.process`` imports what they need and forks one for each line of JSON on
standard input: a service that starts as fast as it was killed. It ends with standard input.
"""

import contextlib
import faulthandler
import functools
import json
import logging
import os
import pathlib
import signal
import sys
import threading
import time
import types

from oslo_config import cfg

from hotsnap_nova import conf as options
from hotsnap_nova import exception, rpc
from hotsnap_nova.compute import endpoint, owner, server, service
from hotsnap_nova.conductor import membership, snapshots
from hotsnap_nova.conductor import service as coordinator
from hotsnap_nova.virt import host as engine
from tests.crash import probe

#: For so long a host may be away before it is left an errand.
_PATIENCE_S = 2.0


class Owner(owner.Owner):
    """Claims are files, which outlive a host as Nova's task states do."""

    def __init__(self, folder: str):
        self._folder = pathlib.Path(folder)

    def begin_snapshot(self, claim, members, caller):
        for member in members:
            path = self._folder / member.id
            with contextlib.suppress(FileExistsError), open(path, 'x') as file:
                file.write(claim)
            if path.read_text() != claim:
                self.end(claim)
                raise exception.GuestBusy(member=member.name, reason='it has another claim')

    begin_restore = begin_snapshot

    def end(self, claim, error='', faults=None):
        for path in self._folder.iterdir():
            if path.read_text() == claim:
                path.unlink()


class Cells:
    """Nova as the coordinator sees it; see `tests.fakes.cells`.

    :param servers: of the only group: ``id``, ``name``, ``host`` each
    """

    def __init__(self, transport, servers: list[dict], names: list[str]):
        self._transport = transport
        self._names = tuple(names)
        self._servers = tuple(membership.Server(
            each['id'], each['name'], each['name'], each['host'], 'active', None, 'project')
            for each in servers)

    def group(self, group_id):
        return membership.Group(group_id, group_id, 'project', self._servers)

    def servers(self, ids):
        wanted = set(ids)
        return {each.id: each for each in self._servers if each.id in wanted}

    def states(self, hosts):
        return dict.fromkeys(hosts, membership.UP)

    def hosts(self):
        return self._names

    def transport_of(self, _host):
        return self._transport


def _serve_host(given, settings, transport):
    manager = service.open_manager(settings, engine.Engine, given['name'], given['uri'],
                                   Owner(given['claims']))
    manager.start()
    server.Server(transport, given['name'], endpoint.Endpoint(manager)).start()


def _coordinate(given, settings, transport):
    cells = Cells(transport, given['servers'], given['hosts'])
    snapshots.Snapshots = functools.partial(snapshots.Snapshots, patience_s=_PATIENCE_S)
    real = time.time
    time.time = lambda: real() + given['ahead_s']
    if not given['is_asked']:    # it only takes over
        transport = rpc.open_transport(cfg.CONF, rpc.IN_PROCESS)
    coordinator.Service(settings, given['name'], transport, cells).start()


def settings_of(changes: dict) -> types.SimpleNamespace:
    """Group ``[hotsnap]``, where these may be less than is allowed: tests do not wait."""
    conf = cfg.CONF
    options.register(conf)
    conf([], project='hotsnap', default_config_files=[], default_config_dirs=[])
    return types.SimpleNamespace(**{
        option.dest: conf.hotsnap[option.dest] for option in options.OPTIONS} | changes)


def _child(given):
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(given['log'], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in (1, 2):
        os.dup2(log, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    faulthandler.register(signal.SIGUSR1)
    os.environ.update(given['environment'])
    logging.basicConfig(
        level=logging.INFO, format='%(asctime)s.%(msecs)03d %(threadName)s %(name)s %(message)s',
        datefmt='%H:%M:%S')
    met = probe.Probe(given['control'], given['name'])
    met.meet()
    settings = settings_of(given['settings'])
    transport = rpc.open_transport(cfg.CONF, given['url'])
    serve = _coordinate if given['kind'] == 'coordinator' else _serve_host
    serve(given, settings, transport)
    met.say(ready=True)
    threading.Event().wait()


def main() -> None:
    """Fork a service a line."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)    # nobody waits for them
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for line in sys.stdin:
        if os.fork() == 0:
            try:
                _child(json.loads(line))
            except BaseException:
                logging.exception('The service failed')
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == '__main__':
    main()
