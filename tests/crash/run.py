# SPDX-License-Identifier: Apache-2.0
"""Cases one after the other, on a site that is made anew where one has left it ill."""

import collections
import contextlib
import pathlib
import random
import shutil
import time
from collections.abc import Iterable

from tests.crash import cases
from tests.crash.bed import Bed
from tests.crash.site import Site
from tests.rounds import report


class Run:
    """A context manager.

    :param evidence: folder for the services' logs of cases that went wrong
    :param make: the site
    """

    def __init__(self, evidence: pathlib.Path, make: type[Bed] = Site):
        self._evidence = evidence
        self._make = make
        self.site = make()

    def __enter__(self) -> 'Run':
        return self

    def __exit__(self, *error) -> None:
        self.site.close()

    def setting(self, command: str, seed: str) -> dict:
        """See `report.setting`."""
        return report.setting(command, seed, self.site.hosts['h1'].home.connection)

    def all_cases(self) -> list[cases.Case]:
        """Of every plot the steps that no plot before it has."""
        found, seen = [], set()
        for kind in self.site.plots:
            try:
                met = cases.steps(self.site, kind)
            except Exception:
                self._keep(kind.name, {})
                raise
            steps = [step for step in met if step not in seen]
            seen |= set(steps)
            found += cases.of(kind, steps, self.site.faults)
        return found

    def run(self, case: cases.Case) -> cases.Result:
        """The result; what went wrong with the site itself is in it, too."""
        sizes = {log: log.stat().st_size for log in self.site.logs().values()}
        began = time.monotonic()
        try:
            result = cases.run(self.site, case)
        except Exception as exc:
            result = cases.Result(case, '', (f'{type(exc).__name__}: {exc}',),
                                  round(time.monotonic() - began, 2))
        if result.wrong:
            self._keep(str(case), sizes)
            self.site.close()
            self.site = self._make()
        return result

    def _keep(self, name, sizes):
        folder = self._evidence / ''.join(c if c.isalnum() else '-' for c in name)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for service in self.site.processes.values():
            service.say_where_it_is()
        for kept, log in self.site.logs().items():
            with contextlib.suppress(OSError), open(log, 'rb') as file:
                file.seek(sizes.get(log, 0))
                (folder / kept).write_bytes(file.read())


def spread(found: Iterable[cases.Case], seed: str) -> list[cases.Case]:
    """All of them; no step meets a kind of fault again before each has met it."""
    found, times = list(found), collections.Counter()

    def turn(case):
        times[case.plot, case.step, case.fault.kind] += 1
        return times[case.plot, case.step, case.fault.kind]
    return sorted(random.Random(seed).sample(found, len(found)), key=turn)


def of_each_fault(found: Iterable[cases.Case], seed: str) -> list[cases.Case]:
    """One of each fault in snapshots and in restores."""
    picked = {}
    for case in spread(found, seed):
        picked.setdefault((case.fault, case.protocol), case)
    return list(picked.values())
