# SPDX-License-Identifier: Apache-2.0
"""Frames as guests really send them, with the header that virtio puts before each."""

import ipaddress
import struct

from tests.functional import wires

GUEST_IPS, PEER_IPS = ('10.0.0.1', 'fd00::1'), ('10.0.0.2', 'fd00::2')
_IPV4 = struct.Struct('!BBHHHBBH4s4s')
_TCP = struct.Struct('!HHIIBBHHH')


def virtio(*, needs_checksum=False, kind=0, headers=0, segment=0, start=0, offset=0):
    """The header before a frame: checksum from ``start`` on to be filled in, cut in segments."""
    return struct.pack('<BBHHHH', int(needs_checksum), kind, headers, segment, start, offset)


def seen(frames):
    """Each with what a guest needs to know of it.

    How much of it are headers is the kernel's guess, that it has verified a checksum a courtesy.
    """
    return [_seen(frame) for frame in frames]


def _seen(frame):
    flags, kind, _, segment, start, offset = struct.unpack_from('<BBHHHH', frame)
    return flags & 1, kind, segment, start, offset, frame[len(wires.PLAIN):]


def ethernet(protocol, target=wires.PEER_MAC, tags=b''):
    return target + wires.GUEST_MAC + tags + struct.pack('!H', protocol)


def ipv4(payload, protocol, dscp=0, *, congestion=0, fragment=0x4000, target=PEER_IPS[0]):
    """:param congestion: ECN's two bits, beside the DSCP"""
    header = _IPV4.pack(0x45, dscp << 2 | congestion, 20 + len(payload), 1, fragment, 64, protocol,
                        0, _packed(GUEST_IPS[0]), _packed(target))
    return header[:10] + internet_sum(header) + header[12:] + payload


def ipv6(payload, protocol, extensions=b'', dscp=0, *, congestion=0, target=PEER_IPS[1]):
    return struct.pack(
        '!IHBB', 6 << 28 | (dscp << 2 | congestion) << 20, len(extensions + payload), protocol, 64
    ) + _packed(GUEST_IPS[1]) + _packed(target) + extensions + payload


def _packed(ip):
    return ipaddress.ip_address(ip).packed


