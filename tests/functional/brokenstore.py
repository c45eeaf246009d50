# SPDX-License-Identifier: Apache-2.0
"""A folder whose file system breaks when told to: full, failing or hanging.

A FUSE file system in a mount namespace of its own, over an ordinary folder. The
kernel treats it as any other, with the worst of all: a process whose request is
in its hands cannot even be killed. It ends with the process that made it, and
what is stuck in it then fails.

As a program: ``python -m tests.functional.brokenstore BACKING MOUNTPOINT ORDER``
"""

import contextlib
import errno
import os
import pathlib
import subprocess
import sys
import threading
import time

import mfusepy

_MOUNT_TIMEOUT_S = 20


class BrokenStore:
    """See the module's words; a context manager.

    :param folder: an empty one for everything
    """

    def __init__(self, folder: pathlib.Path):
        self.path = folder / 'mounted'
        self._backing = folder / 'backing'
        self._order = folder / 'order'
        for made in (self.path, self._backing):
            made.mkdir(parents=True)
        self.obey('ok')
        self._server = subprocess.Popen(
            ['unshare', '--mount', '--propagation', 'private', '--kill-child', '--fork', '--',
             sys.executable, '-m', 'tests.functional.brokenstore', self._backing, self.path,
             self._order], stdout=subprocess.PIPE, stdin=subprocess.PIPE)
        deadline = time.monotonic() + _MOUNT_TIMEOUT_S
        while not self._inner_pid() or not self._seen_inside('').is_mount():
            if self._server.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise RuntimeError('the FUSE file system could not be mounted')
            time.sleep(0.02)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    @property
    def enter(self) -> list[str]:
        """The beginning of a command line whose process sees it."""
        return ['nsenter', '-t', str(self._inner_pid()), '--mount', '--']

    def obey(self, fault: str, files: str = '', after_bytes: int = 0) -> None:
        """From now on writing shows ``fault``: ok, full, failing or hanging.

        :param files: only in files whose path ends so; a hang of '*' stops everything
        :param after_bytes: once so much was written to such files
        """
        aside = self._order.with_suffix('.new')
        aside.write_text(f'{fault}\n{files}\n{after_bytes}')
        aside.replace(self._order)

    def faults(self) -> int:
        """How many requests have met the fault so far."""
        try:
            return self._order.with_suffix('.met').stat().st_size
        except FileNotFoundError:
            return 0

    def contents(self) -> list[str]:
        """Paths of all files, also those in hidden folders, but for the store's lock."""
        return sorted(str(path.relative_to(self._backing)) for path in self._backing.rglob('*')
                      if path.is_file() and path.name != '.lock')

    def close(self) -> None:
        """End it; whoever is stuck in it gets an error."""
        with contextlib.suppress(OSError):
            self._server.stdin.close()
        self.obey('ok')
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._server.wait(5)
        self._server.kill()
        self._server.wait()
        self._server.stdout.close()

    def _inner_pid(self) -> int | None:
        pid = self._server.pid
        with contextlib.suppress(OSError):
            children = pathlib.Path(f'/proc/{pid}/task/{pid}/children').read_text().split()
            return int(children[0]) if children else None

    def _seen_inside(self, name: str) -> pathlib.Path:
        return pathlib.Path(f'/proc/{self._inner_pid()}/root{self.path}/{name}')


