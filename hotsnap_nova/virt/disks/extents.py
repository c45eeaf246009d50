# SPDX-License-Identifier: Apache-2.0
"""Where in a disk there is anything, told to QEMU so that a copy costs no more than that.

A backup job looks at every 64 KiB of a disk, and writes zeros where there is nothing: of a large
disk that is nearly empty, for minutes. It can be told what to copy, by a bitmap; but QEMU has
no command that makes one of what is allocated, nor one that takes a list. So the list is put
into the bitmap of another image by QEMU's own tools, a file in memory that is handed to the
guest's QEMU, which adds it to a bitmap of its own.

*What is listed is enough.* It is read after the cut, from the images themselves, while the guest
goes on, through all `layers`. What the cut has was in them by then, their metadata too: QEMU
writes all of it when it stops a guest. What the guest writes afterwards only adds to the list; and
what it discards the copy-before-write filter has put into the target before that.
"""

import contextlib
import json
import os
import subprocess
import threading
import time

from hotsnap_nova.virt import monitor
from hotsnap_nova.virt.disks import layers, lines

#: A copy is told what to copy where it saves looking at so much; else it looks at all.
WORTH_BYTES = 256 << 20
#: Of the bitmap.
GRANULARITY = 64 << 10
#: Gaps that are no larger are copied as what is around them.
_GAP_BYTES = 1 << 20
#: So that there is no end of them: beyond, larger gaps are.
_MOST = 20_000
#: What qemu-io writes at once, at most: below 2 GiB, and whole clusters.
_STRIDE = 1 << 30
#: Of the image in memory: a table of its covers half a TiB.
_CLUSTER = 2 << 20
_TIMEOUT_S = 60.0
_BITMAP = 'data'

#: Disks that are looked at at once: of each all tables are read.
_few = threading.BoundedSemaphore(2)

Extent = tuple[int, int]
Unknown = layers.Unknown


def of(image: dict, process: int | None) -> list[Extent]:
    """(start, end) of each stretch in which an image or one below it has data, in order.

    :param image: QEMU's word on it, and on what is below
    :param process: the id of that QEMU; None: it is not to be seen from here
    :raises Unknown:
    """
    ends = time.monotonic() + _TIMEOUT_S
    if not _few.acquire(timeout=_TIMEOUT_S):
        raise Unknown(f'other disks have been looked at for {_TIMEOUT_S:g} s')
    try:
        with layers.Layers(image, process) as held:
            return _mapped(held, ends)
    except TimeoutError as exc:
        raise Unknown(f'it takes more than {_TIMEOUT_S:g} s') from exc
    except (OSError, ValueError, KeyError) as exc:
        raise Unknown(f'qemu-img map: {exc}') from exc
    finally:
        _few.release()


def _mapped(held, ends):
    for direct in (True, False):    # as QEMU reads it, where the file system can do that
        found = _Stretches()
        told = lines.of(['qemu-img', 'map', '-U', '--output', 'json',
                         held.named(direct=direct)], held.fds, ends)
        try:
            with contextlib.closing(told):
                for line in told:
                    if b'{' in line:
                        # Each by itself: the threads beside this one carry guests' memory, and
                        # guests decide how many there are.
                        stretch = json.loads(line.strip(b'[],'))
                        # Compressed clusters are data, zeros that are written as such are none.
                        if stretch['data'] or not stretch['zero']:
                            found.add(stretch['start'], stretch['start'] + stretch['length'])
            return found.kept
        except lines.Failed as exc:
            reason = str(exc)
    raise Unknown(reason)


class _Stretches:
    """Fewer than come, which leave out less.

    :ivar kept: (start, end) of each, in order
    """

    def __init__(self):
        self.kept: list[Extent] = []
        self._gap = _GAP_BYTES

    def add(self, start: int, end: int) -> None:
        """:param start: of the next; beyond all that were"""
        self._join(start, end)
        while len(self.kept) > _MOST:
            self._gap *= 2
            found, self.kept = self.kept, []
            for each in found:
                self._join(*each)

    def _join(self, start, end):
        if self.kept and start - self.kept[-1][1] <= self._gap:
            self.kept[-1] = self.kept[-1][0], end
        else:
            self.kept.append((start, end))


def taken_bytes(image: dict) -> int:
    """What an image and all below it take of their file systems, as far as QEMU tells."""
    below = image.get('backing-image')
    return image.get('actual-size', 0) + (taken_bytes(below) if below else 0)


def tell(qemu: monitor.Monitor, node: str, helper: str, size_bytes: int,
         found: list[Extent]) -> str:
    """The name of a bitmap of ``node`` that has what was found.

    :param helper: a name for a node that is there for a moment
    :raises Unknown: qemu-img or qemu-io failed
    :raises monitor.MonitorError: QEMU did
    """
    qemu.add_bitmap(node, _BITMAP, GRANULARITY)
    with _image(size_bytes, found) as fd, qemu.opened(helper, fd) as path:
        qemu.add_node(driver='qcow2', node_name=helper, read_only=True,
                      file={'driver': 'file', 'filename': path, 'read-only': True})
        try:
            qemu.merge_bitmap(node, _BITMAP, helper, _BITMAP)
        finally:
            qemu.del_node(helper)
    return _BITMAP


@contextlib.contextmanager
def _image(size_bytes, found):
    """A descriptor, to read, of an image in memory whose bitmap has these stretches."""
    fd = os.memfd_create('extents', os.MFD_CLOEXEC)
    try:
        path = f'/proc/self/fd/{fd}'
        _run(fd, 'qemu-img', 'create', '-q', '-f', 'qcow2', '-o', f'cluster_size={_CLUSTER}',
             path, str(size_bytes))
        _run(fd, 'qemu-img', 'bitmap', '--add', '--enable', '-f', 'qcow2', '-g',
             str(GRANULARITY), path, _BITMAP)
        _run(fd, 'qemu-io', '-f', 'qcow2', path, text=''.join(
            f'write -z {start} {min(_STRIDE, end - start)}\n'
            for first, end in found for start in range(first, end, _STRIDE)))
        reading = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(fd)
    try:
        yield reading
    finally:
        os.close(reading)


def _run(fd, *command, text=''):
    try:
        subprocess.run(command, pass_fds=[fd], input=text, text=True, capture_output=True,
                       check=True, timeout=_TIMEOUT_S)
    except (OSError, subprocess.SubprocessError) as exc:
        raise Unknown(f'{command[0]}: {getattr(exc, "stderr", "") or exc}') from exc
