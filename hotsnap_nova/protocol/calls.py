# SPDX-License-Identifier: Apache-2.0
"""Whom a coordinator waits for: when a host is asked again, and when not any more."""

import dataclasses

from hotsnap_nova.protocol.cut import NS_PER_MS

_BACK_OFF = 6  # doublings of the time between repeats


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """A host whose answer is awaited, and when it is asked again.

    ``absent_ns`` is when it is waited for no longer, unless it is heard of, ``late_ns`` when not
    even then; None: for ever.
    """

    host: str
    repeat_ns: int
    repeats: int = 0
    absent_ns: int | None = None
    late_ns: int | None = None

    @classmethod
    def first(cls, host: str, now: int, wait_ms: int, absent_ms=None, late_ms=None) -> "Call":
        """As it is once the host was asked."""
        return cls(host, _in(now, wait_ms), 0, _in(now, absent_ms), _in(now, late_ms))

    @property
    def wakeup_ns(self) -> int:
        return min(t for t in (self.repeat_ns, self.absent_ns, self.late_ns) if t is not None)

    def is_over(self, now: int) -> bool:
        """Whether the host is waited for no longer."""
        return any(t is not None and now >= t for t in (self.absent_ns, self.late_ns))

    def again(self, now: int, wait_ms: int, back_off: bool) -> "Call":
        """As it is once the host was asked again; with ``back_off`` less and less often."""
        repeats = self.repeats + 1 if back_off else 0
        wait_ms *= 2 ** min(repeats, _BACK_OFF)
        return dataclasses.replace(self, repeat_ns=_in(now, wait_ms), repeats=repeats)

    def heard(self, now: int, absent_ms: int | None) -> "Call":
        """As it is once the host has shown that it is there."""
        return dataclasses.replace(self, absent_ns=_in(now, absent_ms))

    def left(self, now: int, wait_ms: int) -> "Call":
        """As it is while its errand is written: where that fails, it is tried again."""
        again = _in(now, wait_ms)
        return dataclasses.replace(self, absent_ns=again, late_ns=again)


def _in(now, ms):
    return None if ms is None else now + ms * NS_PER_MS