class _Faulty(mfusepy.Operations):
    """Another folder's contents, and the faults ordered."""

    use_ns = True
    # Operations on open files take no path, so libfuse locks none for them: a write that
    # hangs then keeps nobody from renaming its folder.
    flag_nopath = flag_nullpath_ok = True

    def __init__(self, backing: str, order: str):
        self._names: dict[int, str] = {}
        self._backing = backing
        self._order = order
        self._met = os.open(f'{order}.met', os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._written: dict[int, int] = {}
        self._mutex = threading.Lock()

    def _place(self, path: str) -> str:
        """Where a path's contents are; everything asks it, so here everything may hang."""
        self._meet(path, everything=True)
        return self._backing + path

    def _meet(self, path: str, count: int = 0, everything: bool = False) -> None:
        """Show the fault, if one is ordered for this path, by returning late or raising."""
        noted = False
        while True:
            with open(self._order) as order:
                fault, files, after = order.read().split('\n')
                number = os.fstat(order.fileno()).st_mtime_ns
            if fault == 'ok' or not (files == '*' or (not everything and path.endswith(files))):
                return
            with self._mutex:
                self._written[number] = self._written.get(number, 0) + count
                count = 0
                if self._written[number] <= int(after):
                    return
            if not noted:
                noted = True
                os.write(self._met, b'.')
            if fault == 'full':
                raise OSError(errno.ENOSPC, '')
            if fault == 'failing':
                raise OSError(errno.EIO, '')
            time.sleep(0.05)

    # -- writing: where faults show ---------------------------------------------

    def write(self, path, data, offset, fh):
        self._meet(self._names[fh], len(data))
        return os.pwrite(fh, data, offset)

    def fsync(self, path, datasync, fh):
        self._meet(self._names[fh])
        return os.fdatasync(fh) if datasync else os.fsync(fh)

    # -- everything else --------------------------------------------------------

    def getattr(self, path, fh=None):
        status = os.fstat(fh) if path is None else os.lstat(self._place(path))
        times = {f'st_{which}time': getattr(status, f'st_{which}time_ns') for which in 'acm'}
        return times | {key: getattr(status, key) for key in (
            'st_gid', 'st_mode', 'st_nlink', 'st_size', 'st_uid', 'st_blocks')}

    def statfs(self, path):
        status = os.statvfs(self._place(path))
        return {key: getattr(status, key) for key in (
            'f_bavail', 'f_bfree', 'f_blocks', 'f_bsize', 'f_favail', 'f_ffree', 'f_files',
            'f_flag', 'f_frsize', 'f_namemax')}

    def readdir(self, path, fh):
        return ['.', '..', *os.listdir(fh)]

    def opendir(self, path):
        return os.open(self._place(path), os.O_RDONLY | os.O_DIRECTORY)

    def releasedir(self, path, fh):
        os.close(fh)

    def create(self, path, mode, fi=None):
        return self._named(os.open(self._place(path), os.O_RDWR | os.O_CREAT | os.O_TRUNC, mode),
                           path)

    def open(self, path, flags):
        return self._named(os.open(self._place(path), flags & ~(os.O_DIRECT | os.O_APPEND)), path)

    def _named(self, fh, path):
        self._names[fh] = path
        return fh

    def read(self, path, size, offset, fh):
        return os.pread(fh, size, offset)

    def truncate(self, path, length, fh=None):
        os.truncate(self._place(path), length)

    def flush(self, path, fh):
        return 0

    def release(self, path, fh):
        del self._names[fh]
        os.close(fh)

    def rename(self, old, new):
        os.rename(self._place(old), self._place(new))

    def unlink(self, path):
        os.unlink(self._place(path))

    def mkdir(self, path, mode):
        os.mkdir(self._place(path), mode)

    def rmdir(self, path):
        os.rmdir(self._place(path))

    def chmod(self, path, mode):
        os.chmod(self._place(path), mode)

    def chown(self, path, uid, gid):
        os.chown(self._place(path), uid, gid)

    def utimens(self, path, times=None):
        os.utime(self._place(path), ns=times)


class _Mount(mfusepy.FUSE):
    def truncate_fuse_3(self, path, length, info):
        # The parent's forgets the open file, which is all there is where no path is.
        if path is None:
            os.truncate(info.contents.fh, length)
            return 0
        return super().truncate_fuse_3(path, length, info)


def _end_with_parent() -> None:
    os.read(0, 1)
    os._exit(0)


if __name__ == '__main__':
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _Mount(_Faulty(sys.argv[1], sys.argv[3]), sys.argv[2],
           foreground=True, nothreads=False, hard_remove=True)
