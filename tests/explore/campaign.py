# SPDX-License-Identifier: Apache-2.0
"""Worlds that are too large for every day; ``make explore`` visits them.

The same columns as in `test_flows` and `test_explore`.
"""

from hotsnap_nova.protocol.messages import Gate

FLOWS = {
    "three hosts, a rival snapshot": ("r1 s2", {}, {"hosts": 3}),
    "three hosts, a rival restore": ("r1 r2", {}, {"hosts": 3}),
    "three hosts, a rival snapshot, a host dies": ("r1 s2", {"crashes": 1}, {"hosts": 3}),
    "three hosts, a rival restore, a host dies": ("r1 r2", {"crashes": 1}, {"hosts": 3}),
}

SNAPSHOTS = {
    "three hosts, one dies": (Gate.HOLD, 3, 1, True, {"host_crashes": 1}),
}
