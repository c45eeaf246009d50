# SPDX-License-Identifier: Apache-2.0
"""A guest's disks, frozen at one instant while it goes on writing.

For each disk a copy-before-write filter is put over the image that the guest
uses: before a write overtakes the frozen contents, QEMU copies these to our
target. ``on-cbw-error=break-snapshot``: where that fails, the snapshot is
broken and the guest's write goes through; ``cbw-timeout`` bounds how long such
a write may wait. The member's own disk path never changes.

The nodes are named so that a fresh process can undo them from what QEMU shows::

    hs-<tag>-t-<node>   the target (NBD)
    hs-<tag>-f-<node>   the filter; <node> is what the device had then
    hs-<tag>-a-<node>   read access to the frozen image
    hs-<tag>-e-<node>   what tells QEMU where there is anything to copy; for a moment
    hs-<tag>-j-<node>   the job that copies the rest (a job, not a node)

Where a filter is present but not yet under the device it copies nothing: adding
it belongs before the pause, and only putting it in place is inside. After it, each
change of the graph of nodes costs the guest a stall: QEMU waits for all I/O to end,
that of running jobs too, under its big lock. So no job runs before all nodes are there,
and all start in one transaction. (A second disk's node, added while the first disk's
job ran, kept a guest waiting for 170 ms. It cannot be added before the pause: a filter
that anybody uses forbids others to write to its image.)
"""

import contextlib
import dataclasses
import hashlib
import os
import re
import time

from oslo_log import log

from hotsnap_nova import exception
from hotsnap_nova.virt import monitor, records
from hotsnap_nova.virt.disks import extents

LOG = log.getLogger(__name__)

#: Seconds a guest's write may wait for our target, at most.
CBW_TIMEOUT_S = 1
#: QEMU's limit is 31 characters; the prefix takes 12.
MAX_NODE_NAME = 19
#: What a job has under way at most: a guest waits for it whenever the graph changes, as it
#: does when another disk's job ends. (QEMU's own limits let it be 8 MB: 100 ms.)
_WORKERS = 4
_CHUNK_BYTES = 64 << 10
_OURS = re.compile(r'^hs-([0-9a-f]{6})-([tafe])-(.+)$')
_JOB = re.compile(r'^hs-([0-9a-f]{6})-j-(.+)$')


@dataclasses.dataclass(frozen=True)
class Disk:
    """A writable disk of a running guest.

    :ivar target: as the guest's XML names it (``vda``)
    :ivar qdev: QOM path of the device that uses it
    :ivar node: the block node the device has when no filter of ours is there
    :ivar path: the image's path, for flushing it before the pause
    """

    target: str
    qdev: str
    node: str
    path: str
    size_bytes: int

    def name(self, tag: str, part: str) -> str:
        return f'hs-{tag}-{part}-{self.node}'


def tag_of(snapshot_id: str) -> str:
    """Six characters that name a snapshot inside QEMU, where names are short."""
    return hashlib.blake2s(snapshot_id.encode(), digest_size=3).hexdigest()


def running_disks(devices: list[dict], wanted: dict[str, str]) -> dict[str, dict]:
    """``query-block`` rows by target, for XML aliases in ``wanted`` (alias → target)."""
    found = {}
    for row in devices:
        parts = row.get('qdev', '').split('/')
        for alias, target in wanted.items():
            if alias in parts and row.get('inserted'):
                found[target] = row
    return found


