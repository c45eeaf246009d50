# SPDX-License-Identifier: Apache-2.0
"""Lab guests that talk to one another."""

import collections.abc
import time

from tests.lab.counters import Counters
from tests.lab.guest import Guest, wait_for
from tests.lab.verdict import Finding, check_cut, check_progress


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

        :raises LabError: one failed, or the time is over
        """
        def all_ready() -> bool:
            ready = [guest.is_ready() for guest in self.guests]   # a failed one raises
            return all(ready)

        wait_for(all_ready, timeout_s, f'{", ".join(self.names)} to talk to one another')

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
