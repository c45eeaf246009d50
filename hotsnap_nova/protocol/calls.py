# SPDX-License-Identifier: Apache-2.0
"""Whom a coordinator waits for: when a host is asked again, and when not any more."""

import dataclasses

from hotsnap_nova.protocol.cut import NS_PER_MS

_BACK_OFF = 6  # doublings of the time between repeats


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """A host whose answer is awaited, and when it is asked again.

    Once decided: ``absent_ns`` is when it is left an errand, unless it is heard of, ``late_ns``
    when it is even then. None where errands are not left.
    """

    host: str
    repeat_ns: int
    repeats: int = 0
    absent_ns: int | None = None
    late_ns: int | None = None

    @classmethod
    def first(cls, host: str, now: int, wait_ms: int, patience=None) -> "Call":
        """``patience``: the limits that say how long what was decided may take, or None."""
        call = cls(host, now + wait_ms * NS_PER_MS)
        if patience is None or patience.absent_ms is None:
            return call
        return dataclasses.replace(
            call, absent_ns=now + patience.absent_ms * NS_PER_MS,
            late_ns=now + patience.decided_timeout_ms * NS_PER_MS,
        )  # fmt: skip

    @property
    def wakeup_ns(self) -> int:
        return min(t for t in (self.repeat_ns, self.absent_ns, self.late_ns) if t is not None)

    def is_over(self, now: int) -> bool:
        """Whether the host is to be left an errand."""
        return any(t is not None and now >= t for t in (self.absent_ns, self.late_ns))

    def again(self, now: int, wait_ms: int, back_off: bool) -> "Call":
        """As it is once the host was asked again; less and less often with ``back_off``."""
        repeats = self.repeats + 1
        if back_off:
            wait_ms *= 2 ** min(repeats, _BACK_OFF)
        return dataclasses.replace(self, repeat_ns=now + wait_ms * NS_PER_MS, repeats=repeats)

    def heard(self, now: int, patience) -> "Call":
        """As it is once the host has shown that it is there."""
        if self.absent_ns is None:
            return self
        return dataclasses.replace(self, absent_ns=now + patience.absent_ms * NS_PER_MS)

    def left(self, now: int, wait_ms: int) -> "Call":
        """As it is while its errand is written: where that fails, both is done again."""
        again = now + wait_ms * NS_PER_MS
        return dataclasses.replace(self, repeat_ns=again, absent_ns=again, late_ns=again)
