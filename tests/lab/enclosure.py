# SPDX-License-Identifier: Apache-2.0
"""A libvirtd of one's own, in namespaces of its own.

Mount, network, UTS and PID namespaces: the system's libvirt, its folders and
its network see nothing of it, and the end of the first process inside is the
end of all of them. Mounts made outside later are seen inside.
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import libvirt

PREFIX = 'hslab-'
RECORD = 'processes.json'        # who owns a lab and what ends it, first the owner
_START_TIMEOUT_S = 60
_SOCKET_PATH_BYTES = 107
QEMU_CONF = '''
stdio_handler = "file"
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
'''
LIBVIRTD_CONF = '''
auth_unix_rw = "none"
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
'''


class EnclosureError(Exception):
    """The lab cannot be started here; the message says why."""


def labs_folder() -> pathlib.Path:
    """Where labs live; short, because a socket's path has 107 characters."""
    return pathlib.Path(os.environ.get('HOTSNAP_LAB_DIR', '/tmp'))


def start_time(pid: int) -> int | None:
    """When a process started, in ticks since boot; None if there is none.

    With the PID it names one process for ever. A zombie counts as none.
    """
    try:
        stat = pathlib.Path(f'/proc/{pid}/stat').read_text()
    except OSError:
        return None
    fields = stat.rpartition(')')[2].split()
    return None if fields[0] in 'ZX' else int(fields[19])


def works(connection: libvirt.virConnect | None) -> bool:
    """Whether its libvirtd answers; that it is alive says nothing of one that nobody used."""
    try:
        return connection is not None and connection.getLibVersion() > 0
    except libvirt.libvirtError:
        return False


