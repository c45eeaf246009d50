# SPDX-License-Identifier: Apache-2.0
"""MariaDB: one for all services, in the cloud's folder.

SQLite would not do: Neutron's migrations fail on it.
"""

import pathlib

import pymysql

from tests.cloud.services import Cloud

_NAMES = ('keystone', 'glance', 'placement', 'neutron', 'nova', 'nova_api', 'nova_cell0',
          'hotsnap')


def start(cloud: Cloud) -> None:
    """A running server with an empty database for each service."""
    settings = cloud.settings
    data = settings.folder / 'database'
    cloud.processes.run(
        'database-install', 'mariadb-install-db', '--no-defaults', '--user=root',
        f'--datadir={data}', '--auth-root-authentication-method=normal', '--skip-test-db',
        TMPDIR=str(_scratch(cloud)))
    start_again(cloud)
    with _connect(cloud) as connection, connection.cursor() as cursor:
        for name in _NAMES:
            cursor.execute(f'CREATE DATABASE {name} CHARACTER SET utf8mb3')
        cursor.execute("CREATE USER cloud@'127.0.0.1' IDENTIFIED BY %s",
                       (settings.passwords['database'],))
        cursor.execute("GRANT ALL ON *.* TO cloud@'127.0.0.1'")
        # Whoever may open the socket file is root already; whoever may open a port is not.
        cursor.execute("DROP USER IF EXISTS root@'127.0.0.1', root@'::1'")


def start_again(cloud: Cloud) -> None:
    """The server with what it kept; also after it was killed."""
    settings = cloud.settings
    data = settings.folder / 'database'
    cloud.processes.start(
        'database', 'mariadbd', '--no-defaults', '--user=root', f'--datadir={data}',
        f'--tmpdir={_scratch(cloud)}', f'--socket={_socket(cloud)}', f'--pid-file={data}/pid',
        '--bind-address=127.0.0.1', f'--port={settings.ports["database"]}', '--skip-name-resolve',
        '--max-connections=500',
        # What is committed survives the server's death; nothing here need survive the machine.
        '--skip-log-bin', '--innodb-flush-log-at-trx-commit=2',
        '--innodb-flush-method=nosync', '--innodb-buffer-pool-size=128M',
        '--performance-schema=0')
    cloud.processes.wait('database', 'no connection', lambda: _answers(cloud))


def query(cloud: Cloud, database: str, statement: str) -> list[tuple]:
    """Rows, as the database has them now."""
    with _connect(cloud, database) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())


def _scratch(cloud: Cloud) -> pathlib.Path:
    """Its own: one that starts removes the temporary tables that it finds, were they another's."""
    folder = cloud.settings.folder / 'tmp'
    folder.mkdir(exist_ok=True)
    return folder


def _socket(cloud: Cloud) -> str:
    return f'{cloud.settings.folder}/run/database.sock'


def _connect(cloud: Cloud, database: str | None = None) -> pymysql.Connection:
    return pymysql.connect(user='root', unix_socket=_socket(cloud), database=database,
                           autocommit=True)


def _answers(cloud: Cloud) -> bool:
    try:
        _connect(cloud).close()
    except pymysql.MySQLError:
        return False
    return True
