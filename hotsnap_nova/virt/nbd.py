# SPDX-License-Identifier: Apache-2.0
"""NBD's negotiation, less the offer to flush.

QEMU flushes every node it has, under its big lock, whenever a guest stops: for
our cut and for anybody's suspend. A flush of our target would keep the guest
waiting for our store. QEMU flushes only what offers it; durability is the
storage daemon's, when it closes, and the store's, when it publishes.

Source: the NBD protocol, https://github.com/NetworkBlockDevice/nbd, doc/proto.md,
"Fixed newstyle negotiation" and "Option reply types".
"""

import struct

_MAGIC = 0x3e889045565a9
#: Magic, option, type of the reply, length of its data.
_HEADER = struct.Struct('>QIII')
_OPT_GO = 7
_REP_ACK = 1
_REP_INFO = 3
#: Type of the information, size of the export, transmission flags.
_EXPORT = struct.Struct('>HQH')
_INFO_EXPORT = 0
_FLAG_SEND_FLUSH = 1 << 2


class Negotiation:
    """What a server says, after its greeting, until transmission begins."""

    def __init__(self):
        self._pending = b''
        self._over = False

    def feed(self, data: bytes) -> bytes:
        """What may be passed on now that ``data`` has come too."""
        if self._over:
            return data
        self._pending += data
        passed = b''
        while not self._over and len(self._pending) >= _HEADER.size:
            magic, option, kind, length = _HEADER.unpack_from(self._pending)
            if magic != _MAGIC:
                break    # no reply to an option: nothing we understand
            end = _HEADER.size + length
            if len(self._pending) < end:
                return passed
            payload, rest = self._pending[_HEADER.size:end], self._pending[end:]
            if kind == _REP_INFO and length == _EXPORT.size:
                payload = _without_flush(payload)
            passed += self._pending[:_HEADER.size] + payload
            self._pending = rest
            self._over = option == _OPT_GO and kind == _REP_ACK
        if self._over or len(self._pending) >= _HEADER.size:
            self._over = True
            passed, self._pending = passed + self._pending, b''
        return passed


def _without_flush(payload: bytes) -> bytes:
    info, size, flags = _EXPORT.unpack(payload)
    if info != _INFO_EXPORT:
        return payload
    return _EXPORT.pack(info, size, flags & ~_FLAG_SEND_FLUSH)