class Enclosure:
    """One running private libvirtd.

    :raises EnclosureError: not root, or a part is missing
    """

    def __init__(self, neighbour: 'Enclosure | None' = None):
        """Return once libvirtd answers.

        :param neighbour: share this one's network, nothing else
        """
        if os.geteuid():
            raise EnclosureError('the lab makes namespaces and needs root')
        for program in ('unshare', 'nsenter', 'ip', 'libvirtd', 'qemu-system-x86_64'):
            if not shutil.which(program):
                raise EnclosureError(f'{program} is not installed')
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=PREFIX, dir=labs_folder()))
        self.id = self.folder.name.removeprefix(PREFIX)
        self.socket = self.folder / 'run/libvirt/libvirt-sock'
        self.uri = f'qemu+unix:///system?socket={self.socket}'
        if len(os.fsencode(self.socket)) > _SOCKET_PATH_BYTES:
            self.folder.rmdir()
            raise EnclosureError(f'{self.socket} is too long for a socket')
        self._owner_pid = os.getpid()
        for name in ('run', 'etc/qemu', 'lib', 'cache', 'log', 'guests'):
            (self.folder / name).mkdir(parents=True)
        self.folder.chmod(0o755)
        (self.folder / 'etc/qemu.conf').write_text(QEMU_CONF)
        (self.folder / 'etc/libvirtd.conf').write_text(LIBVIRTD_CONF)
        # Errors arrive as exceptions; by default libvirt prints them as well.
        libvirt.registerErrorHandler(lambda *_: None, None)
        self._connection: libvirt.virConnect | None = None
        alive_read, self._alive = os.pipe()
        inner = pathlib.Path(__file__).with_name('enclosure_init.py')
        network = ['unshare', '--net']
        if neighbour is not None:
            network = ['nsenter', f'--net=/proc/{neighbour.init_pid}/ns/net']
        with open(self.folder / 'log/enclosure.log', 'ab') as log:
            self._outer = subprocess.Popen(
                [*network, 'unshare', '--mount', '--uts', '--pid', '--fork', '--kill-child',
                 '--mount-proc', '--propagation', 'slave', '--',
                 sys.executable, '-I', str(inner), str(self.folder), str(alive_read)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[alive_read],
                start_new_session=True)
        os.close(alive_read)
        self._record_owner()
        try:
            self.wait_until_answering()
        except BaseException:
            self.close()
            raise

    @property
    def connection(self) -> libvirt.virConnect:
        """A connection that works; a new one where libvirtd was restarted."""
        if not works(self._connection):
            self._connection = libvirt.open(self.uri)
        return self._connection

    @property
    def daemon_pid(self) -> int | None:
        """libvirtd's process, by its number outside; it is restarted when it ends."""
        try:
            return self.outside_pid(int((self.folder / 'run/libvirtd.pid').read_text()))
        except (FileNotFoundError, ValueError):
            return None

    @property
    def init_pid(self) -> int:
        """The first process inside, by its number outside."""
        pid = self._outer.pid
        children = pathlib.Path(f'/proc/{pid}/task/{pid}/children').read_text().split()
        if not children:
            raise EnclosureError(f'the lab has ended; see {self.folder}/log')
        return int(children[0])

    def run_inside(self, *command: str) -> str:
        """The output of a command run in the lab's namespaces."""
        done = subprocess.run(
            ['nsenter', '-t', str(self.init_pid), '--mount', '--net', '--uts', '--pid', '--',
             *command], capture_output=True, text=True, check=False)
        if done.returncode:
            raise EnclosureError(f'{" ".join(command)}: {done.stderr.strip()}')
        return done.stdout

    def outside_pid(self, inside_pid: int) -> int | None:
        """The number here of a process inside, or None if there is none."""
        namespace = os.stat(f'/proc/{self.init_pid}/ns/pid').st_ino
        for entry in pathlib.Path('/proc').glob('[0-9]*'):
            try:
                if os.stat(entry / 'ns/pid').st_ino != namespace:
                    continue
                status = (entry / 'status').read_text()
            except OSError:
                continue
            numbers = next(line for line in status.splitlines() if line.startswith('NSpid:'))
            if int(numbers.split()[-1]) == inside_pid:
                return int(entry.name)
        return None

    def qemu_pid(self, name: str) -> int | None:
        """The number here of the QEMU of a domain, or None where it does not run."""
        try:
            return self.outside_pid(
                int((self.folder / f'run/libvirt/qemu/{name}.pid').read_text()))
        except FileNotFoundError:
            return None

    def kill9_daemon(self) -> None:
        """Kill libvirtd and return when another answers in its place."""
        pid = self.daemon_pid
        if pid is None:
            raise EnclosureError('libvirtd does not run')
        began = start_time(pid)
        os.kill(pid, signal.SIGKILL)
        while start_time(pid) == began:
            time.sleep(0.01)
        self.wait_until_answering()

    def close(self, keep_files: bool = False) -> None:
        """End every process inside and remove the folder; safe to repeat."""
        if os.getpid() != self._owner_pid:
            return                       # a forked child must not end its parent's lab
        self._connection = None
        if self._alive >= 0:
            os.close(self._alive)
            self._alive = -1
        try:
            self._outer.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._outer.kill()           # takes its child, the first process, with it
            self._outer.wait()
        if not keep_files:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _record_owner(self) -> None:
        pids = (os.getpid(), self._outer.pid)
        record = [{'pid': pid, 'start': start_time(pid)} for pid in pids]
        (self.folder / RECORD).write_text(json.dumps(record))

    def wait_until_answering(self) -> None:
        """Return when libvirtd does, also after it was killed.

        :raises EnclosureError: it does not
        """
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._outer.poll() is not None:
                break
            if self.socket.exists():
                try:
                    self._connection = libvirt.open(self.uri)
                    return
                except libvirt.libvirtError:
                    pass
            time.sleep(0.05)
        log = (self.folder / 'log/enclosure.log').read_text(errors='replace')
        raise EnclosureError(f'libvirtd did not start: {log.strip() or "no message"}')
