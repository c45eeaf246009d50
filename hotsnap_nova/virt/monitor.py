# SPDX-License-Identifier: Apache-2.0
"""QEMU's monitor, typed: each call says what it changes and returns what matters.

The commands travel through libvirt, which keeps its own picture of the guest
up to date from the same events. Nothing here knows of snapshots.
"""

import contextlib
import errno
import json
import socket
import time

import libvirt
import libvirt_qemu

from hotsnap_nova import exception
from hotsnap_nova.virt import records

#: Migration states in which a migration still runs.
MIGRATING = frozenset({
    'setup', 'cancelling', 'active', 'device', 'pre-switchover', 'postcopy-active',
    'postcopy-paused', 'postcopy-recover', 'wait-unplug', 'colo'})

#: A capability that QEMU does not take together with background snapshots.
_EXCLUDED = 'pause-before-switchover'
#: A bandwidth limit so high that it is none, and only we would set; what is
#: added to it is the tag of the snapshot, so that a fresh process can tell whose.
_OUR_BANDWIDTH = 1 << 60
STOCK_BANDWIDTH = 128 << 20
#: Another of ours holds a guest for as long as it takes to change its graph of nodes.
_ALONE_S = 30.0


class MonitorError(exception.HypervisorError):
    """QEMU said no; ``reason`` has its words."""

    code = 'monitor_error'


