# SPDX-License-Identifier: Apache-2.0
"""What an NBD server says, less the offer to flush; and why it refused a request.

QEMU flushes every node it has, under its big lock, whenever a guest stops: for
our cut and for anybody's suspend. A flush of our target would keep the guest
waiting for our store. QEMU flushes only what offers it; durability is the
storage daemon's, when it closes, and the store's, when it publishes.

A refusal reaches only QEMU's filter, which then breaks the snapshot without a
word: the reason is heard here, in passing.

Source: the NBD protocol, https://github.com/NetworkBlockDevice/nbd, doc/proto.md,
"Fixed newstyle negotiation", "Option reply types", "Transmission phase".
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


#: Magic and error of a simple reply; a handle follows.
_SIMPLE = struct.Struct('>II8x')
_SIMPLE_MAGIC = 0x67446698
#: Magic, flags, type, handle and length of one chunk of a structured reply.
_CHUNK = struct.Struct('>IHH8xI')
_CHUNK_MAGIC = 0x668e33ef
#: The same with extended headers, which QEMU prefers: offset, then length.
_EXTENDED = struct.Struct('>IHH8x8xQ')
_EXTENDED_MAGIC = 0x6e8a278c
_ERROR_TYPE = 1 << 15


class Conversation:
    """What a server says, after its greeting.

    :ivar error: errno of the first request it refused
    """

    def __init__(self):
        self._pending = b''
        self._over = False
        self._replies = _Replies()

    @property
    def error(self) -> int | None:
        return self._replies.error

    def transmit(self) -> None:
        """Negotiation is over, whatever was heard of it."""
        self._over = True

    def feed(self, data: bytes) -> bytes:
        """What may be passed on now that ``data`` has come too."""
        if self._over:
            self._replies.hear(data)
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
            self._replies.hear(self._pending)
            passed, self._pending = passed + self._pending, b''
        return passed


class _Replies:
    """Replies to requests, none of which is a read: heard, and left alone."""

    def __init__(self):
        self._pending = b''
        self._lost = False
        self.error: int | None = None

    def hear(self, data: bytes) -> None:
        if self._lost:
            return
        self._pending += data
        while len(self._pending) >= _CHUNK.size or (
                len(self._pending) >= _SIMPLE.size
                and _SIMPLE.unpack_from(self._pending)[0] == _SIMPLE_MAGIC):
            used = self._one()
            if not used:
                return
            self._pending = self._pending[used:]

    def _one(self) -> int:
        """How many bytes the next reply has; 0 where it is not whole or not understood."""
        magic, error = _SIMPLE.unpack_from(self._pending)
        if magic == _SIMPLE_MAGIC:
            self._note(error)
            return _SIMPLE.size
        form = {_CHUNK_MAGIC: _CHUNK, _EXTENDED_MAGIC: _EXTENDED}.get(magic)
        if form is None:
            self._lost, self._pending = True, b''
            return 0
        if len(self._pending) < form.size:
            return 0
        _magic, _flags, kind, length = form.unpack_from(self._pending)
        if len(self._pending) < form.size + length:
            return 0
        if kind & _ERROR_TYPE and length >= 4:
            self._note(struct.unpack_from('>I', self._pending, form.size)[0])
        return form.size + length

    def _note(self, error: int) -> None:
        if error and self.error is None:
            self.error = error


def _without_flush(payload: bytes) -> bytes:
    info, size, flags = _EXPORT.unpack(payload)
    if info != _INFO_EXPORT:
        return payload
    return _EXPORT.pack(info, size, flags & ~_FLAG_SEND_FLUSH)
