# SPDX-License-Identifier: Apache-2.0
"""One gate as the holder has it: a thread that puts back what was held when its time has come."""

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
    """What a gate did, all NICs together; packets.

    :ivar overflow: dropped, for more were held than may be
    :ivar lost: held, and not taken back by the kernel
    :ivar outstanding: held and not put back so far
    :ivar lapsed: passed because the lease had ended: it opened by itself
    :ivar bypassed: NICs at which our program is not the first any more: what passed is not known
    """

    held: int
    delivered: int
    overflow: int
    lost: int
    outstanding: int
    lapsed: int
    bypassed: tuple[str, ...] = ()


def ready(descriptors, timeout_s: float | None) -> dict[int, int]:
    """Those of them that can be read or are broken, and which, as poll tells it.

    select would not do: a holder of many gates has descriptors beyond its 1024.

    :param timeout_s: how long to wait for the first; None: without end
    """
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return dict(poll.poll(None if timeout_s is None else timeout_s * 1000))


class Kept(threading.Thread):
    """One gate; its own thread, for another's packets must not wait for this one's."""

    def __init__(self, gate):
        """:param gate: a ``kernel.KernelGate``"""
        super().__init__(name=f'gate-{gate.tag}', daemon=True)
        self.gate = gate
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
                if self._due() or asked != self._done:
                    self.gate.put_back()
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

    def _has_done(self, asked):
        with self._changed:
            self._done = asked
            self._changed.notify_all()

    def _due(self):
        """Whether there is something to put back though nobody asks."""
        state = self.gate.word.state
        if state is word.State.CLOSED:
            return self._left_s() <= 0
        # Something may be late where more was held than could be put back in time.
        return state is word.State.RELEASING or (
            state is word.State.OPEN and bool(ready(self.gate.fds, 0)))

    def _left_s(self):
        left_ns = self.gate.word.until_ns - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        return max(0.0, left_ns / 1e9)

    def _wait(self):
        """Until somebody asks, the lease ends or, where it is not known to be closed, it holds."""
        if self.gate.word.state is word.State.CLOSED:
            watched, timeout_s = [self._wakes], self._left_s()
        else:
            watched, timeout_s = [self._wakes, *self.gate.fds], None
        found = ready(watched, timeout_s)
        if self._wakes in found:
            os.read(self._wakes, 4096)
        self.gate.give_up({each for each, how in found.items() if how & ~select.POLLIN})

    def wake(self, *, ending: bool = False) -> int:
        """Have a look at the word; the number of this request."""
        with self._changed:
            self._asked += 1
            self._ending = self._ending or ending
            os.write(self._wake, b'.')
            return self._asked

    def put_back(self) -> None:
        """Wait until what is held now is on its way, or lost: then :meth:`account` tells."""
        asked = self.wake()
        with self._changed:
            self._changed.wait_for(lambda: self._done >= asked)

    def release(self) -> None:
        """Have what is held put back, whoever should have said so."""
        if self.gate.word.state is word.State.CLOSED:
            self.gate.word.release()
        self.wake()

    def end(self) -> None:
        """Put back what is held, and take the gate out."""
        self.release()
        self.wake(ending=True)
        self.join()
        try:
            self.gate.close()
        finally:
            self.close()

    def close(self) -> None:
        """What this has beside the gate, when its thread is no more or never was."""
        os.close(self._wake)
        os.close(self._wakes)

    def account(self) -> dict:
        """What it did, as :class:`Account` has it.

        :raises bpf.GateUnavailable: not all of what was held is on its way, nor will be
        """
        if failure := self._failure or self.gate.failure:
            raise bpf.GateUnavailable(reason=failure)
        each = self.gate.counters()
        return dataclasses.asdict(Account(
            *(sum(getattr(counters, name) for counters in each)
              for name in ('held', 'delivered', 'overflow')),
            lost=self.gate.lost, outstanding=sum(counters.outstanding for counters in each),
            lapsed=self.gate.word.lapsed, bypassed=self.gate.bypassed()))


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
