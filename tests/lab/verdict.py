# SPDX-License-Identifier: Apache-2.0
"""Whether guests' states belong to one common past, and whether they live on.

``check_cut`` judges states that stand still: those of restored guests before
they resume, or of guests paused where they are. What it cannot see is below
the workload, a TCP stream that will never move again because one end forgot
what the other had not received; ``check_progress`` sees that, afterwards.
"""

import collections.abc
import dataclasses

from tests.lab import counters, disks


@dataclasses.dataclass(frozen=True, order=True)
class Finding:
    """One thing wrong. ``kind`` is one of the words below, ``guest`` who shows it.

    orphan: received, never sent · diverged: both ends remember another message
    under one number · unproven: too far apart to compare · broken_chain: a
    guest saw it itself · lost_connection · torn_block · missing_block: durable
    once, not on the disk · disk_ahead: on the disk, never written · foreign_block:
    another write than memory remembers · lost_base · io_error · bad_read ·
    bad_memory · stalled: too few messages since
    """

    kind: str
    guest: int
    detail: str


def check_cut(states: collections.abc.Sequence[counters.Counters]) -> list[Finding]:
    """What is wrong with these states together; disks are ``check_disk``'s."""
    findings = []
    for sender in states:
        for receiver in states:
            if sender is not receiver:
                for kind in counters.KINDS:
                    findings += _check_link(sender, receiver, kind)
    return findings + check_health(states)


def check_health(states: collections.abc.Sequence[counters.Counters]) -> list[Finding]:
    """What the guests have noticed themselves."""
    findings = []
    for state in states:
        for link in state.links:
            where = f'{link.kind} with {link.peer}'
            if link.breaks:
                findings.append(Finding('broken_chain', state.guest,
                                        f'{where} after {link.received}'))
            elif link.state != 'up':
                findings.append(Finding('lost_connection', state.guest,
                                        f'{where} is {link.state}, error {link.error}'))
        for index, disk in enumerate(state.disks):
            if disk.errors:
                findings.append(Finding('io_error', state.guest, f'disk {index}: '
                                        f'{disk.errors}, last errno {disk.last_errno}'))
            if disk.bad_reads:
                findings.append(Finding('bad_read', state.guest,
                                        f'disk {index}: {disk.bad_reads}'))
        if state.dirty_bad:
            findings.append(Finding('bad_memory', state.guest, f'{state.dirty_bad} pages'))
    return findings


def check_disk(state: counters.Counters, index: int, data: bytes) -> list[Finding]:
    """What is wrong between a guest's memory and its disk's first blocks."""
    disk = state.disks[index]
    findings = []

    def found(kind: str, detail: str) -> None:
        findings.append(Finding(kind, state.guest, f'disk {index}: {detail}'))

    blocks = disks.blocks_in(data[:disk.slots * disks.BLOCK_BYTES], state.life, index)
    for slot, block in blocks.items():
        if block.torn:
            found('torn_block', f'slot {slot}, block {block.seq}: {block.torn}')
        elif block.seq > disk.started:
            found('disk_ahead', f'block {block.seq}, started {disk.started}')
        elif disk.sums.get(block.seq, block.first_crc) != block.first_crc:
            found('foreign_block', f'block {block.seq}')
        elif block.seq % disk.slots != slot:
            found('torn_block', f'slot {slot} holds block {block.seq}')
    for seq in range(max(1, disk.acked - disk.slots + 1), disk.acked + 1):
        block = blocks.get(seq % disk.slots)
        if block is None or block.seq < seq:
            found('missing_block', f'{seq}, acked {disk.acked}, '
                  f'slot holds {block.seq if block else "nothing"}')
    return findings


def messages_since(before: collections.abc.Sequence[counters.Counters],
                   after: collections.abc.Sequence[counters.Counters],
                   ) -> dict[tuple[int, int, str], int]:
    """Messages taken since, by (sender, receiver, kind)."""
    return {(link.peer, old.guest, link.kind):
            new.link(link.peer, link.kind).received - link.received
            for old, new in zip(before, after, strict=True) for link in old.links}


def check_progress(before: collections.abc.Sequence[counters.Counters],
                   after: collections.abc.Sequence[counters.Counters],
                   messages: int) -> list[Finding]:
    """Which TCP connections took fewer messages than asked, and what went wrong since."""
    findings = check_health(after)
    for (sender, receiver, kind), taken in messages_since(before, after).items():
        if kind != 'udp' and taken < messages:
            findings.append(Finding('stalled', receiver,
                                    f'{kind} from {sender}: {taken} of {messages}'))
    return findings


def _check_link(sender: counters.Counters, receiver: counters.Counters,
                kind: str) -> list[Finding]:
    sent, received = sender.link(receiver.guest, kind), receiver.link(sender.guest, kind)
    where = f'{kind} from {sender.guest}'
    findings = []
    if received.received > sent.sent:
        findings.append(Finding('orphan', receiver.guest,
                                f'{where}: received {received.received}, sent {sent.sent}'))
    known = sent.sent_sums.keys() & received.received_sums.keys()
    differing = [seq for seq in known if sent.sent_sums[seq] != received.received_sums[seq]]
    if differing:
        findings.append(Finding('diverged', receiver.guest, f'{where} at {min(differing)}'))
    if received.received and not known:
        findings.append(Finding('unproven', receiver.guest, f'{where}: received '
                                f'{received.received}, sent {sent.sent}'))
    return findings
