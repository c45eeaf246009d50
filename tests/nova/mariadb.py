# SPDX-License-Identifier: Apache-2.0
"""A private MariaDB: Debian's server in a folder, reached by a socket file alone; or two of them
that both write, as Galera clusters do."""

import os
import shutil
import signal
import socket
import subprocess
import time
from urllib import parse

import pymysql

_START_S = 60


class Server:
    """Runs from `start` to `stop`.

    :param options: more of the server's
    """

    def __init__(self, folder, options=('--skip-log-bin',), env=None):
        self._folder = str(folder)
        self._socket = f'{folder}/s'
        self._options = options
        # One that starts removes the temporary tables that it finds there, were they another's.
        self._scratch = f'{folder}/tmp'
        self._env = os.environ | {'TMPDIR': self._scratch} | (env or {})
        self._process = None

    def start(self, *more):
        data = f'{self._folder}/data'
        os.makedirs(self._scratch, exist_ok=True)
        if not os.path.exists(data):
            subprocess.run(
                ['mariadb-install-db', '--no-defaults', '--user=root', f'--datadir={data}',
                 '--auth-root-authentication-method=normal', '--skip-test-db'],
                check=True, capture_output=True, env=self._env)
        with open(f'{self._folder}/log', 'wb') as log:
            self._process = subprocess.Popen(
                ['mariadbd', '--no-defaults', '--user=root', f'--datadir={data}',
                 f'--socket={self._socket}', '--skip-networking',
                 f'--pid-file={self._folder}/pid', '--innodb-buffer-pool-size=32M',
                 '--innodb-flush-method=nosync', '--performance-schema=0', *self._options,
                 *more], stdout=log, stderr=log, env=self._env)
        ends = time.monotonic() + _START_S
        while not self._answers():
            assert self._process.poll() is None, self._log()
            assert time.monotonic() < ends, self._log()
            time.sleep(0.1)

    def stop(self, how=signal.SIGKILL):
        if self._process:
            self._process.send_signal(how)
            self._process.wait(_START_S)

    def url(self, name):
        """SQLAlchemy's of a database that there is."""
        return f'mysql+pymysql://root@localhost/{name}?unix_socket={parse.quote(self._socket)}'

    def make(self, name):
        """SQLAlchemy's URL of a new database."""
        with self._connect() as connection, connection.cursor() as cursor:
            cursor.execute(f'CREATE DATABASE {name} CHARACTER SET utf8mb3')
        return self.url(name)

    def _connect(self):
        return pymysql.connect(user='root', unix_socket=self._socket, autocommit=True)

    def _answers(self):
        try:
            with self._connect() as connection, connection.cursor() as cursor:
                cursor.execute('SELECT 1 FROM mysql.user')    # a member of no group refuses it
        except pymysql.MySQLError:
            return False
        return True

    def _log(self):
        with open(f'{self._folder}/log', errors='replace') as log:
            return log.read()[-3000:]


#: The joiner has a copy of the donor's folder; what came after it is in the donor's memory.
_TRANSFER = """#!/bin/sh
while [ $# -gt 0 ]; do
  case $1 in --role) role=$2 ;; --gtid) state=$2 ;; esac
  shift
done
note=$(dirname "$0")/state
if [ "$role" = donor ]; then
  echo "$state" > "$note.new" && mv "$note.new" "$note" && echo "done $state"
else
  echo "ready 127.0.0.1:1/copied"
  until [ -e "$note" ]; do sleep 0.1; done
  cat "$note"
fi
"""


class Pair:
    """Two servers of one Galera cluster, on loopback; both take writes.

    :ivar servers: those
    """

    def __init__(self, folder):
        self._folder = folder
        os.makedirs(f'{folder}/bin')
        with open(os.open(f'{folder}/bin/wsrep_sst_copied', os.O_CREAT | os.O_WRONLY, 0o755),
                  'w') as script:
            script.write(_TRANSFER)
        ports = _free_ports(4)
        self._group = f'gcomm://127.0.0.1:{ports[0]}'
        self.servers = []
        for name, port, transfer in (('one', *ports[:2]), ('two', *ports[2:])):
            os.makedirs(f'{folder}/{name}')
            self.servers.append(Server(f'{folder}/{name}', (
                '--binlog-format=ROW', '--innodb-autoinc-lock-mode=2', '--wsrep-on=ON',
                '--wsrep-provider=/usr/lib/galera/libgalera_smm.so', '--wsrep-cluster-name=test',
                '--wsrep-sst-method=copied', f'--wsrep-node-address=127.0.0.1:{port}',
                f'--wsrep-provider-options=base_port={port};gcache.size=16M;'
                f'ist.recv_addr=127.0.0.1:{transfer}'),
                {'PATH': f'{folder}/bin:{os.environ["PATH"]}'}))

    def start(self):
        first, second = self.servers
        alone = '--wsrep-new-cluster', '--wsrep-cluster-address=gcomm://'
        first.start(*alone)
        first.stop(signal.SIGTERM)
        shutil.copytree(f'{self._folder}/one/data', f'{self._folder}/two/data')
        first.start(*alone)
        second.start(f'--wsrep-cluster-address={self._group}')

    def stop(self):
        for each in self.servers:
            each.stop()


def _free_ports(count):
    bound = [socket.create_server(('127.0.0.1', 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in bound]
    for each in bound:
        each.close()
    return ports