def internet_sum(data):
    total = sum(struct.unpack(f'!{len(data) // 2}H', data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return struct.pack('!H', total ^ 0xffff)


def tcp(size):
    return _TCP.pack(4000, 5000, 1, 1, 0x50, 0x18, 1000, 0x1234, 0) + bytes(
        index * 7 & 0xff for index in range(size))


def udp(size):
    return struct.pack('!HHHH', 4000, 5000, 8 + size, 0x1234) + bytes(
        index * 5 & 0xff for index in range(size))


VLAN = bytes.fromhex('81000064')
PROVIDER = bytes.fromhex('88a800c8')
EXTENSION = bytes.fromhex('0600010400000000')
ALL = {
    'arp': virtio() + ethernet(0x0806, b'\xff' * 6) + bytes.fromhex(
        '0001080006040001') + wires.GUEST_MAC + bytes([10, 0, 0, 1]) + bytes(6)
        + bytes([10, 0, 0, 2]) + bytes(18),
    'multicast': virtio() + ethernet(0x0800, bytes.fromhex('01005e000005')) + ipv4(udp(100), 17),
    'ipv4 with a checksum to be filled in': virtio(
        needs_checksum=True, start=34, offset=16) + ethernet(0x0800) + ipv4(tcp(1000), 6),
    'ipv4 with a dscp of its own': virtio() + ethernet(0x0800) + ipv4(udp(100), 17, dscp=46),
    'ipv6': virtio() + ethernet(0x86dd) + ipv6(udp(100), 17),
    'ipv6 with an extension header': virtio() + ethernet(0x86dd) + ipv6(udp(100), 0, EXTENSION),
    'large, tcp over ipv4': virtio(needs_checksum=True, kind=1, headers=54, segment=1448, start=34,
                                   offset=16) + ethernet(0x0800) + ipv4(tcp(60_000), 6),
    'large, with congestion notice': virtio(
        needs_checksum=True, kind=0x81, headers=54, segment=1448, start=34, offset=16)
        + ethernet(0x0800) + ipv4(tcp(30_000), 6),
    'large, tcp over ipv6': virtio(needs_checksum=True, kind=4, headers=74, segment=1428, start=54,
                                   offset=16) + ethernet(0x86dd) + ipv6(tcp(60_000), 6),
    'vlan': virtio() + ethernet(0x0800, tags=VLAN) + ipv4(udp(100), 17),
    'vlan in vlan': virtio() + ethernet(0x0800, tags=PROVIDER + VLAN) + ipv4(udp(100), 17),
    'large, in a vlan': virtio(needs_checksum=True, kind=1, headers=58, segment=1444, start=38,
                               offset=16) + ethernet(0x0800, tags=VLAN) + ipv4(tcp(60_000), 6),
    'as long as the network takes': virtio() + ethernet(0x0800) + ipv4(udp(1472), 17),
    'no protocol at all': virtio() + ethernet(0x88b5) + bytes(50),
}


def straight(dscp=0):
    """What the guest sends straight to its peer's own address, by name, with this DSCP."""
    large4 = virtio(needs_checksum=True, kind=1, headers=54, segment=1448, start=34, offset=16)
    large6 = virtio(needs_checksum=True, kind=4, headers=74, segment=1428, start=54, offset=16)
    partial4 = virtio(needs_checksum=True, start=34, offset=16)
    partial6 = virtio(needs_checksum=True, start=54, offset=16)
    v4, v6 = ethernet(0x0800), ethernet(0x86dd)
    return {
        'udp over ipv4': virtio() + v4 + ipv4(udp(100), 17, dscp),
        'udp over ipv6': virtio() + v6 + ipv6(udp(100), 17, dscp=dscp),
        'tcp over ipv4, checksum to be filled in': partial4 + v4 + ipv4(tcp(1000), 6, dscp),
        'tcp over ipv6, checksum to be filled in': partial6 + v6 + ipv6(tcp(1000), 6, dscp=dscp),
        'large, over ipv4': large4 + v4 + ipv4(tcp(60_000), 6, dscp),
        'large, over ipv6': large6 + v6 + ipv6(tcp(60_000), 6, dscp=dscp),
        'congestion, over ipv4': virtio() + v4 + ipv4(udp(100), 17, dscp, congestion=3),
        'congestion, over ipv6': virtio() + v6 + ipv6(udp(100), 17, dscp=dscp, congestion=3),
        'a fragment': virtio() + v4 + ipv4(udp(800), 17, dscp, fragment=0x2000),
        'an extension header': virtio() + v6 + ipv6(udp(100), 0, EXTENSION, dscp),
    }


#: What might reach the peer by a detour, or cannot carry a mark.
DETOURS = {
    'broadcast': ALL['arp'],
    'multicast': ALL['multicast'],
    'a dscp of its own': ALL['ipv4 with a dscp of its own'],
    'to a router': virtio() + ethernet(0x0800, bytes.fromhex('020000000c01')) + ipv4(udp(100), 17),
    'to a router, over ipv6': virtio() + ethernet(0x86dd, bytes.fromhex('020000000c01'))
        + ipv6(udp(100), 17),
    'to an address that is translated': virtio() + ethernet(0x0800) + ipv4(
        udp(100), 17, target='10.0.0.99'),
    'to an address that is translated, over ipv6': virtio() + ethernet(0x86dd) + ipv6(
        udp(100), 17, target='fd00::99'),
    'in a vlan': ALL['vlan'],
    'in two vlans': ALL['vlan in vlan'],
    'no ip': ALL['no protocol at all'],
    'ip by its name alone': virtio() + ethernet(0x0800) + bytes(50),
    'short': virtio() + ethernet(0x0800) + b'\x45',
}


def numbered(number, dscp=0):
    """One over IPv4, straight to the peer."""
    return virtio() + ethernet(0x0800) + ipv4(udp(0) + struct.pack('!Q', number), 17, dscp)


def number_of(frame):
    return struct.unpack('!Q', frame[-8:])[0]


def dscp_of(frame):
    """Of one over IPv4."""
    return frame[25] >> 2
