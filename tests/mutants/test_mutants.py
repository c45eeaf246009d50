# SPDX-License-Identifier: Apache-2.0
"""Every rule is needed: broken on purpose, the explorer finds a world that it ruins."""

import pytest

from hotsnap_nova.protocol.messages import Gate
from tests.explore.explorer import explore
from tests.explore.hostmodel import Violation
from tests.explore.rules import Rules
from tests.explore.world import Budget, Build, new_world
from tests.mutants import document
from tests.mutants import mutants as m

HOLD, BARRIER, MARKER = Gate.HOLD, Gate.BARRIER, Gate.MARKER
TRACES = "left with traces|never becomes quiet|still holds on"
ORPHAN = "has received what nobody has sent"

# rule: mutant, gate, faults needed, what the explorer must say
MUTANTS = [
    (1, Build(participant=m.NoIntent), HOLD, {}, "without having journalled"),
    (1, Build(participant=m.JournalsBesideTheStop), HOLD, {}, "writes its journal between"),
    (1, Build(coordinator=m.TellsBeforeItIsDurable), HOLD,
     {"failures": 1, "coordinator_crashes": 1}, "published but never decided|believes finish"),
    (1, Build(stops_at_failure=False), HOLD, {"failures": 1}, TRACES),
    (2, Build(engine=m.ClosesAfterResume()), HOLD, {}, ORPHAN),
    (2, Build(coordinator=m.ReleasesEachAtOnce), HOLD, {}, ORPHAN),
    (2, Build(coordinator=m.ReleasesEachAtOnce), BARRIER, {}, ORPHAN),
    (2, Build(path=m.MarksNothing), MARKER, {}, ORPHAN),
    (2, Build(path=m.PassesWhatItCannotMark), MARKER, {}, ORPHAN),
    (2, Build(path=m.DeliversBeforeTheCut), MARKER, {}, ORPHAN),
    (3, Build(participant=m.IgnoresTheClock), HOLD, {"lapses": 1}, ORPHAN),
    (3, Build(participant=m.IgnoresTheClock), MARKER, {"lapses": 1}, ORPHAN),
    (3, Build(participant=m.HidesTheGuardian), BARRIER, {"lapses": 1}, ORPHAN),
    (4, Build(coordinator=m.LateAnswersCount), HOLD, {}, "decision was changed"),
    (5, Build(participant=m.AnswersOnce), HOLD, {"host_crashes": 1}, TRACES),
    (5, Build(participant=m.UnsaysWhatItSaid), HOLD, {"withdrawals": 1}, "disowned"),
    (5, Build(participant=m.GivesUpWhatItSaid), HOLD, {"silences": 1}, "disowned"),
    (5, Build(coordinator=m.ResumesSilently), HOLD, {"failures": 1}, TRACES),
    (6, Build(participant=m.RaisesOnlyWhatItKnew), HOLD, {}, TRACES),
    (7, Build(coordinator=m.DecidesAlthoughSuperseded), HOLD, {"takeovers": 1},
     "believes|published but never decided"),
    (7, Build(coordinator=m.ResumesFromNothing), HOLD, {"coordinator_crashes": 1},
     "decision was changed"),
    (8, Build(participant=m.SpoilsWithoutCleaning), HOLD, {"failures": 1}, TRACES),
    (8, Build(participant=m.RecoversWithoutCleaning), HOLD, {"host_crashes": 1}, TRACES),
    (8, Build(participant=m.KeepsWhatItNeedsNoMore), HOLD, {"silences": 1},
     "keeps guests from their owner"),
    (8, Build(engine=m.LeavesSuspended()), BARRIER, {}, "between a stop"),
    (8, Build(engine=m.StripsUntilItsRelease()), MARKER, {}, "sees the mark"),
    (8, Build(engine=m.HidesTheOverflow()), HOLD, {"floods": 1}, "dropped packets"),
    (8, Build(engine=m.HidesTheOverflow()), MARKER, {"floods": 1}, "dropped packets"),
    (9, Build(participant=m.AcceptsASecondStop), HOLD, {"failures": 1}, "two instants"),
    (9, Build(participant=m.ForgetsItsRefusal), HOLD, {"failures": 1}, "disowned"),
    (9, Build(engine=m.RecordsThePoisoned()), MARKER, {"failures": 1}, ORPHAN),
    (9, Build(engine=m.AnswersAnyMark()), MARKER, {"forgeries": 1}, ORPHAN),
    (9, Build(coordinator=m.RecordsBeforeAllAreArmed), MARKER, {}, ORPHAN),
    (9, Build(path=m.ForgetsWhatItDelivered), MARKER, {"lapses": 1}, ORPHAN),
]  # fmt: skip


def _mutant(build):
    parts = (build.participant, build.coordinator, type(build.engine), build.path)
    return next((p.__name__ for p in parts if p.__module__ == m.__name__), "NeverStops")


def _name(mutant):
    rule, build, gate, *_ = mutant
    return f"rule{rule}-{_mutant(build)}-{gate}"


@pytest.mark.parametrize("mutant", MUTANTS, ids=_name)
def test_the_explorer_catches(mutant):
    _, build, gate, faults, says = mutant
    rules = Rules(build)

    with pytest.raises(Violation, match=says) as caught:
        explore(rules, rules.begin(new_world(gate, budget=Budget(**faults), path=build.path)))

    print(caught.value)


def test_each_of_the_nine_rules_has_its_mutants_and_its_place_in_the_document():
    heading = "The nine rules, and where they live"

    assert set(document.rules(heading)) == set(range(1, 10))
    assert document.mutants(heading) == {(rule, _mutant(build)) for rule, build, *_ in MUTANTS}
    assert not document.missing(heading)
