# SPDX-License-Identifier: Apache-2.0
"""A guest's counters, as Python reads them from its memory.

The layout is guest/workload.h's ``struct table``: 64-bit numbers throughout.
Read from a guest that stands still they are exact; from a running guest each
number is right but no two need belong to the same instant.
"""

import dataclasses
import struct

KINDS = ('tcp4', 'tcp6', 'udp')
STATES = ('waiting', 'up', 'dead', 'broken')

_MAGIC = 0x31424154444f4d48
_VERSION = 2
_RING = 256
_BLOCK_RING = 64
_GAP_BUCKETS = 24
_MAX_DISKS = 4
_HEADER = ('magic', 'version', 'header_bytes', 'link_bytes', 'disk_bytes', 'guest', 'guests',
           'links', 'disks', 'life', 'ready', 'uptime_us', 'ticks', 'tick_gap_max_us',
           'dirty_pages', 'dirty_writes', 'dirty_bad', 'filled_bytes', 'tcp_timeouts',
           'tcp_retransmits', 'tcp_spurious', 'status_lines')
_HEADER_WORDS = len(_HEADER) + 18 + _GAP_BUCKETS
_LINK = ('peer', 'kind', 'state', 'error', 'sent', 'received', 'breaks', 'lost', 'reordered',
         'gap_max_us', 'retransmits', 'refused')
_LINK_WORDS = len(_LINK) + 4 + _GAP_BUCKETS + 4 * _RING
_DISK = ('started', 'acked', 'errors', 'last_errno', 'bad_reads', 'slots', 'block_bytes',
         'slowest_us', 'reads')
_DISK_WORDS = len(_DISK) + 7 + 2 * _BLOCK_RING
_LINKS_AT = _HEADER_WORDS + _MAX_DISKS * _DISK_WORDS


class NoTable(Exception):
    """What was read is no table of counters: wrong address, or not set up yet."""


@dataclasses.dataclass(frozen=True)
class Link:
    """One way to one peer; ``sent_sums`` and ``received_sums`` map recent numbers to hashes."""

    peer: int
    kind: str
    state: str
    error: int
    sent: int
    received: int
    breaks: int
    lost: int
    reordered: int
    gap_max_us: int
    retransmits: int
    refused: int
    gaps: tuple[int, ...]
    sent_sums: dict[int, int]
    received_sums: dict[int, int]


@dataclasses.dataclass(frozen=True)
class DiskCounters:
    """One disk; ``sums`` maps recent blocks to the CRC of their first sector."""

    started: int
    acked: int
    errors: int
    last_errno: int
    bad_reads: int
    slots: int
    block_bytes: int
    slowest_us: int
    reads: int
    sums: dict[int, int]


@dataclasses.dataclass(frozen=True)
class Counters:
    """All of one guest's counters."""

    guest: int
    guests: int
    life: int
    ready: bool
    uptime_us: int
    ticks: int
    tick_gap_max_us: int
    tick_gaps: tuple[int, ...]
    dirty_pages: int
    dirty_writes: int
    dirty_bad: int
    filled_bytes: int
    tcp_timeouts: int
    links: tuple[Link, ...]
    disks: tuple[DiskCounters, ...]

    def link(self, peer: int, kind: str) -> Link:
        """The link to a peer.

        :raises KeyError: there is none
        """
        for link in self.links:
            if (link.peer, link.kind) == (peer, kind):
                return link
        raise KeyError((peer, kind))


def table_bytes(guests: int) -> int:
    """How much of the table one of so many guests fills."""
    return (_LINKS_AT + (guests - 1) * len(KINDS) * _LINK_WORDS) * 8


def read(data: bytes) -> Counters:
    """The counters in a table's bytes, of which there must be enough.

    :raises NoTable: this is no table, or not all of it
    """
    words = _words(data)
    head = dict(zip(_HEADER, words, strict=False))
    layout = tuple(head.get(name) for name in _HEADER[:5])
    if layout != (_MAGIC, _VERSION, _HEADER_WORDS * 8, _LINK_WORDS * 8, _DISK_WORDS * 8):
        raise NoTable(f'no table of counters here: {layout}')
    if len(words) < _LINKS_AT + head['links'] * _LINK_WORDS:
        raise NoTable(f'{head["links"]} links need more than {len(data)} bytes')
    return Counters(
        tick_gaps=words[_HEADER_WORDS - _GAP_BUCKETS:_HEADER_WORDS], ready=bool(head['ready']),
        links=tuple(_link(words[at:at + _LINK_WORDS])
                    for at in _steps(_LINKS_AT, _LINK_WORDS, head['links'])),
        disks=tuple(_disk(words[at:at + _DISK_WORDS])
                    for at in _steps(_HEADER_WORDS, _DISK_WORDS, head['disks'])),
        **{name: head[name] for name in (
            'guest', 'guests', 'life', 'uptime_us', 'ticks', 'tick_gap_max_us', 'dirty_pages',
            'dirty_writes', 'dirty_bad', 'filled_bytes', 'tcp_timeouts')})


def _steps(start: int, step: int, count: int) -> range:
    return range(start, start + count * step, step)


def _words(data: bytes) -> tuple[int, ...]:
    count = len(data) // 8
    return struct.unpack_from(f'<{count}Q', data)


def _link(words: tuple[int, ...]) -> Link:
    fields = dict(zip(_LINK, words, strict=False))
    fields['kind'] = KINDS[fields['kind']]
    fields['state'] = STATES[fields['state']]
    gaps_at = len(_LINK) + 4
    rings_at = gaps_at + _GAP_BUCKETS
    received_at = rings_at + 2 * _RING
    return Link(gaps=words[gaps_at:rings_at], **fields,
                sent_sums=_ring(words[rings_at:received_at], fields['sent']),
                received_sums=_ring(words[received_at:], fields['received']))


def _disk(words: tuple[int, ...]) -> DiskCounters:
    fields = dict(zip(_DISK, words, strict=False))
    return DiskCounters(sums=_ring(words[len(_DISK) + 7:], fields['started']), **fields)


def _ring(words: tuple[int, ...], last: int) -> dict[int, int]:
    """Number to hash; an entry beyond ``last`` was begun, not yet made true."""
    return {seq: total for seq, total in zip(words[::2], words[1::2], strict=True)
            if 0 < seq <= last}
