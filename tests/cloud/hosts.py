# SPDX-License-Identifier: Apache-2.0
"""Compute hosts: namespaces of their own for mounts, name and processes, a libvirtd in each.

The network is the machine's, where links named like the hosts are. To end a
host's first process is to cut its power.
"""

import pathlib
import shutil
import signal

import libvirt

from tests.cloud import network
from tests.cloud import processes as supervised
from tests.cloud.services import Cloud
from tests.lab import enclosure

#: What libvirt would otherwise share with the system's own and the other host's.
_PRIVATE = {'run': '/run', 'etc': '/etc/libvirt', 'lib': '/var/lib/libvirt',
            'cache': '/var/cache/libvirt', 'log': '/var/log/libvirt'}


def start(cloud: Cloud, host: str) -> None:
    """The host with its libvirtd, answering."""
    folder = cloud.settings.host_folder(host)
    for name in ('run', 'etc/qemu', 'lib', 'cache', 'log'):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    (folder / 'etc/qemu.conf').write_text(enclosure.QEMU_CONF)
    (folder / 'etc/libvirtd.conf').write_text(
        enclosure.LIBVIRTD_CONF + (_over_tcp(cloud) if is_remote(cloud, host) else ''))
    power_on(cloud, host)


def power_on(cloud: Cloud, host: str) -> None:
    """Bring up a host whose folder is there, after ``power_off`` too."""
    folder = cloud.settings.host_folder(host)
    control = _control(cloud, host)
    control.unlink(missing_ok=True)
    binds = [f'--bind={folder / name}:{over}' for name, over in _PRIVATE.items()]
    cloud.processes.start(host, *supervised.command(control, f'--hostname={host}', *binds))
    inside = processes(cloud, host)
    inside.wait_until_answering()
    name = f'libvirtd-{host}'
    inside.start(name, 'libvirtd', '--pid-file', '/run/libvirtd.pid',
                 *(['--listen'] if is_remote(cloud, host) else []))
    inside.wait(name, 'no answer', lambda: Host(cloud, host).answers())


def power_off(cloud: Cloud, host: str) -> None:
    """End everything on the host at once; what is in memory alone goes with it."""
    cloud.processes.stop(host, signal.SIGKILL)
    network.unplug(cloud, host)
    for left in (cloud.settings.host_folder(host) / 'run').iterdir():
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink()


def processes(cloud: Cloud, host: str) -> supervised.Supervisor:
    """The supervisor of what runs on the host."""
    return supervised.Supervisor(_control(cloud, host), cloud.settings.host_folder(host),
                                 cloud.settings.logs)


def is_remote(cloud: Cloud, host: str) -> bool:
    """Whether Nova reaches its libvirtd over TCP, as Kolla-Ansible has it on all hosts."""
    return host == cloud.settings.hosts[-1]


def tcp_uri(cloud: Cloud) -> str:
    """Where Nova does."""
    return f'qemu+tcp://127.0.0.1:{cloud.settings.ports["libvirt"]}/system'


def uri(cloud: Cloud, host: str) -> str:
    """Where virsh finds the host's libvirtd, from outside."""
    return f'qemu+unix:///system?socket={_socket(cloud, host)}'


class Host:
    """One host as lab guests see theirs."""

    def __init__(self, cloud: Cloud, host: str):
        self.name = host
        self.folder = cloud.settings.host_folder(host)
        self._uri = uri(cloud, host)
        self._socket = _socket(cloud, host)
        self._connection: libvirt.virConnect | None = None
        libvirt.registerErrorHandler(lambda *_: None, None)

    @property
    def connection(self) -> libvirt.virConnect:
        """A connection that works; a new one where libvirtd was restarted."""
        if not enclosure.works(self._connection):
            self._connection = libvirt.open(self._uri)
        return self._connection

    def answers(self) -> bool:
        """Whether its libvirtd does."""
        try:
            return self._socket.exists() and enclosure.works(self.connection)
        except libvirt.libvirtError:
            return False


def _over_tcp(cloud):
    return f'''listen_tls = 0
listen_tcp = 1
listen_addr = "127.0.0.1"
tcp_port = "{cloud.settings.ports['libvirt']}"
auth_tcp = "none"
'''


def _control(cloud: Cloud, host: str) -> pathlib.Path:
    # Not below the host's /run, which is made anew with it.
    return cloud.settings.folder / 'run' / f'control-{host[-1]}'


def _socket(cloud: Cloud, host: str) -> pathlib.Path:
    return cloud.settings.host_folder(host) / 'run/libvirt/libvirt-sock'
