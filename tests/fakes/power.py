# SPDX-License-Identifier: Apache-2.0
"""A disk that forgets, when the power goes, whatever was not synced to it."""

import os
import shutil
import stat


class Disk:
    """A folder tree, of which a file's content and a folder's names survive by `fsync` alone.

    :param folder: what is there already is on the disk
    """

    def __init__(self, folder, monkeypatch):
        self._folder = str(folder)
        self._contents: dict[int, bytes] = {}
        self._names: dict[int, dict[str, int]] = {}
        self._kinds: dict[int, int] = {}
        self._fds: dict[int, int] = {}    # held, or a number would come to mean another file
        self._sync = os.fsync
        for path, _, files, fd in os.fwalk(self._folder):
            for name in files:
                self._keep_path(os.path.join(path, name))
            self._keep(fd)
        monkeypatch.setattr(os, 'fsync', self._fsync)

    def lose_power(self):
        """Have the folder as it would be found after it."""
        root = os.stat(self._folder).st_ino
        for name in os.listdir(self._folder):
            path = os.path.join(self._folder, name)
            if os.path.isdir(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)
        self._make(self._folder, root)

    def close(self):
        for fd in self._fds.values():
            os.close(fd)

    def _fsync(self, fd):
        self._sync(fd)
        self._keep(fd if isinstance(fd, int) else fd.fileno())

    def _keep_path(self, path):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            self._keep(fd)
        finally:
            os.close(fd)

    def _keep(self, fd):
        status = os.fstat(fd)
        number = status.st_ino
        if number not in self._fds:
            self._fds[number] = os.dup(fd)
        self._kinds[number] = status.st_mode
        if stat.S_ISDIR(status.st_mode):
            names = {}
            for name in os.listdir(fd):
                found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                names[name] = found.st_ino
                self._kinds.setdefault(found.st_ino, found.st_mode)
            self._names[number] = names
        elif stat.S_ISREG(status.st_mode):
            self._contents[number] = _content(fd)

    def _make(self, folder, number):
        for name, inside in self._names.get(number, {}).items():
            path = os.path.join(folder, name)
            if stat.S_ISDIR(self._kinds[inside]):
                os.mkdir(path, 0o700)
                self._make(path, inside)
            else:
                with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600),
                          'wb') as file:
                    file.write(self._contents.get(inside, b''))


def _content(fd):
    with open(f'/proc/self/fd/{fd}', 'rb') as file:
        return file.read()
