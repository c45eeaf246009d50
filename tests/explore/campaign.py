# SPDX-License-Identifier: Apache-2.0
"""Worlds that are too large for every day; ``make explore`` visits them."""

from hotsnap_nova.protocol.messages import Gate

HOLD, BARRIER, MARKER = Gate.HOLD, Gate.BARRIER, Gate.MARKER
FLOWS = {  # as in `test_flows`
    "three hosts, a rival snapshot": ("r1 s2", {}, {"hosts": 3}),
    "three hosts, a rival restore": ("r1 r2", {}, {"hosts": 3}),
    "a rival snapshot, a host dies": ("r1 s2", {"crashes": 1}, {}),
    "a rival restore, a host dies": ("r1 r2", {"crashes": 1}, {}),
    "two coordinators, something fails": ("r1", {"takeovers": 1, "failures": 1}, {}),
    "three hosts, two coordinators": ("r1", {"takeovers": 1}, {"hosts": 3}),
    "two coordinators, a host has no power": ("r1", {"takeovers": 1, "powers": 1}, {}),
    "something fails, a host has no power": ("r1", {"failures": 1, "powers": 1}, {}),
    "something fails, a guest is deleted": ("r1", {"failures": 1, "withdrawals": 1}, {}),
    "a host has no power, a guest is deleted": ("r1", {"powers": 1, "withdrawals": 1}, {}),
    "a guest is deleted while messages arrive": ("r1", {"withdrawals": 1}, {"atomic": False}),
    "three hosts, one has no power, a step takes too long": (
        "r1", {"powers": 1, "timeouts": 1}, {"hosts": 3}
    ),
    "a host dies while messages arrive, a step takes too long": (
        "r1", {"crashes": 1, "timeouts": 1}, {"atomic": False}
    ),
}  # fmt: skip
SNAPSHOTS = {  # as in `test_explore`
    "a host dies anywhere while messages arrive": (
        HOLD, 2, 1, False, {"host_crashes": 1, "timeouts": 0}
    ),
    "a barrier, a host dies, a lease ends": (
        BARRIER, 2, 1, True, {"host_crashes": 1, "lapses": 1, "timeouts": 0}
    ),
    "a host and the coordinator die": (
        HOLD, 2, 1, True, {"host_crashes": 1, "coordinator_crashes": 1, "timeouts": 0}
    ),
    "a command fails, the coordinator dies": (
        HOLD, 2, 1, True, {"failures": 1, "coordinator_crashes": 1, "timeouts": 0}
    ),
    "two commands fail": (HOLD, 2, 1, True, {"failures": 2, "timeouts": 0}),
    "one host, every fault, most twice": (
        HOLD, 1, 1, True, {"host_crashes": 2, "failures": 2, "lapses": 1}
    ),
    "a host dies, a lease ends": (HOLD, 2, 1, True, {"host_crashes": 1, "lapses": 1}),
    "a barrier, a command fails, a lease ends": (
        BARRIER, 2, 1, True, {"failures": 1, "lapses": 1, "timeouts": 0}
    ),
    "two members on each host": (HOLD, 2, 2, True, {"failures": 1}),
    "two coordinators": (HOLD, 2, 1, True, {"takeovers": 1}),
    "the user aborts, a host dies": (HOLD, 2, 1, True, {"aborts": 1, "host_crashes": 1}),
    "the messages of an earlier snapshot linger": (HOLD, 2, 1, True, {"more_snapshots": 1}),
    "a host never answers the decision": (
        HOLD, 2, 1, True, {"absences": 1, "failures": 1, "timeouts": 0}
    ),
    "a host loses its journal": (HOLD, 2, 1, True, {"losses": 1}),
    "three hosts": (HOLD, 3, 1, True, {}),
    "three hosts, one dies": (HOLD, 3, 1, True, {"host_crashes": 1, "timeouts": 0}),
    "three hosts, a barrier, a lease ends": (BARRIER, 3, 1, True, {"lapses": 1, "timeouts": 0}),
    "markers, a lease ends": (MARKER, 2, 1, True, {"lapses": 1}),
    "markers, a host dies": (MARKER, 2, 1, True, {"host_crashes": 1}),
    "markers, a cut fails": (MARKER, 2, 1, True, {"failures": 1}),
    "markers, a host dies, a cut fails": (
        MARKER, 2, 1, True, {"host_crashes": 1, "failures": 1, "timeouts": 0}
    ),
    "markers, three hosts": (MARKER, 3, 1, True, {"timeouts": 0}),
    "markers, a gate has no more room, a lease ends": (
        MARKER, 2, 1, True, {"floods": 1, "lapses": 1, "timeouts": 0}
    ),
    "markers, two members on each host": (MARKER, 2, 2, True, {"timeouts": 0}),
}  # fmt: skip