class FrozenDisks:
    """The disks of one guest through one snapshot."""

    def __init__(self, qemu: monitor.Monitor, member: records.MemberSpec, tag: str,
                 disks: tuple[Disk, ...]):
        self._qemu = qemu
        self._member = member
        self._tag = tag
        self.disks = disks

    def prepare(self, linked) -> None:
        """Add targets and filters; the guest's I/O does not pass them yet.

        :param linked: disk → a context with a descriptor that leads to its NBD
            export; QEMU has its node when the context ends
        """
        for disk in self.disks:
            target = disk.name(self._tag, 't')
            with linked(disk) as link:
                self._qemu.pass_fd(target, link)
                self._qemu.add_node(driver='nbd', node_name=target, export=disk.target,
                                    server={'type': 'fd', 'str': target})
            self._qemu.add_node(driver='copy-before-write', node_name=disk.name(self._tag, 'f'),
                                file=disk.node, target=target,
                                on_cbw_error='break-snapshot', cbw_timeout=CBW_TIMEOUT_S)

    def flush(self) -> None:
        """Write out what the guest has flushed to the host, before ``stop`` must."""
        for disk in self.disks:
            with contextlib.suppress(OSError):
                fd = os.open(disk.path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.fdatasync(fd)
                finally:
                    os.close(fd)

    def freeze(self) -> None:
        """Put the filters in place: the instant of the disks. The guest is stopped."""
        for disk in self.disks:
            self._qemu.set_drive(disk.qdev, disk.name(self._tag, 'f'))

    def start_copy(self, limit_bytes_s: int = 0, process: int | None = None) -> None:
        """Copy, in the background, what the guest does not overwrite first.

        :param limit_bytes_s: of all disks together; 0: none
        :param process: the guest's QEMU; None: it is not to be seen from here
        """
        speed = max(1, limit_bytes_s // len(self.disks)) if limit_bytes_s and self.disks else 0
        for disk in self.disks:
            self._qemu.add_node(driver='snapshot-access', node_name=disk.name(self._tag, 'a'),
                                file=disk.name(self._tag, 'f'))
        self._qemu.backup(*(
            {'job_id': disk.name(self._tag, 'j'), 'device': disk.name(self._tag, 'a'),
             'target': disk.name(self._tag, 't'), **self._what(disk, process),
             'auto_dismiss': False, 'speed': speed, 'x_perf': {
                 'max-workers': _WORKERS, 'max-chunk': _CHUNK_BYTES, 'use-copy-range': False}}
            for disk in self.disks))

    def _what(self, disk, process):
        """What of a disk to copy: where it has anything, if that is less than all.

        The target is empty, and so reads as zeros where nothing was copied.
        """
        if disk.size_bytes < extents.WORTH_BYTES:
            return {'sync': 'full'}
        try:
            below = self._qemu.children()[disk.name(self._tag, 'f'), 'file']
            image = self._qemu.images()[below]
            if disk.size_bytes - extents.taken_bytes(image) < extents.WORTH_BYTES:
                return {'sync': 'full'}    # it is full, or set aside
            found = extents.of(image, process)
            if disk.size_bytes - sum(end - start for start, end in found) < extents.WORTH_BYTES:
                return {'sync': 'full'}
            # Of an empty disk, too, something is read: that alone tells whether the filter
            # broke before the list was made.
            bitmap = extents.tell(self._qemu, disk.name(self._tag, 'a'),
                                  disk.name(self._tag, 'e'), disk.size_bytes,
                                  found or [(0, extents.GRANULARITY)])
        except (extents.Unknown, KeyError, monitor.MonitorError) as exc:
            LOG.warning('%(member)s, %(disk)s: all of it is looked at, for what is in it cannot '
                        'be told: %(error)s', {'member': self._member, 'disk': disk.target,
                                               'error': exc})
            return {'sync': 'full'}
        return {'sync': 'bitmap', 'bitmap': bitmap, 'bitmap_mode': 'never'}

    def progress(self) -> tuple[int, int, bool]:
        """Bytes done, bytes in all, whether every disk is finished.

        :raises exception.TargetFailed: a disk's copy broke
        """
        done = total = 0
        finished = True
        jobs = self._qemu.jobs()
        for disk in self.disks:
            job = jobs.get(disk.name(self._tag, 'j'))
            if job is None:
                raise exception.TargetFailed(
                    member=self._member, device=disk.target, reason='its copy is gone')
            if job.get('error'):
                raise exception.TargetFailed(
                    member=self._member, device=disk.target, reason=job['error'])
            done += job['current-progress']
            total += job['total-progress']
            finished &= job['status'] == 'concluded'
        return done, total, finished


def leftovers(qemu: monitor.Monitor) -> set[str]:
    """Tags of snapshots that have nodes or jobs in this guest."""
    names = [*qemu.node_names(), *qemu.jobs()]
    found = (_OURS.match(name) or _JOB.match(name) for name in names)
    return {match.group(1) for match in found if match}


def remove(qemu: monitor.Monitor, tag: str, member: records.MemberSpec,
           timeout_s: float = 20.0) -> None:
    """Take this snapshot's jobs, filters and targets out; whoever put them in.

    The links to the targets must be cut first where a target may hang: what is
    done here waits for writes to them.

    :raises exception.HypervisorError: something of ours is still there
    """
    _end_jobs(qemu, tag, member, timeout_s)
    # A save that ends and its discard, or the guardian of a process that died and the next
    # process: two may be at it.
    with qemu.alone():
        _remove_nodes(qemu, tag)


def _remove_nodes(qemu, tag):
    ours = {}
    for name in qemu.node_names():
        match = _OURS.match(name)
        if match and match.group(1) == tag:
            ours.setdefault(match.group(2), []).append((name, match.group(3)))
    for part in 'ea':
        for name, _ in ours.get(part, ()):
            _delete(qemu, name)
    under = {row['inserted']['node-name']: row['qdev'] for row in qemu.block_devices()
             if row.get('inserted') and row.get('qdev')}
    below = qemu.children()
    for name, node in ours.get('f', ()):
        if name in under:
            # Not what was there at the preparation: somebody may since have
            # put an overlay below the filter, or have taken one away.
            qemu.set_drive(under[name], below.get((name, 'file'), node))
        _delete(qemu, name)
    for name, _ in ours.get('t', ()):
        _delete(qemu, name)


def _delete(qemu: monitor.Monitor, name: str) -> None:
    """Delete a node; it may be gone."""
    try:
        qemu.del_node(name)
    except monitor.MonitorError:
        if name in qemu.node_names():
            raise


def _end_jobs(qemu: monitor.Monitor, tag: str, member: records.MemberSpec,
              timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        mine = {name: job for name, job in qemu.jobs().items()
                if (match := _JOB.match(name)) and match.group(1) == tag}
        if not mine:
            return
        for name, job in mine.items():
            # A job may end between the question and the command.
            with contextlib.suppress(monitor.MonitorError):
                if job['status'] == 'concluded':
                    qemu.dismiss_job(name)
                elif job['status'] in ('created', 'running', 'paused', 'ready', 'standby'):
                    qemu.cancel_job(name)
        if time.monotonic() > deadline:
            raise exception.HypervisorError(
                member=member, reason=f'jobs do not end: {", ".join(sorted(mine))}')
        time.sleep(0.02)
