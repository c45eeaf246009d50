# SPDX-License-Identifier: Apache-2.0
"""One gate as the holder has it: threads that put back what was held when its time has come."""

import contextlib
import dataclasses
import os
import select
import sys
import threading
import time
import traceback

from hotsnap_nova.virt.gates import bpf, word


@dataclasses.dataclass(frozen=True)
class Account:
    """What a gate did, all NICs together; packets. Both ways, where it does not say which.

    :ivar held: of those that the guest sent; likewise ``delivered``
    :ivar overflow: dropped, for more were held than may be
    :ivar lost: held, and not taken back by the kernel
    :ivar outstanding: held and not put back so far
    :ivar lapsed: passed because the lease had ended: it opened by itself
    :ivar bypassed: NICs at which our program is not the first any more: what passed is not known
    :ivar marked: sent with a mark
    :ivar kept: not delivered at once, for a mark had come
    :ivar kept_lapsed: delivered because that lease had ended, with or without a cut
    """

    held: int
    delivered: int
    overflow: int
    lost: int
    outstanding: int
    lapsed: int
    bypassed: tuple[str, ...] = ()
    marked: int = 0
    kept: int = 0
    kept_lapsed: int = 0


def ready(descriptors, timeout_s: float | None) -> dict[int, int]:
    """Those of them that can be read or are broken, and which, as poll tells it.

    select would not do: a holder of many gates has descriptors beyond its 1024.

    :param timeout_s: how long to wait for the first; None: without end
    """
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return dict(poll.poll(None if timeout_s is None else timeout_s * 1000))


class Kept:
    """One gate, watched over by a thread for each of its ways.

    :param gate: a ``kernel.KernelGate``
    :ivar asks: readable once a mark has asked for the cut; None where nothing is marked. It is
        closed with this
    """

    def __init__(self, gate):
        self.gate = gate
        self.asks = None
        self._ways = [_Way(gate)]
        if gate.inward_way:
            self.asks = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self._ways.append(_Way(gate.inward_way, self.asks))

    def start(self) -> None:
        """All of its threads, or none."""
        with contextlib.ExitStack() as undo:
            for each in self._ways:
                each.start()
                undo.callback(each.end)
            undo.pop_all()

    def wake(self) -> None:
        """Have a look at the words."""
        for each in self._ways:
            each.wake()

    def put_back(self) -> None:
        """Wait until what is held now is on its way, or lost: then :meth:`account` tells."""
        for each in self._ways:
            each.put_back()

    def release(self) -> None:
        """Have what is held put back, whoever should have said so."""
        for each in self._ways:
            each.release()

    def end(self) -> None:
        """Put back what is held, and take the gate out."""
        self.release()
        for each in self._ways:
            each.end()
        try:
            self.gate.close()
        finally:
            self.close()

    def close(self) -> None:
        """What this has beside the gate, when its threads are no more or never were."""
        for each in self._ways:
            each.close()
        if self.asks is not None:
            os.close(self.asks)
            self.asks = None

    def account(self) -> dict:
        """What it did, as :class:`Account` has it.

        :raises bpf.GateUnavailable: not all of what was held is on its way, nor will be
        """
        if failure := '; '.join(filter(None, (each.failure for each in self._ways))):
            raise bpf.GateUnavailable(reason=failure)
        gate, inward = self.gate, self.gate.inward_way
        sent = gate.counters()
        every = sent + (inward.counters() if inward else ())
        return dataclasses.asdict(Account(
            held=sum(each.held for each in sent),
            delivered=sum(each.delivered for each in sent),
            overflow=sum(each.overflow for each in every),
            lost=gate.lost + (inward.lost if inward else 0),
            outstanding=sum(each.outstanding for each in every),
            lapsed=gate.word.lapsed, bypassed=gate.bypassed(),
            marked=gate.marked().marked,
            kept=sum(each.held for each in every) - sum(each.held for each in sent),
            kept_lapsed=inward.word.lapsed if inward else 0))


