# SPDX-License-Identifier: Apache-2.0
"""One way of a gate in the host kernel, outward or inward: what it holds, and puts back.

It belongs to the holder's process; others have its :class:`word.Word`.
"""

import contextlib
import dataclasses
import os
import struct
import time

from hotsnap_nova.virt.gates import bpf, holding, hooks, kept
from hotsnap_nova.virt.gates.word import State, Word

_NIC = struct.Struct('IIQQQQQQQQ')
_WAY_BACK = struct.Struct('III')
_KEY = struct.Struct('I')
_PLACE = struct.Struct('II')
_INGRESS = 1
#: As in the program, on what comes back: outward, and inward one more.
_MARK_BACK = 0x68734802
#: Frames written and not seen again, at the most: a processor's backlog holds 1000.
_UNDERWAY = 256
_BATCH = 64
#: As in the program; the first twice, for the clock is read here.
_SETTLE_NS, GRACE_NS = 2 * 20_000, 20_000_000
#: Between looks at what is still on its way.
_PAUSE_S = 0.0005


@dataclasses.dataclass(frozen=True)
class Counters:
    """Of one NIC, since it was armed. Packets; ``*_bytes`` in bytes."""

    held: int
    held_bytes: int
    delivered: int
    delivered_bytes: int
    overflow: int
    last_back_ns: int

    @property
    def outstanding(self) -> int:
        """Held and not seen again."""
        return self.held - self.delivered


@dataclasses.dataclass(frozen=True)
class Nic:
    """A guest's network device.

    :ivar ingress: whether what the guest sends comes in by its ingress; what it is sent goes by
        the other side
    """

    ifindex: int
    name: str
    ingress: bool


class Way:
    """What a guest sends, or is sent, at all NICs of one gate.

    :param loaded: the gate's programs and maps; the caller's to close
    :param tag: the gate's
    :param limits: packets and bytes that a NIC may have held
    """

    def __init__(self, loaded: bpf.Loaded, tag: str, limits: tuple[int, int], *,
                 inward: bool = False):
        self.tag, self.inward = tag, inward
        self._loaded, self._limits = loaded, limits
        self._devices: dict[int, holding.HoldingDevice] = {}
        self._nics: dict[int, Nic] = {}
        #: Why what a NIC had held is lost.
        self._failures: dict[int, str] = {}
        self._ends = contextlib.ExitStack()
        self.word = self._ends.enter_context(Word(os.dup(loaded.map('gates')), inward=inward))
        self.word.set(State.ARMED)

    def add(self, nic: Nic) -> None:
        """Arm it there too.

        :raises bpf.GateUnavailable: its program may be there; the rest goes when this is closed
        """
        device = holding.HoldingDevice(self._limits[0])
        self._ends.callback(device.close)
        by_ingress = self._by_ingress(nic)
        bpf.update(self._loaded.map('nics'), self._place(nic.ifindex),
                   _NIC.pack(device.ifindex, 0, *self._limits, 0, 0, 0, 0, 0, 0))
        bpf.update(self._loaded.map('ways_back'), _KEY.pack(device.ifindex),
                   _WAY_BACK.pack(nic.ifindex, _INGRESS if by_ingress else 0,
                                  _MARK_BACK + self.inward))
        hooks.attach(device.ifindex, False, self._loaded.program('into_holding'), self.tag)
        hooks.attach(device.ifindex, True, self._loaded.program('put_back'), self.tag)
        device.up()
        hooks.attach(nic.ifindex, by_ingress,
                     self._loaded.program('to_guest' if self.inward else 'from_guest'), self.tag)
        self._devices[nic.ifindex], self._nics[nic.ifindex] = device, nic

    def _by_ingress(self, nic):
        return nic.ingress is not self.inward

    def _place(self, ifindex):
        return _PLACE.pack(ifindex, self.inward)

    @property
    def places(self) -> tuple[tuple[int, bool], ...]:
        """Where its program is: a device, and whether at its ingress."""
        return tuple((ifindex, self._by_ingress(nic)) for ifindex, nic in self._nics.items())

    @property
    def fds(self) -> tuple[int, ...]:
        """Readable when a NIC has something held; without those of devices that are gone."""
        return tuple(device.fd for ifindex, device in self._devices.items()
                     if ifindex not in self._failures)

    def give_up(self, descriptors: set[int]) -> None:
        """These of :attr:`fds` are broken: somebody deleted the holding device."""
        for ifindex, device in self._devices.items():
            if device.fd in descriptors:
                self._fail(ifindex, 'it was deleted')

    def _fail(self, ifindex, reason):
        self._failures.setdefault(
            ifindex, f'the holding device of {self._nics[ifindex].name}: {reason}')

    @property
    def failure(self) -> str:
        """Why not all that was held is on its way, nor will be; '' where it is."""
        return '; '.join(self._failures.values())

    def counters(self) -> tuple[Counters, ...]:
        """Each NIC's, in the order they were added."""
        return tuple(map(self._counters_of, self._devices))

    def _counters_of(self, ifindex):
        values = _NIC.unpack(bpf.lookup(self._loaded.map('nics'), self._place(ifindex),
                                        _NIC.size))
        return Counters(*values[4:])

    @property
    def lost(self) -> int:
        """Frames that were held and that the kernel did not take back."""
        return sum(device.lost for device in self._devices.values())

    def put_back(self) -> None:
        """Bring what is held on its way, in order, until every NIC's packets pass by themselves.

        The way is releasing, or its lease has ended; afterwards it is open. Repeatable. This
        thread stays on one processor meanwhile: two might deliver in another order. A way that
        is armed, or closed and its lease has not ended, stays as it is. Where a holding device
        fails, which :attr:`failure` tells, the others' packets go.
        """
        if self.word.state is State.ARMED or self.word.holds:
            return
        before = os.sched_getaffinity(0)
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, {min(before)})
        try:
            waiting = set(self._devices) - set(self._failures)
            while waiting:
                moved = [ifindex for ifindex in waiting if self._batch(ifindex)]
                if not moved:
                    waiting = {ifindex for ifindex in waiting if not self._passes(ifindex)}
                    kept.ready([self._devices[each].fd for each in waiting], _PAUSE_S)
        finally:
            with contextlib.suppress(OSError):
                os.sched_setaffinity(0, before)
        self.word.set(State.OPEN)

    def _batch(self, ifindex):
        """Put a few frames of this NIC back; how many."""
        device = self._devices[ifindex]
        underway = device.written - self._counters_of(ifindex).delivered
        # More would overflow a queue of the kernel, where it is too busy to empty that at once.
        if underway < _UNDERWAY or self._over():
            try:
                return device.put_back(_BATCH)
            except OSError as exc:
                self._fail(ifindex, exc.strerror)
        return 0

    def _passes(self, ifindex):
        """Whether nothing of this NIC waits any more, nor will."""
        if ifindex in self._failures:
            return True
        counters = self._counters_of(ifindex)
        settled_ns = counters.last_back_ns + _SETTLE_NS
        return self._over() or (counters.outstanding <= 0
                                and time.clock_gettime_ns(time.CLOCK_BOOTTIME) > settled_ns)

    def _over(self):
        """Whether packets have stopped to wait, whatever is still held."""
        grace_ns = GRACE_NS if self.word.state is State.CLOSED else 0
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) > self.word.until_ns + grace_ns

    def close(self) -> None:
        """Let go of its holding devices and its word; what is still held is gone. Repeatable."""
        self._ends.close()
