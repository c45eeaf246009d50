# SPDX-License-Identifier: Apache-2.0
"""The holding device: a tap of ours in which the kernel queues what a NIC's guest sent.

Frames keep what QEMU and the guest agreed on for them, large ones and checksums to be filled in
included, in the header that goes before each: what is read is written back as it is.
"""

import fcntl
import os
import socket
import struct

import pyroute2

from hotsnap_nova.virt.gates import bpf

#: Beyond a NIC's limit, for what more than one processor adds at once: the queue itself never
#: drops, for nobody would count it.
_SLACK = 1024
_SET_INTERFACE, _SET_OFFLOAD = 0x400454ca, 0x400454d0
_TAP, _NO_INFORMATION, _HEADER = 0x0002, 0x1000, 0x4000
#: Checksum, TSO for IPv4 and IPv6 with ECN, UFO, USO for both: all a guest can have been offered,
#: by kernels that know all of it (6.2) and less.
_OFFLOADS = (0x7f, 0x1f, 0x0f)
#: Not there where the host has IPv6 switched off (ipv6.disable=1), and then it takes none of its
#: settings either.
_IPV6 = '/proc/sys/net/ipv6'
_NO_ADDRESS = {'IFLA_AF_SPEC': {'attrs': [['AF_INET6', {'attrs': [
    ['IFLA_INET6_ADDR_GEN_MODE', 1]]}]]}}
#: The longest frame, with its header and a VLAN tag.
_LONGEST = 1 << 17


class HoldingDevice:
    """One NIC's queue; empty and up. It goes with this object, and with this process.

    :param packets: the NIC's own limit
    :raises bpf.GateUnavailable: no tap can be made
    """

    def __init__(self, packets: int):
        try:
            self.fd = os.open('/dev/net/tun', os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as exc:
            raise bpf.GateUnavailable(reason=f'/dev/net/tun: {exc.strerror}') from exc
        #: Frames that the kernel took back, and did not.
        self.written = self.lost = 0
        self._frame = bytearray(_LONGEST)
        self._view = memoryview(self._frame)
        try:
            answer = fcntl.ioctl(self.fd, _SET_INTERFACE, struct.pack(
                '16sH22x', b'hsg%d', _TAP | _NO_INFORMATION | _HEADER))
            self.name = answer[:16].rstrip(b'\0').decode()
            self._offer_all()
            self.ifindex = socket.if_nametoindex(self.name)
            with pyroute2.IPRoute() as ip:
                # No queue but its own, and nothing that the host would send by itself.
                ip.link('set', index=self.ifindex, txqlen=packets + _SLACK, mtu=65521, arp=False,
                        **_NO_ADDRESS if os.path.isdir(_IPV6) else {})
                ip.tc('add', 'noqueue', self.ifindex)
        except bpf.GateUnavailable:
            self.close()
            raise
        except (OSError, pyroute2.NetlinkError) as exc:
            self.close()
            raise bpf.GateUnavailable(reason=f'a holding device: {exc}') from exc

    def _offer_all(self):
        for offloads in _OFFLOADS:
            try:
                fcntl.ioctl(self.fd, _SET_OFFLOAD, offloads)
            except OSError:
                continue
            return
        raise bpf.GateUnavailable(reason='a tap takes no large frames')

    def up(self) -> None:
        """Let frames in; before that its hooks have to be there."""
        with pyroute2.IPRoute() as ip:
            ip.link('set', index=self.ifindex, state='up')

    def put_back(self, frames: int) -> int:
        """Read up to so many frames and write each again; how many there were."""
        fd, view, frame = self.fd, self._view, [self._frame]
        for done in range(frames):
            try:
                length = os.readv(fd, frame)
            except BlockingIOError:
                return done
            try:
                os.write(fd, view[:length])
                self.written += 1
            except OSError:
                self.lost += 1
        return frames

    def close(self) -> None:
        """Repeatable; what is in it is gone."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
