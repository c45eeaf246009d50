# SPDX-License-Identifier: Apache-2.0
"""The word that says what a gate in the host kernel does; see :file:`gate.bpf.c`.

Whoever has the descriptor of a gate's map closes and releases all its NICs by one store, without
a call into the kernel and without libbpf: that is all a participant does inside the pause.
"""

import contextlib
import enum
import mmap
import os
import time

#: From the release on, how long packets wait behind those held. A guest that sends faster
#: than the holder puts back has its order disturbed once, when this is over.
RELEASE_MS = 100
_STATE_SHIFT = 62
_TIME_MASK = (1 << _STATE_SHIFT) - 1
#: Words a way: this one, and how often it lapsed.
_A_WAY = 2


class State(enum.IntEnum):
    """What the word says; the program has what each means."""

    OPEN = 0
    ARMED = 1
    CLOSED = 2
    RELEASING = 3


class Word(contextlib.AbstractContextManager):
    """What one gate does, for whoever may write it: one store, no call into the kernel.

    :param map_fd: the gate's map; closed with this
    :param inward: with what its guest is sent, not with what it sends
    """

    def __init__(self, map_fd: int, *, inward: bool = False):
        self._fd = map_fd
        self._at = _A_WAY if inward else 0
        self._shared = contextlib.ExitStack()
        try:
            memory = self._shared.enter_context(mmap.mmap(map_fd, mmap.PAGESIZE))
        except BaseException:
            self.close()
            raise
        # Whole words of 64 bits: a state never goes with another's time.
        self._words = self._shared.enter_context(memoryview(memory).cast('Q'))

    def close_gate(self, max_hold_ms: int) -> int:
        """From now on all is held. When it ends by itself, by CLOCK_BOOTTIME in ns."""
        until_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + max_hold_ms * 1_000_000
        self._words[self._at] = State.CLOSED << _STATE_SHIFT | until_ns
        return until_ns

    def release(self, within_ms: int = RELEASE_MS) -> None:
        """What comes waits behind what is held, until the holder has put that back.

        :param within_ms: from then on it passes, whatever is still held
        """
        until_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + within_ms * 1_000_000
        self._words[self._at] = State.RELEASING << _STATE_SHIFT | until_ns

    def set(self, state: State) -> None:
        self._words[self._at] = state << _STATE_SHIFT

    @property
    def state(self) -> State:
        return State(self._words[self._at] >> _STATE_SHIFT)

    @property
    def until_ns(self) -> int:
        """When what the state says ends, by CLOCK_BOOTTIME; 0: it has no end."""
        return self._words[self._at] & _TIME_MASK

    @property
    def holds(self) -> bool:
        """Whether it is closed, and its lease has not ended."""
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        return self.state is State.CLOSED and now < self.until_ns

    @property
    def lapsed(self) -> int:
        """Packets that passed because the lease had ended: it opened by itself."""
        return self._words[self._at + 1]

    def close(self) -> None:
        """Let go of the map; the gate stays as it is. Repeatable."""
        self._shared.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __exit__(self, *_):
        self.close()
