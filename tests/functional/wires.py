# SPDX-License-Identifier: Apache-2.0
"""A network of its own with a guest's device and a peer's, whose frames a test writes and reads.

What stands for QEMU are the devices' own descriptors, with the header that virtio's network
devices put before each frame.
"""

import contextlib
import ctypes
import fcntl
import os
import pathlib
import select
import struct
import subprocess
import tempfile
import time
import typing

_NEW_NETWORK = 0x40000000
_SET_INTERFACE, _SET_OFFLOAD = 0x400454ca, 0x400454d0
_TAP, _NO_INFORMATION, _HEADER, _QUEUES = 0x0002, 0x1000, 0x4000, 0x0100
_SET_SEND_BUFFER = 0x400454d4
_ALL_OFFLOADS = 0x0f
#: Longer than any burst of a test, so that nothing is lost but by a gate.
_QUEUE_LENGTH = 1 << 17
GUEST, PEER = 'hsguest', 'hspeer'
GUEST_MAC, PEER_MAC = bytes.fromhex('020000000a01'), bytes.fromhex('020000000b01')
PLAIN = bytes(10)
#: An EtherType for experiments, followed by a frame's number.
NUMBERED = struct.Struct('!6s6sHQ')


def run(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def links(*lines):
    """Have ``ip`` do each of these."""
    subprocess.run(['ip', '-batch', '-'], input='\n'.join(lines), text=True, check=True)


@contextlib.contextmanager
def own_network():
    """This thread, and what it starts, in a network that nobody else sees."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open('/proc/thread-self/ns/net') as before:
        if libc.unshare(_NEW_NETWORK):
            raise OSError(ctypes.get_errno(), 'unshare')
        try:
            yield
        finally:
            if libc.setns(before.fileno(), _NEW_NETWORK):
                os._exit(70)    # tests after this one would change the machine's own network


class Nic(typing.NamedTuple):
    """A guest's device: whether its packets come in by its ingress, or by its egress."""

    name: str
    ingress: bool = True


class Wire:
    """A guest's device and a peer's on one network.

    :ivar nic: the guest's
    """

    def __init__(self, guest, peer, nic):
        self.guests, self.peer, self.nic = guest, peer, nic

    def send(self, frame, queue=0):
        os.write(self.guests[queue], frame)

    def receive(self, timeout_s=0.0):
        """Every frame of the guest's that the peer has by now, header included.

        :param timeout_s: how long to wait for the first
        """
        ends = time.monotonic() + timeout_s
        while not (frames := list(self._waiting())) and time.monotonic() < ends:
            select.select([self.peer], [], [], max(0.0, ends - time.monotonic()))
        return frames

    def _waiting(self):
        with contextlib.suppress(BlockingIOError):
            while True:
                frame = os.read(self.peer, 1 << 17)
                if frame[len(PLAIN) + 6:len(PLAIN) + 12] == GUEST_MAC:    # else the host's own
                    yield frame

    def send_numbers(self, numbers, size=60, queue=0):
        for number in numbers:
            self.send(numbered(number, size), queue)

    def numbers(self, timeout_s=0.0):
        """Those of the numbered frames that the peer has by now."""
        return [number_of(frame) for frame in self.receive(timeout_s)]

    def close(self):
        for descriptor in (*self.guests, self.peer):
            os.close(descriptor)


def numbered(number, size=60):
    return (PLAIN + NUMBERED.pack(PEER_MAC, GUEST_MAC, 0x88b5, number)).ljust(size + len(PLAIN),
                                                                             b'\0')


def number_of(frame):
    return NUMBERED.unpack_from(frame, len(PLAIN))[3]


def tap_wire(queues=1):
    """Taps on a bridge, as Nova and libvirt make them."""
    guests = tuple(tap(GUEST, queues) for _ in range(queues))
    peer = tap(PEER)
    links('link add hsbridge type bridge mcast_snooping 0',
          *(f'link set {name} master hsbridge' for name in (GUEST, PEER)),
          *_up('hsbridge', GUEST, PEER))
    run('bridge', 'fdb', 'add', PEER_MAC.hex(':'), 'dev', PEER, 'master', 'static')
    return Wire(guests, peer, Nic(GUEST))


def macvtap_wire(queues=1):
    """Macvtaps on one link of the host's."""
    links('link add hslink type veth peer name hsfar', *_up('hslink', 'hsfar'),
          *(f'link add {name} link hslink address {mac.hex(":")} numtxqueues {queues} '
            f'numrxqueues {queues} type macvtap mode bridge'
            for name, mac in ((GUEST, GUEST_MAC), (PEER, PEER_MAC))),
          *_up(GUEST, PEER))
    guests = tuple(_macvtap(GUEST, queues) for _ in range(queues))
    return Wire(guests, _macvtap(PEER, 1), Nic(GUEST, ingress=False))


KINDS = {'tap': tap_wire, 'macvtap': macvtap_wire}


def _up(*names):
    return [line for name in names for line in (
        f'link set {name} addrgenmode none txqueuelen {_QUEUE_LENGTH} allmulticast on',
        f'link set {name} up')]


def tap(name, queues=1):
    """The descriptor of a new tap, or of one more queue of it."""
    return _opened('/dev/net/tun', name, queues)


def _macvtap(name, queues):
    """By its device number: sysfs has the devices of the network that mounted it."""
    with tempfile.TemporaryDirectory(prefix='hotsnap-wires-') as folder:
        sysfs = pathlib.Path(folder, 'sys')
        sysfs.mkdir()
        run('mount', '-t', 'sysfs', 'sysfs', str(sysfs))
        try:
            (found,) = sysfs.glob(f'class/net/{name}/tap*/dev')
            major, minor = map(int, found.read_text().split(':'))
        finally:
            run('umount', str(sysfs))
        node = f'{folder}/tap'
        os.mknod(node, 0o600 | 0o020000, os.makedev(major, minor))
        return _opened(node, name, queues)


def _opened(path, name, queues):
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    flags = _TAP | _NO_INFORMATION | _HEADER | (_QUEUES if queues > 1 else 0)
    fcntl.ioctl(descriptor, _SET_INTERFACE, struct.pack('16sH22x', name.encode(), flags))
    fcntl.ioctl(descriptor, _SET_OFFLOAD, _ALL_OFFLOADS)
    # Without end, as QEMU has it.
    fcntl.ioctl(descriptor, _SET_SEND_BUFFER, struct.pack('i', 0x7fffffff))
    return descriptor


def qdiscs() -> str:
    """Those at the guest's device, as tc tells."""
    return run('tc', 'qdisc', 'show', 'dev', GUEST)


def filters() -> str:
    """Likewise the filters, of both ways."""
    return ''.join(run('tc', 'filter', 'show', 'dev', GUEST, side)
                   for side in ('ingress', 'egress'))


def devices() -> str:
    """All taps."""
    return run('ip', '-br', 'link', 'show', 'type', 'tun')
