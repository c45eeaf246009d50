# SPDX-License-Identifier: Apache-2.0
"""What one cloud is made of: its folder, names, ports and passwords, kept in its state file."""

import dataclasses
import hashlib
import json
import os
import pathlib
import random
import secrets
import socket
import stat
import sys

from tests.cloud.processes import CloudError

FOLDER_VARIABLE = 'HOTSNAP_CLOUD_DIR'
_STATE = 'state.json'
_PORTS = ('database', 'broker', 'broker-peers', 'epmd', 'keystone', 'glance', 'placement',
          'neutron', 'nova', 'libvirt')
_USERS = ('admin', 'demo', 'database', 'broker', 'glance', 'placement', 'neutron', 'nova')
#: Below what kernels hand to outgoing connections, so that none of these takes a port of ours.
_PORT_RANGE = range(20000, 32000)
_CONSOLES = range(10000, 20000)
_CONSOLES_A_HOST = 50
_CLOUDS = len(_CONSOLES) // (2 * _CONSOLES_A_HOST)
_SOCKET_PATH_BYTES = 107
_LONGEST_SOCKET = 'hosts/a/run/libvirt/virtqemud-admin-sock.mon'


def default_folder() -> pathlib.Path:
    return pathlib.Path(os.environ.get(FOLDER_VARIABLE, '/tmp/hscloud')).absolute()


@dataclasses.dataclass(frozen=True)
class Settings:
    """One cloud's.

    :ivar stock: Nova as it comes, nothing of ours in it
    :ivar checkout: whose code it runs
    """

    folder: pathlib.Path
    stock: bool
    ports: dict[str, int]
    passwords: dict[str, str]
    checkout: str = sys.prefix

    @property
    def logs(self) -> pathlib.Path:
        return self.folder / 'log'

    @property
    def control(self) -> pathlib.Path:
        return self.folder / 'run/control'

    @property
    def hosts(self) -> tuple[str, ...]:
        """The compute hosts' names; each host's network link has the same."""
        digest = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:4]
        return tuple(f'hs{digest}-{letter}' for letter in 'ab')

    def console_ports(self, host: str) -> str:
        """Those of a host's serial consoles: Nova thinks that it has the machine for itself."""
        digest = hashlib.sha256(os.fsencode(self.folder)).digest()
        first = (_CONSOLES.start + digest[0] % _CLOUDS * 2 * _CONSOLES_A_HOST
                 + self.hosts.index(host) * _CONSOLES_A_HOST)
        return f'{first}:{first + _CONSOLES_A_HOST - 1}'

    def host_folder(self, host: str) -> pathlib.Path:
        return self.folder / 'hosts' / host[-1]

    def etc(self, service: str) -> pathlib.Path:
        return self.folder / 'etc' / service

    def url(self, service: str) -> str:
        return f'http://127.0.0.1:{self.ports[service]}'

    @property
    def keystone_url(self) -> str:
        return self.url('keystone') + '/v3'

    @property
    def broker_url(self) -> str:
        return f'rabbit://cloud:{self.passwords["broker"]}@127.0.0.1:{self.ports["broker"]}/'

    def database_url(self, name: str) -> str:
        return (f'mysql+pymysql://cloud:{self.passwords["database"]}@127.0.0.1:'
                f'{self.ports["database"]}/{name}?charset=utf8')

    def save(self) -> None:
        fields = dataclasses.asdict(self) | {'folder': str(self.folder)}
        (self.folder / _STATE).write_text(json.dumps(fields, indent=1))


def make(folder: pathlib.Path, stock: bool) -> Settings:
    """Those of a new cloud, and its empty folder.

    :raises CloudError: the folder cannot be ours
    """
    if len(os.fsencode(folder / _LONGEST_SOCKET)) > _SOCKET_PATH_BYTES:
        raise CloudError(f'{folder} is too long for sockets below it; '
                         'name another by HOTSNAP_CLOUD_DIR')
    try:
        folder.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        raise CloudError(f'{folder} is there but no cloud; '
                         'remove it or name another by HOTSNAP_CLOUD_DIR') from None
    settings = Settings(folder, stock, _free_ports(),
                        {user: secrets.token_hex(12) for user in _USERS})
    settings.save()
    for name in ('run', 'log', 'etc', 'lock', 'hosts'):
        (folder / name).mkdir()
    return settings


def load(folder: pathlib.Path) -> Settings | None:
    """Those of the cloud in this folder; None if there is none.

    :raises CloudError: it is not ours to read
    """
    try:
        owner = folder.lstat()
        fields = json.loads((folder / _STATE).read_text())
    except FileNotFoundError:
        return None
    except (NotADirectoryError, PermissionError, ValueError) as exc:
        raise CloudError(f'{folder} has no state to be read: {exc}') from exc
    if not stat.S_ISDIR(owner.st_mode) or owner.st_uid != os.geteuid():
        raise CloudError(f'{folder} belongs to another user')
    return Settings(**fields | {'folder': folder})


def _free_ports() -> dict[str, int]:
    held: dict[str, socket.socket] = {}
    candidates = iter(random.sample(_PORT_RANGE, k=200))
    try:
        for name in _PORTS:
            while name not in held:
                one = socket.socket()
                try:
                    one.bind(('127.0.0.1', next(candidates)))
                except OSError:
                    one.close()
                else:
                    held[name] = one
        return {name: one.getsockname()[1] for name, one in held.items()}
    finally:
        for one in held.values():
            one.close()
