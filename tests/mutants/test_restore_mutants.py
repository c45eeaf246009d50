# SPDX-License-Identifier: Apache-2.0
"""Every rule of a restore is needed: broken on purpose, the explorer finds a world it ruins."""

import pytest

from tests.explore.flows.guests import Violation
from tests.explore.flows.visit import explore
from tests.explore.flows.worlds import Build, new_space
from tests.mutants import document
from tests.mutants import restores as m

# rule: mutant, who is at it, what may go wrong, what the explorer must say
MUTANTS = [
    (1, Build(restore_coordinator=m.TellsBeforeItIsDurable), "r1", {"failures": 1,
     "coordinator_crashes": 1}, "never decided"),
    (1, Build(restore_coordinator=m.TakesAFailureForANo), "r1", {"failures": 1},
     "decision was changed"),
    (1, Build(restore_coordinator=m.ActsAlthoughOvertaken), "r1", {"takeovers": 1},
     "never decided"),
    (1, Build(restore_coordinator=m.UndoesWhateverWasDecided), "r1",
     {"coordinator_crashes": 1}, "decision was changed"),
    (1, Build(restore_coordinator=m.UndoesByErrand), "r1", {"absences": 1}, "never decided"),
    (2, Build(restore_coordinator=m.WaitsForTheFirst), "r1", {}, "while .* runs, too"),
    (2, Build(engine=m.SwapsUnproved()), "r1", {"owners": 1}, "not its own"),
    (2, Build(engine=m.SwapsUnlocked()), "r1", {"owners": 1}, "not its own"),
    (3, Build(engine=m.SwapsWithoutASecondName()), "r1", {}, "lost its only name"),
    (3, Build(engine=m.PutsBackUnderARunner()), "r1", {"owners": 1, "kills": 1, "timeouts": 1},
     "not its own"),
    (3, Build(engine=m.DropsWhatWasWritten()), "r1", {"owners": 2, "kills": 1, "timeouts": 1},
     "is lost"),
    (4, Build(engine=m.KeepsAllForOne()), "r1", {"kills": 1, "owners": 1}, "never becomes quiet"),
    (4, Build(restore_coordinator=m.NamesNobody), "r1", {"kills": 1, "owners": 1},
     "nobody says so|has files of"),
    (4, Build(restores=m.CallsItDone), "r1", {"failures": 1}, "nobody says so|which is closed"),
    (4, Build(restore_coordinator=m.LeavesNoErrand), "r1", {}, "waits for ever"),
    (4, Build(engine=m.TellsWhatItHasForgotten()), "r1", {"crashes": 1, "timeouts": 1},
     "started anew, and nobody says so"),
    (5, Build(restores=m.ForgetsTheEnd), "r1", {}, "has ended here"),
    (5, Build(restores=m.EndsAgain), "r1", {"failures": 1}, "has ended here"),
    (5, Build(engine=m.ResumesUnmarked()), "r1", {"crashes": 1}, "nothing has happened to it"),
    (6, Build(restore_coordinator=m.AbortsTooLate), "r1", {"aborts": 1}, "decision was changed"),
    (6, Build(restore_coordinator=m.LateAnswersCount), "r1", {"timeouts": 1},
     "decision was changed"),
    (6, Build(restore_coordinator=m.WaitsForEver), "r1", {}, "waits for ever"),
    (6, Build(restore_coordinator=m.HearsNoUser), "r1", {}, "cannot be aborted"),
    (7, Build(restores=m.IgnoresTheOwner), "r1", {"withdrawals": 1}, "its owner needs it"),
    (7, Build(restores=m.UnsaysWhatIsNotOnRecord), "r1", {"withdrawals": 1, "failures": 1},
     "its owner needs it"),
    (7, Build(write_order=m.forgets_who_was_withdrawn), "r1",
     {"withdrawals": 1, "crashes": 1}, "its owner needs it"),
    (8, Build(engine=m.TakesWhatAnotherHas()), "r1 r2", {}, "while .* runs, too"),
    (8, Build(write_order=m.never_unlocks), "r1", {}, "which is closed|never becomes quiet"),
    (8, Build(snapshots_lock_first=False), "r1 s2", {"crashes": 1}, "traces of s2"),
    (8, Build(snapshots=m.KnowsTheNewestAlone), "s1 s2", {}, "lost its journal"),
]  # fmt: skip


def _mutant(build):
    kinds = (
        build.restore_coordinator, build.restores, build.snapshots, build.write_order,
        type(build.engine),
    )  # fmt: skip
    return next((k.__name__ for k in kinds if k.__module__ == m.__name__), "RestoresLockFirst")


def _name(mutant):
    rule, build, *_ = mutant
    return f"rule{rule}-{_mutant(build)}"


@pytest.mark.parametrize("mutant", MUTANTS, ids=_name)
def test_the_explorer_catches(mutant):
    _, build, who, faults, says = mutant

    with pytest.raises(Violation, match=says) as caught:
        explore(new_space(who.split(), build=build, **faults))

    print(caught.value)


def test_each_rule_of_restores_has_its_mutants_and_its_place_in_the_document():
    heading = "A restore in one page"

    assert set(document.rules(heading)) == set(range(1, 9))
    assert document.mutants(heading) == {(rule, _mutant(build)) for rule, build, *_ in MUTANTS}
    assert not document.missing(heading)
