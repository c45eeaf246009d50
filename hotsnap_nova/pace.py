# SPDX-License-Identifier: Apache-2.0
"""How fast something is read or written, beside others who have use for the same disks."""

import time

#: What was done too slowly for so long may be caught up with, no more: a store that stood for an
#: hour is not read for another without any limit.
CREDIT_S = 1.0


class Pace:
    """Rests until what was done has taken as long as it should have, the doing included.

    :param limit_bytes_s: 0: no limit
    """

    def __init__(self, limit_bytes_s: int):
        self._limit_bytes_s = limit_bytes_s
        self._free_at = time.monotonic()

    def spend(self, count_bytes: int) -> None:
        if self._limit_bytes_s:
            now = time.monotonic()
            self._free_at = max(self._free_at, now - CREDIT_S) + count_bytes / self._limit_bytes_s
            time.sleep(max(0.0, self._free_at - now))
