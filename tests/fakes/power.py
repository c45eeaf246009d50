# SPDX-License-Identifier: Apache-2.0
"""A disk that forgets, when the power goes, whatever was not synced to it."""

import itertools
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
        self._root = os.stat(self._folder).st_ino
        self._since: list[tuple[int, str, str]] = []    # (inode, name taken, name given)
        for path, _, files, fd in os.fwalk(self._folder):
            for name in files:
                self._keep_path(os.path.join(path, name))
            self._keep(fd)
        monkeypatch.setattr(os, 'fsync', self._fsync)
        monkeypatch.setattr(os, 'link', self._noted(os.link, lambda _path, new: ('', new)))
        monkeypatch.setattr(os, 'replace', self._noted(os.replace, lambda old, new: (old, new)))
        monkeypatch.setattr(os, 'unlink', self._noted(os.unlink, lambda old: (old, '')))

    def _noted(self, call, names):
        """The call, kept for `worlds`: the name it takes and the one it gives."""
        def do(*paths, **within):
            if within or any(os.path.dirname(path) != self._folder for path in paths):
                call(*paths, **within)
                return
            number = os.lstat(paths[0]).st_ino
            call(*paths)
            self._since.append((number, *map(os.path.basename, names(*paths))))
        return do

    def worlds(self):
        """What names the folder itself may be found to have after it, each with the inode: of
        what was done to names and not synced any part may be there, of a file that is new, too.
        """
        kept = self._names[self._root]
        new = [(os.lstat(os.path.join(self._folder, name)).st_ino, '', name)
               for name in os.listdir(self._folder)]
        done = [each for each in new if each[0] not in kept.values()] + self._since
        found = []
        for reached in itertools.product((False, True), repeat=len(done)):
            names = dict(kept)
            for number, taken, given in itertools.compress(done, reached):
                if names.get(taken) == number:
                    del names[taken]
                if given:
                    names[given] = number
            if names not in found:
                found.append(names)
        return found

    def lose_power(self, names=None):
        """Have the folder as it would be found after it.

        :param names: one of `worlds`; None: nothing is there but what was synced
        """
        root = self._root
        if names is not None:
            self._names[root] = names
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
            if number == self._root:
                self._since.clear()
        elif stat.S_ISREG(status.st_mode):
            self._contents[number] = _content(fd)

    def _make(self, folder, number):
        made = {}
        for name, inside in self._names.get(number, {}).items():
            path = os.path.join(folder, name)
            if stat.S_ISDIR(self._kinds.get(inside, 0)):
                os.mkdir(path, 0o700)
                self._make(path, inside)
            elif inside in made:
                os.link(made[inside], path)
            else:
                with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600),
                          'wb') as file:
                    file.write(self._contents.get(inside, b''))
                made[inside] = path


def _content(fd):
    with open(f'/proc/self/fd/{fd}', 'rb') as file:
        return file.read()
