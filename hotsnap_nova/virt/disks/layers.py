# SPDX-License-Identifier: Apache-2.0
"""A guest's image and those below it, for QEMU's tools to read beside the guest.

They are those that the guest's QEMU has open, whatever their paths name by now: of a base in whose
place somebody has put another the tools would tell what is in that, and nobody would see. So each
is held open here while it is read, and counts only where it is among the descriptors of that QEMU.
"""

import contextlib
import json
import os
import stat


class Unknown(Exception):
    """Where there is anything in a disk cannot be told: all is to be looked at."""


class Layers:
    """Held open from the beginning to the end of a ``with`` block.

    :param image: QEMU's word on the image, and on what is below
    :param process: the id of that QEMU; None: it is not to be seen from here
    :ivar fds: what a tool that reads them must inherit
    :raises Unknown: at the beginning of the block
    """

    def __init__(self, image: dict, process: int | None):
        self._image = image
        self._process = process
        self.fds: list[int] = []

    def __enter__(self):
        try:
            known = _opened_by(self._process)
            layer = self._image
            while layer:
                self.fds.append(_held(layer['filename'], known))
                if layer.get('backing-filename') and not layer.get('backing-image'):
                    raise Unknown('QEMU does not tell what is below')
                layer = layer.get('backing-image')
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error):
        while self.fds:
            os.close(self.fds.pop())

    def named(self, *, direct: bool) -> str:
        """What to call them to a tool.

        :param direct: read past the page cache
        """
        options, layer, held = {}, self._image, iter(self.fds)
        below = options
        while layer:
            # libvirt gives a raw disk no node of its own for the format.
            form = 'raw' if layer['format'] == 'file' else layer['format']
            below['backing'] = {'driver': form, 'file': {
                'driver': 'file', 'filename': f'/proc/self/fd/{next(held)}',
                'cache': {'direct': direct}}}
            below, layer = below['backing'], layer.get('backing-image')
            if form != 'raw':
                below['backing'] = None
        return f'json:{json.dumps(options["backing"])}'


def _opened_by(process):
    """(device, inode) of all that a process has open."""
    if process is None:
        raise Unknown('its QEMU is not to be seen from here')
    found = set()
    try:
        for fd in os.listdir(f'/proc/{process}/fd'):
            with contextlib.suppress(FileNotFoundError):    # closed since
                found.add(_identity(os.stat(f'/proc/{process}/fd/{fd}')))
    except OSError as exc:
        raise Unknown(f'what its QEMU has open is not to be seen from here: {exc}') from exc
    return found


def _held(path, known):
    """By a descriptor that opens nothing: neither a FIFO waits for it, nor does it end a lock."""
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as exc:
        raise Unknown(f'{path} is no file') from exc
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) and _identity(status) in known:
        return fd
    os.close(fd)
    raise Unknown(f'{path} is not what its QEMU has open' if stat.S_ISREG(status.st_mode)
                  else f'{path} is no file')


def _identity(status):
    return status.st_dev, status.st_ino
