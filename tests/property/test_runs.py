# SPDX-License-Identifier: Apache-2.0
"""Whatever happens in a long run, no available snapshot holds an orphan and all ends in quiet.

``HOTSNAP_RUNS=20000 pytest tests/property`` is a campaign: it only generates, because shrinking
and replaying take the time that finds the next bug.
"""

import os
import random

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from hotsnap_nova.protocol.durable import Decision
from hotsnap_nova.protocol.messages import Gate
from tests.explore.hostmodel import Violation
from tests.explore.world import Build
from tests.mutants import mutants
from tests.property.runs import FAULTS, run

CAMPAIGN = int(os.environ.get("HOTSNAP_RUNS", "0"))
GATES = [Gate.HOLD, Gate.BARRIER, Gate.MARKER]
MANY = st.fixed_dictionaries({kind: st.integers(0, most) for kind, most in FAULTS.items()})


@settings(
    max_examples=CAMPAIGN or 150,
    deadline=None,
    database=None,
    derandomize=not CAMPAIGN,  # what is new is found by campaigns, and not by chance
    phases=[Phase.generate] if CAMPAIGN else [Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    gate=st.sampled_from(GATES),
    hosts=st.integers(1, 3),
    members=st.integers(1, 2),
    faults=MANY,
    seed=st.integers(0, 2**32),
    steps=st.integers(20, 400),
)
def test_no_orphan_is_ever_available_and_healing_ends_in_quiet(
    gate, hosts, members, faults, seed, steps
):
    run(gate, hosts, members, faults, random.Random(seed).randrange, steps)


@pytest.mark.parametrize("gate", GATES)
def test_a_group_without_faults_gets_its_snapshot(gate):
    chance = random.Random(7)
    decisions = [
        run(gate, 2, 1, {"timeouts": 0}, chance.randrange, 60).row.decision for _ in range(5)
    ]

    assert decisions == [Decision.FINISH] * 5


def test_packet_counts_alone_show_that_a_gate_is_needed():
    assert _caught(Gate.NONE, None)


def test_packet_counts_alone_show_gates_opened_too_early():
    build = Build(coordinator=mutants.ReleasesEachAtOnce)

    assert _caught(Gate.HOLD, build)


def test_packet_counts_alone_show_nothing_where_the_gate_holds():
    assert not _caught(Gate.HOLD, None)


def _caught(gate, build):
    for seed in range(60):
        try:
            run(gate, 2, 1, {"timeouts": 0}, random.Random(seed).randrange, 150, build)
        except Violation as exc:
            if "has not sent" in str(exc):
                return True
            raise
    return False
