# SPDX-License-Identifier: Apache-2.0
"""A storage daemon's offer to flush does not reach QEMU; all else does."""

import socket
import struct

import pytest

from hotsnap_nova.virt.disks import nbd, targets
from hotsnap_nova.virt.disks import relay as relay_module

MAGIC = 0x3e889045565a9
SEND_FLUSH = 4


def reply(kind, payload=b'', option=7):
    return struct.pack('>QIII', MAGIC, option, kind, len(payload)) + payload


def export(flags):
    return struct.pack('>HQH', 0, 1 << 20, flags)


BLOCK_SIZES = struct.pack('>HIII', 3, 1, 2, 3)


def conversation(flags):
    return reply(1, option=8) + reply(3, export(flags)) + reply(3, BLOCK_SIZES) + reply(1)


SAID = conversation(0b1101_0111)
HEARD = conversation(0b1101_0011)


@pytest.mark.parametrize('size', [1, 7, 20, 33, len(SAID)])
def test_only_the_offer_to_flush_is_taken_out_however_the_bytes_come(size):
    said = nbd.Conversation()

    heard = b''.join(said.feed(SAID[at:at + size]) for at in range(0, len(SAID), size))

    assert heard == HEARD


def test_what_follows_the_negotiation_is_left_alone():
    said = nbd.Conversation()
    later = reply(3, export(0xff)) * 3

    assert said.feed(SAID + later) == HEARD + later
    assert said.feed(later) == later


def test_what_is_no_negotiation_passes():
    assert nbd.Conversation().feed(b'x' * 100) == b'x' * 100


SIMPLE = struct.pack('>IIQ', 0x67446698, 0, 1)
REFUSED = struct.pack('>IIQ', 0x67446698, 28, 2)
DONE = struct.pack('>IHHQI', 0x668e33ef, 1, 0, 3, 0)
REFUSED_CHUNK = struct.pack('>IHHQI', 0x668e33ef, 1, 1 << 15 | 1, 4, 9) + struct.pack(
    '>IH', 5, 3) + b'bad'
REFUSED_EXTENDED = struct.pack('>IHHQQQ', 0x6e8a278c, 1, 1 << 15 | 1, 5, 0, 9) + struct.pack(
    '>IH', 28, 3) + b'bad'


@pytest.mark.parametrize(('replies', 'error'), [
    (struct.pack('>IHHQQQ', 0x6e8a278c, 1, 0, 3, 0, 0) * 2 + REFUSED_EXTENDED + DONE, 28),
    (SIMPLE + DONE, None), (SIMPLE + REFUSED + DONE, 28), (DONE + REFUSED_CHUNK + REFUSED, 5),
    (b'no reply at all, but long enough' + REFUSED, None)])
@pytest.mark.parametrize('size', [1, 5, 1000])
def test_the_first_refusal_is_heard_and_nothing_is_changed(replies, error, size):
    said = nbd.Conversation()
    whole = SAID + replies

    heard = b''.join(said.feed(whole[at:at + size]) for at in range(0, len(whole), size))

    assert heard == HEARD + replies
    assert said.error == error


def test_a_real_daemon_offers_no_flush_through_a_relay(tmp_path):
    daemon = targets.StorageDaemon({'vda': (str(tmp_path / 'vda.qcow2'), 1 << 20)})
    relay = relay_module.Relay()
    qemu = relay.add('vda', *daemon.connect())
    qemu.settimeout(10)
    greeting = qemu.recv(18, socket.MSG_WAITALL)
    qemu.sendall(struct.pack('>I', 3))    # fixed newstyle, no zeroes
    go = struct.pack('>I', 3) + b'vda' + struct.pack('>H', 0)
    qemu.sendall(struct.pack('>QII', 0x49484156454f5054, 7, len(go)) + go)

    flags = None
    while True:
        magic, _option, kind, length = struct.unpack('>QIII', qemu.recv(20, socket.MSG_WAITALL))
        payload = qemu.recv(length, socket.MSG_WAITALL) if length else b''
        assert magic == MAGIC
        if kind == 1:
            break
        if struct.unpack_from('>H', payload)[0] == 0:
            flags = struct.unpack('>HQH', payload)[2]

    assert greeting.startswith(b'NBDMAGIC')
    assert flags is not None
    assert not flags & SEND_FLUSH
    qemu.close()
    relay.close()
    daemon.close()
