# SPDX-License-Identifier: Apache-2.0
"""Where frozen disks are written, kept at arm's length from the guests.

QEMU opens no file of ours: it writes through NBD, over a descriptor it is
handed, to a ``qemu-storage-daemon`` that owns the images::

    QEMU ── socket pair ── relay (this process) ── qemu-storage-daemon ── files

Why the relay: a drain in QEMU (a guest resetting its disk, a filter being
removed) waits for all writes to a target. Where the target hangs, the guest
would hang with it. A relay touches no file, so it can always close QEMU's end;
QEMU then fails those writes at once, and a copy-before-write filter with
``break-snapshot`` breaks the snapshot and nothing else. (Closing the *daemon's*
end does not do: a process stuck on a dead file system keeps its sockets; nor
does shutting down QEMU's own end, which QEMU 10.0 does not notice while it
waits to send.) If this process dies, the relay dies with it: the same end.

QEMU negotiates under its big lock, with the guest standing. So it is given a
link only once the daemon has greeted us, and while it negotiates a daemon that
does not answer is given up much sooner.
"""

import contextlib
import glob
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from oslo_log import log

from hotsnap_nova import exception
from hotsnap_nova.virt.disks import confined

LOG = log.getLogger(__name__)

_START_LIMIT_S = 30.0
#: NBD's greeting: two magic numbers and flags.
_GREETING_BYTES = 18
#: Folders of sockets, below the temporary one, are called so; the process's id follows.
_FOLDER = 'hotsnap-nbd-'
#: What tells the guardian who it is, and then becomes what its arguments say, with few rights.
_CONFINED = (sys.executable, '-I', '-S', confined.__file__)
#: What of that this host has not, as far as it has been said.
_said: set[str] = set()


class StorageDaemon:
    """One ``qemu-storage-daemon`` that exports fresh qcow2 images.

    :param images: export name → (path, virtual size in bytes); the files are
        made here and must not exist
    :param guardian: where its guardian listens. The daemon itself says who it is before it is
        one: whoever starts it may die at any instant. None: nobody is told
    :param direct: write past the page cache
    :raises exception.TargetFailed: an image could not be made
    """

    def __init__(self, images: dict[str, tuple[str, int]], guardian: int | None = None, *,
                 direct: bool = False):
        arguments = []
        cache = ',cache.direct=on' if direct else ''
        for index, (name, (path, size)) in enumerate(images.items()):
            _create(path, size)
            arguments += [
                '--blockdev', f'driver=file,node-name=f{index},discard=unmap{cache},'
                              f'filename={path.replace(",", ",,")}',
                '--blockdev', f'driver=qcow2,node-name=d{index},file=f{index},discard=unmap,'
                              'detect-zeroes=unmap,cache-size=4194304',
                '--export', f'type=nbd,id=e{index},node-name=d{index},name={name},writable=on']
        self._listener = socket.socket(socket.AF_UNIX)
        # Whoever reaches this socket can read and write a guest's disk: a folder
        # that is only ours, for as long as it takes to connect.
        self._folder = _make_folder()
        self._listener.bind(f'{self._folder}/nbd')
        self._listener.listen(len(images) + 1)
        self._to_connect = len(images)
        self._log = os.memfd_create('storage-daemon', os.MFD_CLOEXEC)
        fd = self._listener.fileno()
        self._process = subprocess.Popen(
            [*_CONFINED, json.dumps({'tell': guardian is not None, 'files': [
                os.path.realpath(path) for path, _size in images.values()]}),
             'qemu-storage-daemon', '--nbd-server',
             f'addr.type=fd,addr.str={fd},max-connections={len(images)}', *arguments],
            pass_fds=[fd], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if guardian is None else guardian,
            stderr=self._log, start_new_session=True)
        self.pid = self._process.pid

    def connect(self) -> tuple[socket.socket, bytes]:
        """A connection, one an image, and the greeting that came over it.

        :raises OSError: the daemon ended, or said nothing
        """
        client = socket.socket(socket.AF_UNIX)
        greeting = b''
        try:
            client.settimeout(0.25)
            client.connect(self._listener.getsockname())
            deadline = time.monotonic() + _START_LIMIT_S
            while len(greeting) < _GREETING_BYTES:
                with contextlib.suppress(TimeoutError):
                    greeting += client.recv(_GREETING_BYTES - len(greeting))
                if self._process.poll() is not None:
                    raise OSError(f'the storage daemon ended: {self._last_words()}')
                if time.monotonic() > deadline:
                    raise OSError('the storage daemon does not answer')
        except BaseException:
            client.close()
            raise
        self._say_what_there_is_not()
        self._to_connect -= 1
        if not self._to_connect:
            self._stop_listening()
        return client, greeting

    def close(self, still=None) -> bool:
        """Whether it ended in order, its images flushed; it is gone in any case.

        (A process stuck in the kernel on a dead file system goes when the
        kernel lets it.)

        :param still: asked five times a second whether to go on waiting for a
            large flush; None: wait for ten seconds
        """
        self._stop_listening()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 10.0
        while self._process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.2)
            if not still() if still else time.monotonic() > deadline:
                self._process.kill()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(1)
                break
        # Two threads may come here: the number is taken before it is used.
        log, self._log = self._log, -1
        if log >= 0:
            os.close(log)
        return self._process.returncode == 0

    def _stop_listening(self) -> None:
        self._listener.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _say_what_there_is_not(self) -> None:
        for line in self._words():
            if line.startswith(confined.WITHOUT) and line not in _said:
                _said.add(line)
                LOG.warning('What guests write their snapshots to is %s', line)

    def _words(self) -> list[str]:
        return os.pread(self._log, 4096, 0).decode(errors='replace').strip().splitlines()

    def _last_words(self) -> str:
        lines = self._words()
        return lines[-1] if lines else f'status {self._process.returncode}'


def _make_folder() -> str:
    """A folder that only we can look into; those of processes that died are removed."""
    for path in glob.glob(os.path.join(tempfile.gettempdir(), f'{_FOLDER}*')):
        process = os.path.basename(path).removeprefix(_FOLDER).partition('-')[0]
        if not os.path.exists(f'/proc/{process}'):
            shutil.rmtree(path, ignore_errors=True)
    return tempfile.mkdtemp(prefix=f'{_FOLDER}{os.getpid()}-')


def _create(path: str, size: int) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    made = subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', path, str(size)],
                          capture_output=True, text=True, check=False)
    if made.returncode:
        raise exception.TargetFailed(
            member=os.path.basename(os.path.dirname(path)), device=os.path.basename(path),
            reason=made.stderr.strip().splitlines()[-1] if made.stderr else 'qemu-img failed')
