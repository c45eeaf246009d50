# SPDX-License-Identifier: Apache-2.0
"""Debian's RabbitMQ on private ports, in a private folder: how to start it."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

SERVER = '/usr/lib/rabbitmq/bin/rabbitmq-server'
_START_S = 120


def environment(folder: pathlib.Path, *, port: int, peers_port: int, epmd_port: int, user: str,
                password: str) -> dict[str, str]:
    """Variables for ``SERVER``, whose files go to the folder; made ready, nothing started.

    epmd must listen on its port before.
    """
    for name in ('home', 'mnesia', 'log'):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / 'rabbitmq.conf').write_text(
        f'listeners.tcp.1 = 127.0.0.1:{port}\ndefault_user = {user}\n'
        f'default_pass = {password}\ndisk_free_limit.absolute = 50MB\n')
    (folder / 'plugins').write_text('[].\n')
    return {
        'HOME': f'{folder}/home',
        'RABBITMQ_NODENAME': f'hotsnap{port}@localhost',
        'RABBITMQ_MNESIA_BASE': f'{folder}/mnesia',
        'RABBITMQ_LOG_BASE': f'{folder}/log',
        'RABBITMQ_PID_FILE': f'{folder}/pid',
        'RABBITMQ_CONFIG_FILE': f'{folder}/rabbitmq.conf',
        'RABBITMQ_CONF_ENV_FILE': os.devnull,
        'RABBITMQ_ENABLED_PLUGINS_FILE': f'{folder}/plugins',
        'RABBITMQ_DIST_PORT': str(peers_port),
        'ERL_EPMD_ADDRESS': '127.0.0.1', 'ERL_EPMD_PORT': str(epmd_port),
        'RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS':
            '-kernel inet_dist_use_interface {127,0,0,1} '
            '+sbwt none +sbwtdcpu none +sbwtdio none +S 2:2'}


def _free_ports(count):
    sockets = [socket.create_server(('127.0.0.1', 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Broker:
    """One private RabbitMQ node and the epmd it needs, in a folder."""

    def __init__(self, folder):
        self.port, peers_port, self._epmd_port = _free_ports(3)
        self._folder = folder
        self._environment = environment(
            folder, port=self.port, peers_port=peers_port, epmd_port=self._epmd_port,
            user='hotsnap', password='hotsnap')
        self._epmd = None
        self._node = None

    @property
    def url(self):
        return f'rabbit://hotsnap:hotsnap@127.0.0.1:{self.port}/'

    def start(self) -> None:
        """Return when it serves."""
        epmd = shutil.which('epmd')
        assert epmd, 'erlang-base has it'
        self._epmd = subprocess.Popen(
            [epmd, '-port', str(self._epmd_port), '-address', '127.0.0.1'])
        with open(self._folder / 'log' / 'out', 'ab') as log:
            self._node = subprocess.Popen([SERVER], stdout=log, stderr=log,
                                          start_new_session=True,
                                          env=os.environ | self._environment)
        ends = time.monotonic() + _START_S
        while True:
            try:
                # The port opens when the node is ready to serve.
                with socket.create_connection(('127.0.0.1', self.port), 1):
                    return
            except OSError:
                assert self._node.poll() is None, self.log()
                assert time.monotonic() < ends, self.log()
                time.sleep(0.2)

    def stop(self) -> None:
        """End it as it is; its files stay."""
        for process in (self._node, self._epmd):
            if process and process.poll() is None:
                if process is self._node:
                    os.killpg(process.pid, signal.SIGKILL)
                else:
                    process.kill()
                process.wait()

    def log(self):
        with open(self._folder / 'log' / 'out', errors='replace') as log:
            return log.read()[-3000:]
