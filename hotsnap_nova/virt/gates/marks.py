# SPDX-License-Identifier: Apache-2.0
"""Marks: the DSCP code points that packets carry from member to member, and who is a member."""

import dataclasses
import ipaddress
import struct

_ADDRESS = struct.Struct('=6sH16s')
_MARKER = struct.Struct('QQQQQQ')
_LAST_CODE = 63


@dataclasses.dataclass(frozen=True)
class Address:
    """What a member is sent packets by, straight: its NIC's, and IP addresses of that."""

    mac: str
    ips: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Marker:
    """How a gate marks.

    :ivar code: what this epoch's packets carry
    :ivar codes: all that any epoch's may: these never reach a guest
    :ivar addresses: of all members, wherever they run
    :ivar wait_ms: how long a mark keeps an armed member's packets waiting for its cut, at most
    """

    code: int
    codes: tuple[int, ...]
    addresses: tuple[Address, ...]
    wait_ms: int

    def __post_init__(self):
        if not all(0 < code <= _LAST_CODE for code in self.codes) or self.code not in self.codes:
            raise ValueError(f'{self.code} of {self.codes} is no mark')

    def packed(self) -> bytes:
        """As the programs have it, with counters of nothing."""
        codes = sum(1 << code for code in set(self.codes))
        return _MARKER.pack(codes, self.wait_ms * 1_000_000, self.code, 0, 0, 0)

    def members(self) -> set[bytes]:
        """Each address of a member's, as the programs look for it."""
        return {key for address in self.addresses for key in _keys(address)}


def of(told: dict) -> Marker:
    """The one that was told of by ``dataclasses.asdict``, in JSON or not.

    :raises ValueError: it is none
    """
    addresses = tuple(Address(each['mac'], tuple(each['ips'])) for each in told['addresses'])
    return Marker(**told | {'codes': tuple(told['codes']), 'addresses': addresses})


@dataclasses.dataclass(frozen=True)
class Marked:
    """Packets of one gate's: that it marked, that it took a mark from, that asked for a cut."""

    marked: int
    stripped: int
    asked: int


def counted(packed: bytes) -> Marked:
    """What the programs have counted so far."""
    return Marked(*_MARKER.unpack(packed)[3:])


SIZE = _MARKER.size


def _keys(address):
    mac = bytes.fromhex(address.mac.replace(':', ''))
    yield _ADDRESS.pack(mac, 0, b'')
    for text in address.ips:
        ip = ipaddress.ip_address(text)
        yield _ADDRESS.pack(mac, ip.version, ip.packed)