class _Way(threading.Thread):
    """One way; its own thread, for another's packets must not wait for this one's.

    :param way: a ``way.Way``
    :param asks: written to once, when a mark has closed it
    """

    def __init__(self, way, asks: int | None = None):
        super().__init__(name=f'gate-{way.tag}', daemon=True)
        self._way, self._asks = way, asks
        self._wakes, self._wake = os.pipe()
        self._ending = False
        self._changed = threading.Condition()
        self._asked = self._done = 0
        self._failure = ''

    def run(self) -> None:
        try:
            while True:
                with self._changed:
                    asked, ending = self._asked, self._ending
                self._tell_of_a_mark()
                if self._due() or asked != self._done:
                    self._way.put_back()
                    self._has_done(asked)
                elif ending:
                    return
                else:
                    self._wait()
        except Exception as exc:
            self._failure = f'{type(exc).__name__}: {exc}'
            tell()
        finally:
            self._has_done(sys.maxsize)    # nobody waits for who is gone

    @property
    def failure(self) -> str:
        """Why not all that was held is on its way, nor will be; '' where it is."""
        return self._failure or self._way.failure

    def _has_done(self, asked):
        with self._changed:
            self._done = asked
            self._changed.notify_all()

    def _tell_of_a_mark(self):
        if self._asks is not None and self._way.word.state is word.State.CLOSED:
            os.eventfd_write(self._asks, 1)
            self._asks = None

    def _due(self):
        """Whether there is something to put back though nobody asks."""
        state = self._way.word.state
        if state is word.State.CLOSED:
            return self._left_s() <= 0
        # Something may be late where more was held than could be put back in time.
        return state is word.State.RELEASING or (
            state is word.State.OPEN and bool(ready(self._way.fds, 0)))

    def _left_s(self):
        left_ns = self._way.word.until_ns - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        return max(0.0, left_ns / 1e9)

    def _wait(self):
        """Until somebody asks, the lease ends or, where it is not known to be closed, it holds."""
        if self._way.word.state is word.State.CLOSED:
            watched, timeout_s = [self._wakes], self._left_s()
        else:
            watched, timeout_s = [self._wakes, *self._way.fds], None
        found = ready(watched, timeout_s)
        if self._wakes in found:
            os.read(self._wakes, 4096)
        self._way.give_up({each for each, how in found.items() if how & ~select.POLLIN})

    def wake(self, *, ending: bool = False) -> int:
        """Have a look at the word; the number of this request."""
        with self._changed:
            self._asked += 1
            self._ending = self._ending or ending
            os.write(self._wake, b'.')
            return self._asked

    def put_back(self) -> None:
        asked = self.wake()
        with self._changed:
            self._changed.wait_for(lambda: self._done >= asked)

    def release(self) -> None:
        # An armed one too: a mark that comes now would close it, behind our back.
        if self._way.word.state in (word.State.ARMED, word.State.CLOSED):
            self._way.word.release()
        self.wake()

    def end(self) -> None:
        self.wake(ending=True)
        self.join()

    def close(self) -> None:
        os.close(self._wake)
        os.close(self._wakes)


def started(gate) -> Kept:
    """It, watched over; where that fails the gate is still the caller's."""
    made = Kept(gate)
    try:
        made.start()
    except BaseException:
        made.close()
        raise
    return made


def end_all(gates: tuple[Kept, ...]) -> None:
    """Release all at once, then take each out, whatever goes wrong with another.

    What could not be taken out is open, and a later process's to sweep.
    """
    for each in gates:
        with contextlib.suppress(Exception):
            each.release()
    for each in gates:
        try:
            each.end()
        except Exception:
            tell()


def tell() -> None:
    """What just went wrong, to the service's log, where somebody still reads that."""
    with contextlib.suppress(OSError):
        traceback.print_exc()
