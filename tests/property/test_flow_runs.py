# SPDX-License-Identifier: Apache-2.0
"""Whatever happens in a long run of rival snapshots and restores, every promise is kept.

``HOTSNAP_RUNS=20000 pytest tests/property`` is a campaign, as of `test_runs`.
"""

import random

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.explore.flows.guests import Violation
from tests.explore.flows.space import BUDGETS
from tests.explore.flows.worlds import Build
from tests.mutants import restores as mutants
from tests.property.flowruns import RIVALS, FlowRun, flow_run
from tests.property.test_runs import CAMPAIGN


@settings(
    max_examples=CAMPAIGN or 80,
    deadline=None,
    database=None,
    derandomize=not CAMPAIGN,  # what is new is found by campaigns, and not by chance
    phases=[Phase.generate] if CAMPAIGN else [Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    ids=st.sampled_from(RIVALS),
    hosts=st.integers(1, 3),
    members=st.integers(1, 2),
    atomic=st.booleans(),
    faults=st.dictionaries(st.sampled_from(BUDGETS), st.integers(1, 3), max_size=4),
    seed=st.integers(0, 2**32),
    steps=st.integers(20, 400),
)
def test_every_promise_is_kept_and_healing_ends_in_quiet(
    ids, hosts, members, atomic, faults, seed, steps
):
    choose = random.Random(seed).randrange
    world = FlowRun(choose, ids.split(), hosts, members, atomic, **faults)

    world.go(steps)


def test_runs_end_in_every_way():
    ends = {str(each.decision) for seed in range(40) for each in flow_run(seed).tops}

    assert {"resume", "undo", "finish", "discard"} <= ends


@pytest.mark.parametrize("build", [
    Build(engine=mutants.SwapsWithoutASecondName()),
    Build(restores=mutants.ForgetsTheEnd),
    Build(engine=mutants.TakesWhatAnotherHas()),
])  # fmt: skip
def test_runs_catch_what_breaks_a_rule(build):
    assert any(map(_breaks, range(60), [build] * 60))


def _breaks(seed, build):
    try:
        flow_run(seed, build)
    except Violation:
        return True
    return False
