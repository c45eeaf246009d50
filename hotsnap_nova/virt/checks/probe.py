# SPDX-License-Identifier: Apache-2.0
"""Questions to libvirt about definitions, without defining anything."""

import contextlib
import glob
import os
import tempfile
import time
from collections.abc import Iterator

from hotsnap_nova.virt import guest
from hotsnap_nova.virt.memory import saveimage

_PREFIX = '.hotsnap-probe-'
#: Whose process has asked for so long is dead.
_LEFT_S = 3600.0


class Probe:
    """A save image of ours that has no memory in it; libvirt answers about such alone.

    :param path: where libvirt can read and write, too
    """

    def __init__(self, connection, path: str):
        self._connection = connection
        self._path = path

    def worded(self, xml: str) -> str:
        """A definition as libvirt words it, with all that it adds by itself.

        :raises exception.InvalidValue: it makes nothing of it
        """
        self._write(xml)
        return guest.worded(self._connection, self._path)

    def refusal(self, xml: str, wanted: str) -> str:
        """Why memory of ``xml`` cannot be put on ``wanted``; '' where it can."""
        self._write(xml)
        return guest.incompatible(self._connection, self._path, wanted)

    def _write(self, xml):
        with open(self._path, 'wb') as image:
            image.write(saveimage.header(xml, whole=True))


@contextlib.contextmanager
def made(connection, folder: str | None) -> Iterator[Probe]:
    """A probe for the block.

    :param folder: of something that libvirt must reach anyway: it may have other folders
        of its own than this process, and a /tmp of its own
    """
    if folder is None or not os.access(folder, os.W_OK):
        folder = None
    _sweep(folder or tempfile.gettempdir())
    with tempfile.NamedTemporaryFile(prefix=_PREFIX, dir=folder) as file:
        yield Probe(connection, file.name)


def unseen(connection, folder: str, xml: str) -> str:
    """Why libvirt and we do not share a folder, in a sentence's words; '' where we do.

    :param xml: of a guest, that libvirt reads
    """
    if not os.path.isdir(folder):
        return f'there is no folder {folder} here'
    _sweep(folder)
    try:
        with tempfile.NamedTemporaryFile(prefix=_PREFIX, dir=folder) as file:
            file.write(saveimage.header(xml, whole=True))
            file.flush()
            reason = guest.unread(connection, file.name)
    except OSError as exc:
        return f'nothing can be written to {folder}: {exc.strerror}'
    return reason and f'libvirt does not see what is in {folder}: {reason}'


def _sweep(folder):
    """Remove what processes left that died while they asked, on any host that has the folder."""
    for path in glob.glob(os.path.join(glob.escape(folder), f'{_PREFIX}*')):
        with contextlib.suppress(OSError):
            if time.time() - os.stat(path).st_mtime > _LEFT_S:
                os.unlink(path)
