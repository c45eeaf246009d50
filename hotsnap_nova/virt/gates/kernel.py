# SPDX-License-Identifier: Apache-2.0
"""A gate in the host kernel: :file:`gate.bpf.c` at the network devices of guests.

It belongs to the holder's process; others have its :class:`Word`.
"""

import contextlib
import dataclasses
import os
import pathlib
import socket
import struct
import time

from hotsnap_nova.virt.gates import bpf, holder, holding, hooks, kept
from hotsnap_nova.virt.gates.word import State, Word

#: Made from the source beside it when the wheel is built.
OBJECT = pathlib.Path(__file__).with_name('gate.bpf.o')
_NIC = struct.Struct('IIQQQQQQQQ')
_WAY_BACK = struct.Struct('II')
_KEY = struct.Struct('I')
_INGRESS = 1
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


class KernelGate:
    """One gate, for one or more NICs, armed: everything passes until its word is changed.

    :param tag: by which a later process knows whose it was
    :param nics: names of guests' network devices on the host, taps or macvtaps
    :raises bpf.GateUnavailable: nothing of it is left
    """

    def __init__(self, tag: str, nics: tuple[str, ...], *,
                 packets: int = holder.LIMIT_PACKETS, size: int = holder.LIMIT_BYTES):
        self.tag = tag
        self._limits = packets, size
        self._devices: dict[int, holding.HoldingDevice] = {}
        #: The name, and whether the guest's packets come in by its ingress.
        self._nics: dict[int, tuple[str, bool]] = {}
        #: Why what a NIC had held is lost.
        self._failures: dict[int, str] = {}
        self._ends = contextlib.ExitStack()
        with contextlib.ExitStack() as undo:
            undo.callback(self._ends.close)
            self._loaded = bpf.Loaded(object_path())
            self._ends.callback(self._loaded.close)
            self.word = self._ends.enter_context(Word(os.dup(self._loaded.map('gates'))))
            self.word.set(State.ARMED)
            for nic in nics:
                self._add(nic)
            undo.pop_all()

    def _add(self, nic: str):
        try:
            ifindex = socket.if_nametoindex(nic)
        except OSError as exc:
            raise bpf.GateUnavailable(reason=f'there is no device {nic}') from exc
        ingress = hooks.by_ingress(ifindex)
        device = holding.HoldingDevice(self._limits[0])
        self._ends.callback(device.close)
        bpf.update(self._loaded.map('nics'), _KEY.pack(ifindex),
                   _NIC.pack(device.ifindex, 0, *self._limits, 0, 0, 0, 0, 0, 0))
        bpf.update(self._loaded.map('ways_back'), _KEY.pack(device.ifindex),
                   _WAY_BACK.pack(ifindex, _INGRESS if ingress else 0))
        hooks.attach(device.ifindex, False, self._loaded.program('into_holding'), self.tag)
        hooks.attach(device.ifindex, True, self._loaded.program('put_back'), self.tag)
        device.up()
        self._ends.callback(remove, nic, self.tag)
        hooks.attach(ifindex, ingress, self._loaded.program('from_guest'), self.tag)
        self._devices[ifindex], self._nics[ifindex] = device, (nic, ingress)

    @property
    def map_fd(self) -> int:
        """By which another process has the word too; ours, not to close."""
        return self._loaded.map('gates')

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
            ifindex, f'the holding device of {self._nics[ifindex][0]}: {reason}')

    @property
    def failure(self) -> str:
        """Why not all that was held is on its way, nor will be; '' where it is."""
        return '; '.join(self._failures.values())

    def counters(self) -> tuple[Counters, ...]:
        """Each NIC's, in the order they were named."""
        return tuple(map(self._counters_of, self._devices))

    def _counters_of(self, ifindex):
        values = _NIC.unpack(bpf.lookup(self._loaded.map('nics'), _KEY.pack(ifindex), _NIC.size))
        return Counters(*values[4:])

    @property
    def lost(self) -> int:
        """Frames that were held and that the kernel did not take back."""
        return sum(device.lost for device in self._devices.values())

    def bypassed(self) -> tuple[str, ...]:
        """NICs at which somebody took our program out since, or came before it.

        :raises bpf.GateUnavailable: nobody can say
        """
        places = tuple((ifindex, ingress) for ifindex, (_, ingress) in self._nics.items())
        return tuple(self._nics[ifindex][0] for ifindex in hooks.displaced(places, self.tag))

    def put_back(self) -> None:
        """Bring what is held on its way, in order, until every NIC's packets pass by themselves.

        The gate is releasing, or its lease has ended; afterwards it is open. Repeatable. This
        thread stays on one processor meanwhile: two might deliver in another order. A gate that
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
        """Take it all out; what is still held is gone. Repeatable."""
        self._ends.close()


def object_path() -> str:
    """Where the programs are.

    :raises bpf.GateUnavailable: this package was built without
    """
    if not OBJECT.exists():
        raise bpf.GateUnavailable(
            reason=f'this package was built without {OBJECT.name}, where there was no clang')
    return str(OBJECT)


def leftovers(device: str) -> tuple[str, ...]:
    """Tags of gates at a device, whatever process put them there; none where it is gone."""
    return tuple({hook.name for hook in _hooks_at(device)})


def remove(device: str, tag: str | None = None) -> None:
    """Take out what any process left at a device; what others have there stays. Repeatable.

    :param tag: this gate's alone
    :raises bpf.GateUnavailable: something is still there
    """
    with contextlib.ExitStack() as steps:    # each, whatever another's failure
        for hook in _hooks_at(device):
            if tag in (None, hook.name):
                steps.callback(hooks.detach, hook)


def _hooks_at(device):
    try:
        ifindex = socket.if_nametoindex(device)
    except OSError:
        return ()
    return hooks.leftovers(ifindex)
