# SPDX-License-Identifier: Apache-2.0
"""Every interleaving of a few hosts and a few faults keeps every promise, and can become quiet.

``-s`` prints how many worlds were visited. A failure prints the shortest story that leads to it.
Larger worlds are those of `campaign`, for ``make explore``.
"""

import pytest

from hotsnap_nova.protocol.messages import Gate
from tests.explore.explorer import explore
from tests.explore.hostmodel import EngineOfOurs, Violation
from tests.explore.rules import Rules
from tests.explore.world import Budget, Build, new_world

HOLD, BARRIER, MARKER = Gate.HOLD, Gate.BARRIER, Gate.MARKER
# story: gate, hosts, members of each, whether a host's work is atomic, what may go wrong
WORLDS = {
    "messages arrive while hosts work": (HOLD, 2, 1, False, {}),
    "a host dies": (HOLD, 2, 1, True, {"host_crashes": 1, "timeouts": 0}),
    "a lease ends": (HOLD, 2, 1, True, {"lapses": 1, "timeouts": 0}),
    "a barrier, a lease ends": (BARRIER, 2, 1, True, {"lapses": 1, "timeouts": 0}),
    "two members on each host": (HOLD, 2, 2, True, {"failures": 1, "timeouts": 0}),
    "two coordinators, a write fails": (HOLD, 1, 1, True, {"takeovers": 1, "failures": 1}),
    "the user aborts": (HOLD, 2, 1, True, {"aborts": 1}),
    "a guest is deleted": (HOLD, 2, 1, True, {"withdrawals": 1, "timeouts": 0}),
    "a guest is deleted while messages arrive": (
        HOLD, 1, 1, False, {"withdrawals": 1, "failures": 1}
    ),
    "a guest is deleted, its host dies": (
        BARRIER, 1, 2, True, {"withdrawals": 1, "host_crashes": 1, "timeouts": 0}
    ),
    "markers, a guest is deleted": (MARKER, 2, 1, True, {"withdrawals": 1, "timeouts": 0}),
    "an earlier snapshot, a host dies": (
        HOLD, 1, 1, True, {"more_snapshots": 1, "host_crashes": 1}
    ),
    "a coordinator falls silent": (HOLD, 2, 1, True, {"silences": 1, "coordinator_crashes": 1}),
    "a host never answers, another dies": (
        HOLD, 2, 1, True, {"absences": 2, "host_crashes": 1, "timeouts": 0}
    ),
    "a host loses its journal": (HOLD, 2, 1, True, {"losses": 1, "timeouts": 0}),
    "three hosts": (HOLD, 3, 1, True, {"timeouts": 0}),
    "markers": (MARKER, 2, 1, True, {"lapses": 1, "timeouts": 0}),
    "markers, a host dies": (MARKER, 2, 1, True, {"host_crashes": 1, "timeouts": 0}),
    "markers, a cut fails": (MARKER, 2, 1, True, {"failures": 1, "timeouts": 0}),
    "markers, a host loses its journal": (MARKER, 2, 1, True, {"losses": 1, "timeouts": 0}),
    "markers, a gate has no more room": (MARKER, 2, 1, True, {"floods": 1, "timeouts": 0}),
    "a gate has no more room": (HOLD, 2, 1, True, {"floods": 1, "timeouts": 0}),
}  # fmt: skip


@pytest.mark.parametrize("story", WORLDS)
def test_every_world_keeps_the_promises_and_can_become_quiet(story):
    gate, hosts, members, atomic, faults = WORLDS[story]
    rules = Rules(atomic=atomic)

    found = explore(rules, rules.begin(new_world(gate, hosts, members, Budget(**faults))))

    print(f"{story}: {found.states} states, {found.steps} steps, {found.quiet} ends")
    assert 0 < found.available < found.quiet or not any(faults.values())


@pytest.mark.parametrize("fault", ["lapses", "failures"])
def test_a_forged_mark_breaks_nothing_where_marks_are_answered_from_record_on(fault):
    # Where commands fail, no message comes while a host works: there are many times more worlds
    # with both.
    rules = Rules(Build(engine=EngineOfOurs()), atomic=fault == "failures")
    budget = Budget(forgeries=1, timeouts=0, **{fault: 1})

    found = explore(rules, rules.begin(new_world(MARKER, 2, 1, budget)))

    print(f"a forged mark: {found.states} states, {found.steps} steps, {found.quiet} ends")
    assert 0 < found.available < found.quiet


def test_without_a_gate_members_receive_what_nobody_has_sent():
    rules = Rules()

    with pytest.raises(Violation, match="has received what nobody has sent"):
        explore(rules, rules.begin(new_world(Gate.NONE)))
