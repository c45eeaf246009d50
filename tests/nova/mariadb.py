# SPDX-License-Identifier: Apache-2.0
"""A private MariaDB: Debian's server in a folder, reached by a socket file alone."""

import subprocess
import time
from urllib import parse

import pymysql

_START_S = 60


class Server:
    """Runs from `start` to `stop`."""

    def __init__(self, folder):
        self._folder = folder
        self._socket = f'{folder}/s'
        self._process = None

    def start(self):
        data = f'{self._folder}/data'
        subprocess.run(
            ['mariadb-install-db', '--no-defaults', '--user=root', f'--datadir={data}',
             '--auth-root-authentication-method=normal', '--skip-test-db'],
            check=True, capture_output=True)
        with open(f'{self._folder}/log', 'wb') as log:
            self._process = subprocess.Popen(
                ['mariadbd', '--no-defaults', '--user=root', f'--datadir={data}',
                 f'--socket={self._socket}', '--skip-networking', '--skip-log-bin',
                 f'--pid-file={self._folder}/pid', '--innodb-buffer-pool-size=32M',
                 '--innodb-flush-method=nosync', '--performance-schema=0'],
                stdout=log, stderr=log)
        ends = time.monotonic() + _START_S
        while not self._answers():
            assert self._process.poll() is None, self._log()
            assert time.monotonic() < ends, self._log()
            time.sleep(0.1)

    def stop(self):
        if self._process:
            self._process.kill()
            self._process.wait()

    def make(self, name):
        """SQLAlchemy's URL of a new database."""
        with self._connect() as connection, connection.cursor() as cursor:
            cursor.execute(f'CREATE DATABASE {name} CHARACTER SET utf8mb3')
        return f'mysql+pymysql://root@localhost/{name}?unix_socket={parse.quote(self._socket)}'

    def _connect(self):
        return pymysql.connect(user='root', unix_socket=self._socket, autocommit=True)

    def _answers(self):
        try:
            self._connect().close()
        except pymysql.MySQLError:
            return False
        return True

    def _log(self):
        with open(f'{self._folder}/log', errors='replace') as log:
            return log.read()[-3000:]
