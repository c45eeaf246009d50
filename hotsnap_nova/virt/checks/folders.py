# SPDX-License-Identifier: Apache-2.0
"""Whether libvirt sees the folders that we do: it is asked, on a file in them.

Ours and libvirt may be in containers of their own, or in mount namespaces: what one has at a
path the other has not, or has something else there.
"""

import os
import stat
from collections.abc import Iterable, Iterator

from hotsnap_nova.virt import domain, records
from hotsnap_nova.virt.checks import probe, subject

#: Of what is not shared.
REMEDY = 'let libvirt and this service have the same folder at that path'


def beside_disks(asked: subject.Subject):
    """A restore puts disks, marks and unpacked memory there."""
    for device, reason in unseen(asked.connection, asked.parsed.disks, asked.xml):
        yield device, reason, REMEDY, (records.RESTORE,)


def unseen(connection, disks: Iterable[domain.DiskXml], xml: str) -> Iterator[tuple[str, str]]:
    """Yield device and reason, once a folder, of those that are no place for a restore.

    :param xml: of a guest, that libvirt reads
    """
    files = [disk for disk in disks if disk.writable and disk.kind == 'file' and disk.path
             and not _is_device(disk.path)]
    folders = {os.path.dirname(os.path.realpath(disk.path)): disk.target
               for disk in reversed(files)}
    for folder, device in folders.items():
        if reason := probe.unseen(connection, folder, xml):
            yield device, reason


def _is_device(path):
    """Of which others tell; the folder is /dev."""
    try:
        return stat.S_ISBLK(os.stat(path).st_mode)
    except OSError:
        return False


def store(connection, folder: str, members: list[subject.Subject]) -> Iterator[records.Finding]:
    """A finding where libvirt cannot read what is in the store: it loads memory from there."""
    if members and (reason := probe.unseen(connection, folder, members[0].xml)):
        yield records.Finding(records.GROUP, 'store', reason, REMEDY, (records.RESTORE,))


RULES = (beside_disks,)
