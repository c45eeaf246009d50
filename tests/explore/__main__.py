# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.explore``: the long campaign, on all processors; dated JSON in results/.

Both explorers visit all states of worlds that are too large for every day, three hosts and a rival
among them, and both take a million random steps. The first promise that is broken ends it; its
story is in the report.
"""

import argparse
import functools
import multiprocessing
import os
import pathlib
import resource
import sys
import time

from tests.explore import explorer
from tests.explore.campaign import FLOWS, SNAPSHOTS
from tests.explore.flows import visit
from tests.explore.flows.worlds import new_space
from tests.explore.rules import Rules
from tests.explore.world import Budget, new_world
from tests.property.flowruns import flow_run
from tests.property.runs import random_run
from tests.rounds import dated

_BATCH = 50  # runs of one task
MOST_WORLDS = 20_000_000


def _visit_snapshot(story):
    gate, hosts, members, atomic, faults = SNAPSHOTS[story]
    rules = Rules(atomic=atomic)
    world = rules.begin(new_world(gate, hosts, members, Budget(**faults)))
    found = explorer.explore(rules, world, MOST_WORLDS)
    return {"worlds": found.states, "steps": found.steps, "quiet": found.quiet}


def _visit_flow(story):
    who, faults, more = FLOWS[story]
    found = visit.explore(new_space(who.split(), **faults, **more), MOST_WORLDS)
    ends = {" ".join(end): times for end, times in sorted(found.ends.items())}
    return {"worlds": found.worlds, "steps": found.steps, "quiet": found.quiet, "ends": ends}


def _timed(task):
    """What came of one task, and what it cost, in a process of its own."""
    kind, do, about = task
    began = time.monotonic()
    try:
        found = do(about)
    except AssertionError as exc:
        found = {"broken": str(exc)}
    used = resource.getrusage(resource.RUSAGE_SELF)
    return kind, about, found, time.monotonic() - began, used.ru_maxrss


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.explore", description=__doc__)
    parser.add_argument("--part", choices=("all", "states", "random"), default="all")
    parser.add_argument("--steps", type=int, default=1_000_000, help="random ones, of each")
    parser.add_argument("--seed", type=int, default=0, help="number of the first random run")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=pathlib.Path, default=dated.default_path("explore"))
    arguments = parser.parse_args()
    command = " ".join(["python -m tests.explore", *sys.argv[1:]])
    report = dated.setting(command, str(arguments.seed)) | {
        "snapshots": {}, "flows": {}, "random": {}, "peak_mb": 0,
    }  # fmt: skip
    began = time.monotonic()
    with multiprocessing.Pool(arguments.workers, maxtasksperchild=1) as pool:
        parts = {"states": (_visit_all,), "random": (_walk_all,), "all": (_visit_all, _walk_all)}
        passed = all(do(pool, report, arguments) for do in parts[arguments.part])
    report |= {"passed": passed, "minutes": round((time.monotonic() - began) / 60, 1)}
    dated.write(arguments.output, report)
    print(f"{'passed' if passed else 'FAILED'} in {report['minutes']} minutes; {arguments.output}")
    return 0 if passed else 1


def _visit_all(pool, report, arguments):
    tasks = [("flows", _visit_flow, story) for story in FLOWS]
    tasks += [("snapshots", _visit_snapshot, story) for story in SNAPSHOTS]
    for kind, story, found, took_s, peak_kb in pool.imap_unordered(_timed, tasks):
        report[kind][story] = found | {"seconds": round(took_s, 1)}
        report["peak_mb"] = max(report["peak_mb"], peak_kb // 1024)
        dated.write(arguments.output, report)
        print(f"{story}: {found}, {took_s:.0f} s", flush=True)
        if "broken" in found:
            return False
    return True


def _walk_all(pool, report, arguments):
    for kind, run in (("snapshots", random_run), ("flows", flow_run)):
        made = report["random"][kind] = {"runs": 0, "steps": 0}
        while made["steps"] < arguments.steps:
            first = arguments.seed + made["runs"]
            tasks = [
                (kind, functools.partial(_walk, run), first + n * _BATCH)
                for n in range(arguments.workers)
            ]
            for _, _, found, *_ in pool.map(_timed, tasks, chunksize=1):
                if "broken" in found:
                    made |= found
                    return False
                made["runs"] += _BATCH
                made["steps"] += found["steps"]
        dated.write(arguments.output, report)
        print(f"random, {kind}: {made}", flush=True)
    return True


def _walk(run, first):
    """A batch of random runs, the first of them with this number."""
    steps = 0
    for seed in range(first, first + _BATCH):
        try:
            steps += run(seed).steps
        except AssertionError as exc:
            raise AssertionError(f"run {seed}: {exc}") from None
    return {"steps": steps}


if __name__ == "__main__":
    sys.exit(main())