class Monitor:
    """The monitor of one running guest.

    :param domain: a ``libvirt.virDomain``
    :param member: whom errors mention
    """

    def __init__(self, domain, member: records.MemberSpec):
        self._domain = domain
        self._member = member

    def execute(self, command: str, arguments: dict | None = None, fds: tuple[int, ...] = ()):
        """QEMU's answer to one command.

        :param fds: passed along, as ``getfd`` wants
        :raises MonitorError: QEMU refused, or libvirt did not reach it
        """
        request = {'execute': command}
        if arguments:
            request['arguments'] = arguments
        text = json.dumps(request)
        try:
            if fds:
                raw = libvirt_qemu.qemuMonitorCommandWithFiles(
                    self._domain, text, list(fds), 0)
                raw = raw[0] if isinstance(raw, tuple) else raw
            else:
                raw = libvirt_qemu.qemuMonitorCommand(self._domain, text, 0)
        except libvirt.libvirtError as exc:
            raise MonitorError(member=self._member, reason=f'{command}: {exc}') from exc
        reply = json.loads(raw)
        if 'error' in reply:
            raise MonitorError(
                member=self._member, reason=f'{command}: {reply["error"].get("desc")}')
        return reply.get('return')

    @contextlib.contextmanager
    def alone(self):
        """Be the only one of us, in whatever thread or process, at this guest in the block.

        For what rests on what was seen before: there are commands that QEMU does not survive
        twice. The kernel ends it with the process. (A name of the machine's network
        namespace: no folder need be agreed on. A stranger that takes it keeps us waiting,
        and no guest.)

        :raises exception.HypervisorError: another is at it for too long; try again
        """
        ends = time.monotonic() + _ALONE_S
        with socket.socket(socket.AF_UNIX) as held:
            while True:
                try:
                    held.bind(f'\0hotsnap-nova/{self._domain.UUIDString()}')
                    break
                except OSError as exc:
                    if exc.errno != errno.EADDRINUSE:
                        raise
                if time.monotonic() >= ends:
                    raise exception.HypervisorError(
                        member=self._member, reason='another process of ours is at work on it')
                time.sleep(0.01)
            yield

    # --- running or not ---

    def stop(self) -> None:
        self.execute('stop')

    def cont(self) -> None:
        self.execute('cont')

    def running(self) -> bool:
        return self.execute('query-status')['running']

    # --- descriptors ---

    def pass_fd(self, name: str, fd: int) -> None:
        """Give QEMU a copy of ``fd`` under ``name``; one of that name is replaced."""
        self.execute('getfd', {'fdname': name}, fds=(fd,))

    def close_fd(self, name: str) -> bool:
        """Whether QEMU still had a descriptor of that name."""
        try:
            self.execute('closefd', {'fdname': name})
        except MonitorError:
            return False
        return True

    @contextlib.contextmanager
    def opened(self, name: str, fd: int):
        """A path by which QEMU, and it alone, opens what ``fd`` is open to, within the block."""
        found = self.execute('add-fd', {'opaque': name}, fds=(fd,))
        try:
            yield f'/dev/fdset/{found["fdset-id"]}'
        finally:
            self.execute('remove-fd', {'fdset-id': found['fdset-id']})

    # --- memory ---

    def set_background_snapshot(self, on: bool) -> None:
        self.execute('migrate-set-capabilities', {
            'capabilities': [{'capability': 'background-snapshot', 'state': on}]})

    def background_snapshot(self) -> bool:
        return any(c['state'] for c in self.execute('query-migrate-capabilities')
                   if c['capability'] == 'background-snapshot')

    def background_snapshot_refusal(self) -> str:
        """Why QEMU would refuse the capability; '' where it would not. Nothing is set.

        It is asked for beside one that excludes it: QEMU looks at memory and kernel first.
        """
        try:
            self.execute('migrate-set-capabilities', {'capabilities': [
                {'capability': name, 'state': True}
                for name in ('background-snapshot', _EXCLUDED)]})
        except MonitorError as exc:
            return '' if _EXCLUDED in str(exc) else exc.kwargs['reason']
        self.execute('migrate-set-capabilities', {'capabilities': [
            {'capability': name, 'state': False}
            for name in ('background-snapshot', _EXCLUDED)]})
        return ''

    def bandwidth(self) -> int:
        """Bytes a second a migration may take."""
        return self.execute('query-migrate-parameters')['max-bandwidth']

    def set_bandwidth(self, value: int) -> None:
        self.execute('migrate-set-parameters', {'max-bandwidth': value})

    def claim_bandwidth(self, tag: str) -> None:
        """Lift the limit, and mark the guest's migration as this snapshot's."""
        self.set_bandwidth(_OUR_BANDWIDTH + int(tag, 16))

    def bandwidth_claim(self) -> str | None:
        """The tag of the snapshot that lifted the limit."""
        rest = self.bandwidth() - _OUR_BANDWIDTH
        return f'{rest:06x}' if 0 <= rest < 1 << 24 else None

    def migrate_to_fd(self, name: str) -> None:
        """Start the (background) migration into the descriptor passed as ``name``."""
        self.execute('migrate', {'uri': f'fd:{name}'})

    def migration(self) -> dict:
        """``query-migrate``: empty where none has run since boot."""
        return self.execute('query-migrate') or {}

    def cancel_migration(self) -> None:
        self.execute('migrate_cancel')

    # --- block ---

    def block_devices(self) -> list[dict]:
        """``query-block``: what each device has inserted."""
        return self.execute('query-block')

    def node_names(self) -> set[str]:
        return {node['node-name'] for node in
                self.execute('query-named-block-nodes', {'flat': True})}

    def children(self) -> dict[tuple[str, str], str]:
        """(node, role of the child) → the child's name, of the graph as it is now.

        QEMU 10.0 tells this by an ``x-`` command only.
        """
        graph = self.execute('x-debug-query-block-graph')
        names = {node['id']: node['name'] for node in graph['nodes']}
        return {(names[edge['parent']], edge['name']): names[edge['child']]
                for edge in graph['edges']}

    def add_node(self, **options) -> None:
        self.execute('blockdev-add', _dashed(options))

    def forbids_driver(self, driver: str, node: str) -> bool:
        """Whether this QEMU was built not to use a block driver. Nothing is added.

        The new node is asked for under the name of ``node``, which exists: QEMU
        looks at its list of drivers first.
        """
        options = {'server': {'type': 'unix', 'path': '/nonexistent'}} if driver == 'nbd' else {
            'file': {'driver': 'null-co'}}
        if driver == 'copy-before-write':
            options['target'] = {'driver': 'null-co'}
        try:
            self.add_node(driver=driver, node_name=node, **options)
        except MonitorError as exc:
            return f"'{driver}'" in str(exc)
        self.del_node(node)    # it went away just now
        return False

    def del_node(self, name: str) -> None:
        self.execute('blockdev-del', {'node-name': name})

    def set_drive(self, qdev: str, node: str) -> None:
        """Put ``node`` under the device ``qdev``; the guest sees no change.

        QEMU dies where it is there already (10.0.2: an assertion in bdrv_replace_child_noperm):
        whoever looks and then acts must be `alone`.
        """
        self.execute('qom-set', {'path': qdev, 'property': 'drive', 'value': node})

    def images(self) -> dict[str, dict]:
        """By node's name, what there is to tell of its image, and of all below it."""
        return {node['node-name']: node['image']
                for node in self.execute('query-named-block-nodes')}

    def add_bitmap(self, node: str, name: str, granularity: int) -> None:
        self.execute('block-dirty-bitmap-add', {
            'node': node, 'name': name, 'granularity': granularity})

    def merge_bitmap(self, node: str, name: str, other: str, others: str) -> None:
        """Add to a node's bitmap what another node's has."""
        self.execute('block-dirty-bitmap-merge', {
            'node': node, 'target': name, 'bitmaps': [{'node': other, 'name': others}]})

    def backup(self, *jobs: dict) -> None:
        """Start backup jobs, all or none."""
        self.execute('transaction', {'actions': [
            {'type': 'blockdev-backup', 'data': _dashed(options)} for options in jobs]})

    def jobs(self) -> dict[str, dict]:
        return {job['id']: job for job in self.execute('query-jobs')}

    def cancel_job(self, job: str) -> None:
        self.execute('block-job-cancel', {'device': job, 'force': True})

    def dismiss_job(self, job: str) -> None:
        self.execute('job-dismiss', {'id': job})

    def set_job_speed(self, job: str, bytes_s: int) -> None:
        self.execute('block-job-set-speed', {'device': job, 'speed': bytes_s})

    # --- objects ---

    def devices(self) -> frozenset[str]:
        """Names of the devices a guest has been given, at start or since."""
        return frozenset(item['name'] for item in
                         self.execute('qom-list', {'path': '/machine/peripheral'})
                         if item['type'].startswith('child<'))

    def objects(self) -> list[str]:
        return [item['name'] for item in self.execute('qom-list', {'path': '/objects'})]

    def add_object(self, **options) -> None:
        self.execute('object-add', _dashed(options))

    def del_object(self, name: str) -> None:
        self.execute('object-del', {'id': name})

    def set_filter(self, name: str, on: bool) -> None:
        """Switch a net filter; switching a buffer off delivers what it holds."""
        self.execute('qom-set', {'path': f'/objects/{name}', 'property': 'status',
                                 'value': 'on' if on else 'off'})

    def version(self) -> str:
        number = self.execute('query-version')['qemu']
        return '{major}.{minor}.{micro}'.format(**number)


def _dashed(options: dict) -> dict:
    return {key.replace('_', '-'): value for key, value in options.items()}
