# SPDX-License-Identifier: Apache-2.0
"""A gate in the host kernel: :file:`gate.bpf.c` at the network devices of guests.

What is here runs in the holder's process, but for :class:`Word`, by which whoever
has the descriptor of a gate's map closes and releases it.
"""

import contextlib
import dataclasses
import enum
import os
import pathlib
import socket
import struct
import time

from hotsnap_nova import exception
from hotsnap_nova.virt.gates import bpf, holding, hooks

#: Made from the source beside it when the wheel is built.
OBJECT = pathlib.Path(__file__).with_name('gate.bpf.o')
#: What a NIC may have waiting; beyond it packets are dropped, and counted.
LIMIT_PACKETS, LIMIT_BYTES = 20_000, 256 << 20
#: From the release on, how long packets wait behind those held. A guest that sends faster
#: than the holder puts back has its order disturbed once, when this is over.
RELEASE_MS = 100
_NIC = struct.Struct('IIQQQQQQQQ')
_WAY_BACK = struct.Struct('II')
_KEY = struct.Struct('I')
_INGRESS = 1
_STATE_SHIFT = 62
_TIME_MASK = (1 << _STATE_SHIFT) - 1
#: Frames written and not seen again, at the most: a processor's backlog holds 1000.
_UNDERWAY = 256
_BATCH = 64
#: As in the program; twice, for the clock is read here.
_SETTLE_NS = 2 * 20_000


class State(enum.IntEnum):
    """What the word says; the program has what each means."""

    OPEN = 0
    ARMED = 1
    CLOSED = 2
    RELEASING = 3


class Word(contextlib.AbstractContextManager):
    """What one gate does, for whoever may write it: one store, no call into the kernel.

    :param map_fd: the gate's map; closed with this
    """

    def __init__(self, map_fd: int):
        self._fd = map_fd
        self._shared = contextlib.ExitStack()
        self._words = self._shared.enter_context(bpf.shared_words(map_fd))

    def close_gate(self, max_hold_ms: int) -> int:
        """From now on all is held. When it ends by itself, by CLOCK_BOOTTIME in ns."""
        until_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + max_hold_ms * 1_000_000
        self._words[0] = State.CLOSED << _STATE_SHIFT | until_ns
        return until_ns

    def release(self) -> None:
        """What comes waits behind what is held, until the holder has put that back."""
        until_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + RELEASE_MS * 1_000_000
        self._words[0] = State.RELEASING << _STATE_SHIFT | until_ns

    def set(self, state: State) -> None:
        self._words[0] = state << _STATE_SHIFT

    @property
    def state(self) -> State:
        return State(self._words[0] >> _STATE_SHIFT)

    @property
    def until_ns(self) -> int:
        """When what the state says ends, by CLOCK_BOOTTIME; 0: it has no end."""
        return self._words[0] & _TIME_MASK

    @property
    def lapsed(self) -> int:
        """Packets that passed because the lease had ended: it opened by itself."""
        return self._words[1]

    def close(self) -> None:
        """Let go of the map; the gate stays as it is. Repeatable."""
        self._shared.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __exit__(self, *_):
        self.close()


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
    """A guest's network device on the host.

    :param ingress: its packets come in by the device's ingress, as with a tap; by its
        egress, as with a macvtap
    """

    name: str
    ingress: bool = True


class KernelGate:
    """One gate, for one or more NICs, armed: everything passes until its word is changed.

    :param tag: by which a later process knows whose it was
    :raises exception.HotsnapError: nothing of it is left
    """

    def __init__(self, tag: str, nics: tuple[Nic, ...], *, packets: int = LIMIT_PACKETS,
                 size: int = LIMIT_BYTES):
        self.tag = tag
        self._limits = packets, size
        self._devices: dict[int, holding.HoldingDevice] = {}
        self._hooks: list[int] = []
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

    def _add(self, nic: Nic):
        try:
            ifindex = socket.if_nametoindex(nic.name)
        except OSError as exc:
            raise bpf.GateUnavailable(reason=f'there is no device {nic.name}') from exc
        device = holding.HoldingDevice(self._limits[0])
        self._ends.callback(device.close)
        bpf.update(self._loaded.map('nics'), _KEY.pack(ifindex),
                   _NIC.pack(device.ifindex, 0, *self._limits, 0, 0, 0, 0, 0, 0))
        bpf.update(self._loaded.map('ways_back'), _KEY.pack(device.ifindex),
                   _WAY_BACK.pack(ifindex, _INGRESS if nic.ingress else 0))
        hooks.attach(device.ifindex, False, self._loaded.program('into_holding'), self.tag)
        hooks.attach(device.ifindex, True, self._loaded.program('put_back'), self.tag)
        device.up()
        self._ends.callback(self._detach, ifindex)
        hooks.attach(ifindex, nic.ingress, self._loaded.program('from_guest'), self.tag)
        self._devices[ifindex] = device

    def _detach(self, ifindex):
        for hook in hooks.leftovers(ifindex):
            if hook.name == self.tag:
                hooks.detach(hook)

    @property
    def fds(self) -> tuple[int, ...]:
        """Readable when a NIC has something held."""
        return tuple(device.fd for device in self._devices.values())

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

    def put_back(self) -> None:
        """Bring what is held on its way, in order, until every NIC's packets pass by themselves.

        The gate is releasing, or its lease has ended; afterwards it is open. It stays on one
        processor meanwhile: two might deliver in another order than they were given.
        """
        before = os.sched_getaffinity(0)
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, {min(before)})
        try:
            waiting = set(self._devices)
            while waiting:
                waiting = {ifindex for ifindex in waiting if not self._batch(ifindex)}
        finally:
            with contextlib.suppress(OSError):
                os.sched_setaffinity(0, before)
        self.word.set(State.OPEN)

    def _batch(self, ifindex):
        """Whether nothing of this NIC waits any more."""
        device = self._devices[ifindex]
        before = self._counters_of(ifindex).delivered
        done = sum(device.put_back(_BATCH) for _ in range(_UNDERWAY // _BATCH))
        counters = self._counters_of(ifindex)
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        if counters.delivered - before < done:
            # Some are still in a queue of the kernel; another process delivers those.
            os.sched_yield()
        if done:
            return False
        if now > self._ends_ns():
            return True
        return counters.outstanding <= 0 and now > counters.last_back_ns + _SETTLE_NS

    def _ends_ns(self):
        grace_ns = 20_000_000 if self.word.state is State.CLOSED else 0
        return self.word.until_ns + grace_ns

    def close(self) -> None:
        """Take it all out; what is still held is gone. Repeatable."""
        self._ends.close()


def object_path() -> str:
    """Where the programs are.

    :raises bpf.GateUnavailable: this package was built without
    """
    if not OBJECT.exists():
        raise bpf.GateUnavailable(
            reason=f'this package was built without {OBJECT.name}: install clang and libbpf-dev '
                   'where it is built')
    return str(OBJECT)


def remove(device: str) -> None:
    """Take out what any process left at a device; what others have there stays.

    :raises exception.HotsnapError: it is still there
    """
    try:
        ifindex = socket.if_nametoindex(device)
    except OSError:
        return
    failed: list[exception.HotsnapError] = []
    for hook in hooks.leftovers(ifindex):
        try:
            hooks.detach(hook)
        except exception.HotsnapError as exc:
            failed.append(exc)
    if failed:
        raise failed[0]
