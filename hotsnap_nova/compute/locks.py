# SPDX-License-Identifier: Apache-2.0
"""Locks between processes of one host, which the kernel releases when their holder dies.

A lock's file is removed with the lock: nothing of ours stays. Whoever opened
a file that was removed meanwhile notices, and tries again with the new one.
"""

import contextlib
import fcntl
import os
import threading
import time

_POLL_S = 0.01


class Locks:
    """Named locks in one folder; also exclude each other within this process.

    :param folder: made if it is not there; 0700
    :param prefix: of the names, where a folder is shared by what has nothing in common
    """

    def __init__(self, folder: str, prefix: str = ''):
        self._folder = folder
        self._prefix = prefix
        self._held: dict[str, int] = {}
        self._mutex = threading.Lock()
        os.makedirs(folder, mode=0o700, exist_ok=True)

    def take(self, name: str, wait_s: float = 0.0) -> bool:
        """Whether the lock is ours now; taking it twice is an error of the caller.

        :param wait_s: how long to wait for another holder
        """
        ends = time.monotonic() + wait_s
        while (fd := self._try(name)) is None:
            if time.monotonic() >= ends:
                return False
            time.sleep(_POLL_S)
        with self._mutex:
            self._held[name] = fd
        return True

    def holds(self, name: str) -> bool:
        """Whether this object took the lock."""
        with self._mutex:
            return name in self._held

    def release(self, name: str) -> None:
        """Let go of a lock; of one not held, nothing happens."""
        with self._mutex:
            fd = self._held.pop(name, None)
        if fd is not None:
            # Before closing: while it is held nobody else can lose by it.
            os.unlink(self._path(name))
            os.close(fd)

    def sweep(self) -> None:
        """Remove the files of locks that nobody has: their holders died, or the power went."""
        for file in os.listdir(self._folder):
            name = file.removeprefix(self._prefix).removesuffix('.lock')
            if file == os.path.basename(self._path(name)) and not self.holds(name) and (
                    self.take(name)):
                self.release(name)

    def release_all(self) -> None:
        """Let go as a dying process would."""
        for name in tuple(self._held):
            self.release(name)

    @contextlib.contextmanager
    def held(self, name: str, wait_s: float = 10.0):
        """Hold a lock for the block.

        :raises TimeoutError: somebody else kept it
        """
        if not self.take(name, wait_s):
            raise TimeoutError(f'lock {name} in {self._folder} is held by another process')
        try:
            yield
        finally:
            self.release(name)

    def _path(self, name):
        return os.path.join(self._folder, f'{self._prefix}{name}.lock')

    def _try(self, name):
        fd = os.open(self._path(name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW,
                     0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(fd), os.stat(self._path(name))):
                return fd
        except (BlockingIOError, FileNotFoundError):
            pass
        os.close(fd)
        return None
