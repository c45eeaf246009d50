# SPDX-License-Identifier: Apache-2.0
"""A host's disk, which forgets at a loss of power what nobody has synced."""

import contextlib
import ctypes
import fcntl
import functools
import os
import pathlib
import struct
import subprocess
import time

_SIZE_BYTES = 512 << 20
#: Of ext4: from now on it does nothing any more, and what is not in its journal is lost.
_SHUTDOWN = 0x8004587D
_NO_FLUSH = struct.pack('I', 2)
#: Longer than a case: nothing gets to the disk by the time alone.
_COMMIT_S = 300
_UNMOUNTED_S = 30.0
_NEW_MOUNTS = 0x00020000


@functools.cache
def enclose_mounts() -> None:
    """Have those that are made from now on end with this process; labs begun later see them.

    To be called before there are other threads.
    """
    if ctypes.CDLL(None, use_errno=True).unshare(_NEW_MOUNTS):
        raise OSError(ctypes.get_errno(), 'unshare')
    for propagation in ('rprivate', 'rshared'):
        subprocess.run(['mount', f'--make-{propagation}', '/'], check=True)


class Disk:
    """An ext4 of its own in a file, mounted at a folder.

    :param image: of the file, which is made
    """

    def __init__(self, image: pathlib.Path, folder: pathlib.Path):
        self._image = image
        self._folder = folder
        with open(image, 'wb') as file:
            file.truncate(_SIZE_BYTES)
        subprocess.run(['mkfs.ext4', '-q', '-E', 'lazy_itable_init=0', image], check=True)
        self._mount()

    def cut_power(self) -> None:
        """What was not synced is gone; nobody may have a file of it open."""
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            fcntl.ioctl(folder, _SHUTDOWN, _NO_FLUSH)
        finally:
            os.close(folder)
        self.unmount()
        self._mount()

    def unmount(self) -> None:
        """
        :raises TimeoutError: somebody has a file of it open
        """
        ends = time.monotonic() + _UNMOUNTED_S
        while subprocess.run(['umount', self._folder], capture_output=True,
                             check=False).returncode:
            if time.monotonic() > ends:
                raise TimeoutError(f'{self._folder} is in use')
            time.sleep(0.02)

    def close(self) -> None:
        """Unmounted, now or when nobody uses it any more; safe to repeat."""
        with contextlib.suppress(subprocess.CalledProcessError):
            subprocess.run(['umount', '--lazy', self._folder], capture_output=True, check=True)

    def _mount(self):
        subprocess.run(['mount', '-o', f'loop,commit={_COMMIT_S}', self._image, self._folder],
                       check=True)
