# SPDX-License-Identifier: Apache-2.0
"""Lab guests that talk to one another."""

import collections.abc
import math
import sys
import time

from tests.lab.counters import Counters
from tests.lab.guest import Guest, LabError
from tests.lab.verdict import Finding, check_cut, check_progress

BOOT_S = 40.0                     # a guest that boots says so well within this
SLOWER = 3                        # times the slowest of the others, on a slow machine
_STARTS = 3                       # of one guest, before it is given up


class Group(collections.abc.Sequence):
    """Guests that talk to one another; indexed by their number."""

    def __init__(self, guests: list[Guest]):
        self.guests = tuple(guests)

    def __getitem__(self, index):
        return self.guests[index]

    def __len__(self) -> int:
        return len(self.guests)

    @property
    def names(self) -> list[str]:
        return [guest.domain_name for guest in self.guests]

    def wait_ready(self, timeout_s: float = 120) -> None:
        """Return once all guests talk to all.

        A guest that hangs as it boots, which an emulated kernel does once in a great while, is
        started afresh: its workload has not begun and its disks are as they were.

        :param timeout_s: since the last start of a guest
        :raises LabError: one failed or hangs each time, or the time is over
        """
        started = [time.monotonic()] * len(self)
        starts = [1] * len(self)
        while True:
            ready = [guest.is_ready() for guest in self.guests]   # a failed one raises
            if all(ready):
                return
            for number, guest in enumerate(self.guests):
                silent_s = time.monotonic() - started[number]
                if guest.boot_s is not None or silent_s < self._boot_limit_s(guest):
                    continue
                if starts[number] == _STARTS:
                    raise LabError(f'{guest.domain_name} did not boot, {_STARTS} times\n'
                                   f'{self._last_words()}')
                print(f'{guest.domain_name} has not booted in {silent_s:.0f} s: it is started '
                      'afresh', file=sys.stderr, flush=True)
                guest.start_afresh()
                started[number] = time.monotonic()
                starts[number] += 1
            if time.monotonic() - max(started) > timeout_s:
                raise LabError(f'waited {timeout_s} s in vain for {", ".join(self.names)} to '
                               f'talk to one another\n{self._last_words()}')
            time.sleep(0.1)

    def _boot_limit_s(self, guest: Guest) -> float:
        """How long this guest may take to boot. Where no other has, the machine is slow."""
        others = [other.boot_s for other in self.guests if other is not guest]
        booted = [boot_s for boot_s in others if boot_s is not None]
        if booted:
            return max(BOOT_S, SLOWER * max(booted))
        return math.inf if others else 2 * BOOT_S

    def _last_words(self) -> str:
        return '\n'.join(guest.last_words() for guest in self.guests if not guest.is_ready())

    def counters(self) -> list[Counters]:
        """Each guest's counters, one after the other."""
        return [guest.counters() for guest in self.guests]

    def verdict(self) -> list[Finding]:
        """What is wrong with the guests' states together; all must be paused."""
        findings = check_cut(self.counters())
        for guest in self.guests:
            findings += guest.check_disks()
        return sorted(findings)

    def wait_messages(self, messages: int, before: list[Counters] | None = None,
                      timeout_s: float = 120) -> list[Finding]:
        """What is wrong after so many further messages each way on each connection.

        Returns early with the findings where a guest itself sees a failure.

        :param before: counters to count from, of now by default
        """
        before = before or self.counters()
        deadline = time.monotonic() + timeout_s
        while True:
            findings = check_progress(before, self.counters(), messages)
            if {finding.kind for finding in findings} != {'stalled'}:
                return sorted(findings)
            if time.monotonic() > deadline:
                return sorted(findings)
            time.sleep(0.5)
