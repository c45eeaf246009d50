# SPDX-License-Identifier: Apache-2.0
"""The production services, each in a process that stands still where it is told to.

``python -m tests.crash.process`` imports what they need and forks one for each line of JSON on
standard input: a service that starts as fast as it was killed. It ends with standard input.

Each service connects to the socket ``control`` and says ``{"name": …, "pid": …}``; then, a line
each::

    ◄ {"do": "tell"}                            every step is told from now on
    ◄ {"do": "stand", "word": …, "when": …}     it stands still there, once
    ◄ {"do": "go", "word": …, "when": …}        it goes on
    ◄ {"do": "hold", …, "until": word}          the same, until it has met that elsewhere
    ◄ {"do": "nothing"}                         all of that is over
    ► {"done": …}                               to each of these
    ► {"step": …, "when": …, "kind": …}         where it is: before or after which command
"""

import contextlib
import faulthandler
import functools
import json
import logging
import os
import pathlib
import signal
import socket
import sys
import threading
import time
import types

from oslo_config import cfg

from hotsnap_nova import conf as options
from hotsnap_nova import exception, rpc, runner
from hotsnap_nova.compute import endpoint, owner, server, service
from hotsnap_nova.conductor import membership, snapshots
from hotsnap_nova.conductor import service as coordinator
from hotsnap_nova.virt import host as engine
from tests.crash import steps

#: For so long a host may be away before it is left an errand.
_PATIENCE_S = 2.0


class Probe:
    """A service's end of the control socket.

    The socket's end is the end of the process: nothing outlives the run.
    """

    def __init__(self, control: str, name: str):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(control)
        self._lines = self._socket.makefile('r')
        self._saying = threading.Lock()
        self._wanted: dict[tuple[str, str], threading.Event] = {}
        self._standing: dict[tuple[str, str], threading.Event] = {}
        self._held: dict[str, tuple[str, str]] = {}    # where, by what ends it
        self._tells = False
        self.say(name=name, pid=os.getpid())
        threading.Thread(target=self._listen, daemon=True).start()

    def say(self, **words) -> None:
        with self._saying, contextlib.suppress(OSError):
            self._socket.sendall(json.dumps(words).encode() + b'\n')

    def around(self, execute):
        """The executor, met before and after."""
        def met(command):
            word = steps.word(command)
            self._meet(word, 'before', command)
            outcome = execute(command)
            self._meet(word, 'after', command)
            return outcome
        return met

    def _meet(self, word, when, command):
        goes_on = self._wanted.pop((word, when), None)
        if goes_on:
            self._standing[word, when] = goes_on
        if goes_on or (self._tells and word):
            self.say(step=word, when=when, kind=steps.name_of(type(command)))
        if when == 'after' and word in self._held:
            self._let_go(self._held.pop(word))
        if goes_on:
            goes_on.wait()

    def _let_go(self, place):
        goes_on = self._standing.pop(place, None) or self._wanted.pop(place, None)
        if goes_on:
            goes_on.set()

    def _listen(self):
        for line in self._lines:
            told = json.loads(line)
            place = told.get('word'), told.get('when')
            match told['do']:
                case 'tell':
                    self._tells = True
                case 'stand':
                    self._wanted[place] = threading.Event()
                case 'hold':
                    self._wanted[place] = threading.Event()
                    self._held[told['until']] = place
                case 'go':
                    self._let_go(place)
                case 'nothing':
                    self._tells = False
                    self._held.clear()
                    self._wanted.clear()
                    for goes_on in self._standing.values():
                        goes_on.set()
                    self._standing.clear()
            self.say(done=told['do'])
        os.kill(os.getpid(), signal.SIGKILL)


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
    probe = Probe(given['control'], given['name'])
    plain = runner.Runner

    class Met(plain):
        def __init__(self, machine, executors, *more, **named):
            super().__init__(machine, {kind: probe.around(execute)
                                       for kind, execute in executors.items()}, *more, **named)
    runner.Runner = Met
    settings = settings_of(given['settings'])
    transport = rpc.open_transport(cfg.CONF, given['url'])
    serve = _coordinate if given['kind'] == 'coordinator' else _serve_host
    serve(given, settings, transport)
    probe.say(ready=True)
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
