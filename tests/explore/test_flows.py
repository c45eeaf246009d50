# SPDX-License-Identifier: Apache-2.0
"""Restores, and rivals for a group: every interleaving keeps every promise, and can become quiet.

``-s`` prints how many worlds were visited. A failure prints the shortest story that leads to it.
Larger worlds are those of `campaign`, for ``make explore``.
"""

import pytest

from tests.explore.flows.visit import explore
from tests.explore.flows.worlds import new_space

# story: who is at it, what may go wrong, what else differs from two hosts with a member each
WORLDS = {
    "a rival restore": ("r1 r2", {}, {}),
    "a rival snapshot, their host dies": ("r1 s2", {"crashes": 1}, {"hosts": 1}),
    "a rival restore, their host dies": ("r1 r2", {"crashes": 1}, {"hosts": 1}),
    "rival snapshots": ("s1 s2", {}, {}),
    "rival snapshots, an errand comes late": ("s1 s2", {"absences": 1}, {"hosts": 1}),
    "two coordinators, something fails": ("r1", {"takeovers": 1, "failures": 1}, {"hosts": 1}),
    "two coordinators": ("r1", {"takeovers": 1}, {}),
    "two coordinators, the host has no power": (
        "r1", {"takeovers": 1, "powers": 1}, {"hosts": 1}
    ),
    "something fails, the host has no power": ("r1", {"failures": 1, "powers": 1}, {"hosts": 1}),
    "something fails, an owner stops or starts a guest": (
        "r1", {"failures": 1, "owners": 1}, {}
    ),
    "a guest is deleted": ("r1", {"withdrawals": 1}, {"members": 2}),
    "something fails, the guest is deleted": (
        "r1", {"failures": 1, "withdrawals": 1}, {"hosts": 1}
    ),
    "the host has no power, the guest is deleted": (
        "r1", {"powers": 1, "withdrawals": 1}, {"hosts": 1}
    ),
    "a host has no power, its guest is evacuated": (
        "r1", {"powers": 1, "evacuations": 1, "timeouts": 1}, {}
    ),
    "a host has no power, an owner stops or starts a guest": (
        "r1", {"powers": 1, "owners": 1}, {}
    ),
    "three hosts, something fails": ("r1", {"failures": 1}, {"hosts": 3}),
    "two members on each host": ("r1", {"failures": 1}, {"members": 2}),
    "two things fail": ("r1", {"failures": 2}, {}),
    "something fails while messages arrive": ("r1", {"failures": 1}, {"atomic": False}),
    "the guest is deleted while messages arrive": (
        "r1", {"withdrawals": 1}, {"atomic": False, "hosts": 1}
    ),
    "a host dies twice": ("r1", {"crashes": 2}, {}),
    "a host dies, a guest is deleted": ("r1", {"crashes": 1, "withdrawals": 1}, {}),
    "a host dies, something fails": ("r1", {"crashes": 1, "failures": 1}, {}),
    "a host dies, a user aborts": ("r1", {"crashes": 1, "aborts": 1}, {}),
    "a host dies while messages arrive": ("r1", {"crashes": 1}, {"atomic": False}),
    "a host has no power while messages arrive": ("r1", {"powers": 1}, {"atomic": False}),
    "an owner stops or starts guests": ("r1", {"owners": 2}, {}),
    "a QEMU dies, an owner starts it": ("r1", {"kills": 1, "owners": 1, "timeouts": 1}, {}),
    "two QEMUs die, of guests that are to stand still": ("r1", {"kills": 2}, {"paused": True}),
    "hosts do not answer the decision": ("r1", {"absences": 2, "failures": 1}, {}),
    "a host does not answer, a coordinator dies": (
        "r1", {"absences": 1, "coordinator_crashes": 1, "timeouts": 1}, {}
    ),
    "a coordinator dies twice": ("r1", {"coordinator_crashes": 2}, {}),
}  # fmt: skip


@pytest.mark.parametrize("story", WORLDS)
def test_every_world_keeps_the_promises_and_can_become_quiet(story):
    who, faults, more = WORLDS[story]

    found = explore(new_space(who.split(), **faults, **more))

    print(f"{story}: {found.worlds} worlds, {found.steps} steps, {found.quiet} ends {found.ends}")
    ends = {end for decisions in found.ends for end in decisions}
    assert ends & {"resume", "finish"}


def test_rivals_for_a_group_can_each_have_it():
    found = explore(new_space(["r1", "s2"]))

    assert {("resume", "discard"), ("undo", "finish"), ("resume", "finish")} <= set(found.ends)
