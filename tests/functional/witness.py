# SPDX-License-Identifier: Apache-2.0
"""What a guest and its QEMU show before and after: whether a snapshot left a trace."""

import collections
import contextlib
import json
import os

import libvirt_qemu

from tests.functional.command import until
from tests.lab.verdict import check_health


class Witness:
    """Remembers guests as they are now, to compare later.

    :param guests: running lab guests that all talk to one another
    """

    def __init__(self, guests):
        self._guests = guests
        self._traces = [trace(guest) for guest in guests]
        self._counters = [guest.counters() for guest in guests]

    def left(self, timeout_s: float = 15.0) -> list[str]:
        """What is in the guests' QEMU now and was not before, or is gone from it."""
        def differences():
            return [f'{guest.domain_name}: {key}: {before[key]} -> {after[key]}'
                    for guest, before in zip(self._guests, self._traces, strict=True)
                    for after in [trace(guest)] for key in before if before[key] != after[key]]
        # A finished command's last packets and descriptors may be on their way.
        until(lambda: not differences(), timeout_s)
        return differences()

    def harmed(self, messages: int = 20, blocks: int = 10, timeout_s: float = 60.0) -> list:
        """What guests suffered, or did not get done since they are asked here.

        Each must take messages on every connection and get blocks acknowledged,
        with no I/O error, broken chain or complaint of the kernel since boot.
        """
        start = [guest.counters() for guest in self._guests]

        def unfinished():
            now = [guest.counters() for guest in self._guests]
            return [
                f'{guest.domain_name}: {what}'
                for guest, before, after in zip(self._guests, start, now, strict=True)
                for what in _not_done(before, after, messages, blocks)]
        until(lambda: not unfinished(), timeout_s)
        return unfinished() + self.errors()

    def errors(self) -> list:
        """I/O errors, broken chains, lost connections, complaints, also of long ago."""
        return (check_health([guest.counters() for guest in self._guests])
                + [line for guest in self._guests for line in guest.troubles()])

    def written(self) -> int:
        """Blocks acknowledged by the guests' disks since this witness was made."""
        return sum(new.acked - old.acked
                   for guest, before in zip(self._guests, self._counters, strict=True)
                   for old, new in zip(before.disks, guest.counters().disks, strict=True))


def _not_done(before, after, messages, blocks):
    for index, (old, new) in enumerate(zip(before.disks, after.disks, strict=True)):
        if new.acked - old.acked < blocks:
            yield f'disk {index}: {new.acked - old.acked} of {blocks} blocks'
    for old in before.links:
        taken = after.link(old.peer, old.kind).received - old.received
        if old.kind != 'udp' and taken < messages:
            yield f'{old.kind} from {old.peer}: {taken} of {messages} messages'


class Refused(Exception):
    """QEMU said no."""


def qmp(guest, command: str, **arguments):
    """QEMU's own answer.

    :raises Refused:
    """
    request = {'execute': command} | ({'arguments': arguments} if arguments else {})
    reply = json.loads(libvirt_qemu.qemuMonitorCommand(guest.domain, json.dumps(request), 0))
    if 'error' in reply:
        raise Refused(f'{command}: {reply["error"]}')
    return reply['return']


def trace(guest) -> dict:
    """All that a snapshot of ours could leave in a guest's QEMU."""
    return {
        'running': qmp(guest, 'query-status')['status'],
        'nodes': sorted(node['node-name'] for node in
                        qmp(guest, 'query-named-block-nodes', flat=True)),
        'drives': sorted((row['qdev'], row['inserted']['node-name']) for row in
                         qmp(guest, 'query-block') if row.get('inserted')),
        'objects': sorted(item['name'] for item in qmp(guest, 'qom-list', path='/objects')),
        'capabilities': [item['capability'] for item in
                         qmp(guest, 'query-migrate-capabilities') if item['state']],
        'parameters': qmp(guest, 'query-migrate-parameters'),
        'jobs': [job['id'] for job in qmp(guest, 'query-jobs')],
        'descriptors': _descriptors(guest.pid),
    }


def _descriptors(pid: int) -> dict[str, int]:
    """How many QEMU has of each kind; files by name.

    Not its one /dev/userfaultfd, which it opens when first asked and keeps.
    """
    kinds = collections.Counter()
    for number in os.listdir(f'/proc/{pid}/fd'):
        with contextlib.suppress(FileNotFoundError):
            target = os.readlink(f'/proc/{pid}/fd/{number}')
            kinds[target.partition(':[')[0] if ':[' in target else target] += 1
    del kinds['/dev/userfaultfd']
    return dict(kinds)
