# SPDX-License-Identifier: Apache-2.0
"""One case: a plot goes on up to a step, something dies there, and what is left is judged."""

import dataclasses
import time
from collections.abc import Iterable

from hotsnap_nova import exception
from hotsnap_nova.conductor import rows
from tests.crash import judge, services
from tests.crash.bed import COORDINATOR, Bed, Cut
from tests.crash.faults import TAKES_OVER, Fault
from tests.crash.steps import Step

#: Of one host's steps another host's differ in nothing.
_PROCESSES = (COORDINATOR, 'h1')
WHEN = ('before', 'after')
_REACHED_S = 180.0
_ENDS_S = 600.0
#: On a machine that is very busy a snapshot may fail.
_TRIES = 3
#: Marks of the time of the cut, and of the time when it is brought back.
EARLIER, LATER = '1', '2'
#: Is, when a restore begins.
OFF = 'g2'


@dataclasses.dataclass(frozen=True)
class Case:
    """``when`` is before or after the step's command."""

    plot: str
    step: Step
    when: str
    fault: Fault

    def __str__(self):
        does = 'takes over' if self.fault == TAKES_OVER else 'dies'
        return f'{self.plot}: {self.fault} {does} {self.when} {self.step}'

    @property
    def protocol(self) -> str:
        """Whose step it is: a snapshot's or a restore's."""
        return self.plot.partition(' ')[0].rstrip(',')


@dataclasses.dataclass(frozen=True)
class Result:
    """``outcome`` where nothing is ``wrong``."""

    case: Case
    outcome: str
    wrong: tuple[str, ...]
    seconds: float

    def __str__(self):
        wrong = f' WRONG: {"; ".join(self.wrong)}' if self.wrong else ''
        return f'{self.case} -> {self.outcome}{wrong} ({self.seconds} s)'


class Plot:
    """What is done to the group, and what may come of it."""

    name: str

    def __init__(self, site: Bed):
        self.site = site

    def begin(self, ready) -> None:
        """Begin it.

        :param ready: to be called before what is to be met
        """
        raise NotImplementedError

    def end(self, killed: dict[str, str]) -> tuple[str, list[str]]:
        """(outcome, what is wrong), once it is over; all is as before but for the killed.

        :param killed: guests by name, and the mark each had where it ran when it was killed
        """
        raise NotImplementedError


class Taking(Plot):
    """A snapshot is taken, and becomes available."""

    name = 'snapshot'

    def begin(self, ready):
        self._witness = judge.Witness(self.site)
        ready()
        self._snapshot = self.site.create()

    def end(self, killed):
        wrong = self.site.wait_over(self._snapshot, _ENDS_S)
        found = self.site.database.get(self._snapshot)
        if found.status not in (rows.AVAILABLE, rows.ERROR):
            wrong.append(f'it is {found.status}')
        wrong += judge.left(self.site)
        is_available = found.status == rows.AVAILABLE
        wrong += judge.stored(self.site, self._snapshot, is_available)
        wrong += self._witness.harmed(set(killed))
        self.site.delete(self._snapshot)
        return ('available' if is_available else f'gone ({found.error_code})'), wrong


class Aborting(Taking):
    """A snapshot is given up by its user while it is being saved."""

    name = 'snapshot given up'
    _AT = Step(COORDINATOR, 'send save to h1')

    def begin(self, ready):
        coordinator = self.site.processes[self._AT.process]
        coordinator.stand(self._AT.word, 'before')
        super().begin(lambda: None)
        coordinator.must_stand(self._AT.word, 'before', _REACHED_S)
        ready()
        self.site.ask(self.site.api.abort, self._snapshot)
        coordinator.go(self._AT.word, 'before')


class TakingWithout(Taking):
    """A host is away when a snapshot is finished."""

    name = 'snapshot, h2 away'
    _AT = Step(COORDINATOR, 'persist finish')

    def begin(self, ready):
        _without(self.site, self._AT, super().begin, ready)

    def end(self, killed):
        _back(self.site, self._snapshot)
        return super().end(killed)


class Restoring(Plot):
    """The group is brought back. One of it was off, and is to be so again if it fails."""

    name = 'restore'

    def begin(self, ready):
        cut = self.site.cut = self.site.cut or _cut(self.site)
        self._snapshot = cut.snapshot
        self.site.mark(LATER)
        self.site.switch_off(self.site.guests[OFF])
        self._census = judge.Census(self.site)
        self._before = judge.seen(self.site)
        ready()
        self._request = self.site.restore(self._snapshot)

    def end(self, killed):
        wrong = self.site.wait_over(self._snapshot, _ENDS_S)
        action = self.site.database.get(self._snapshot).last_action
        if action['request_id'] != self._request:
            wrong.append(f'another restore: {action}')
        error = action['error'] or {}
        wrong += judge.left(self.site)
        wrong += judge.stored(self.site, self._snapshot, True)
        wrong += self._census.twice()
        is_back = not error or error['code'] == exception.RestoreIncomplete.code
        if is_back:
            off, found = judge.at_the_cut(
                self.site, self.site.cut.then, killed, error.get('message', ''))
            return f'at the cut{_but(off)}', wrong + found
        off, found = judge.as_before(self.site, self._before, {OFF}, killed,
                                     error.get('message', ''))
        return f'as before{_but(off)} ({error["code"]})', wrong + found


class Undoing(Restoring):
    """A restore is given up by its user while old members are being stopped."""

    name = 'restore given up'
    _AT = Step('h1', 'carry out stop')

    def begin(self, ready):
        host = self.site.processes[self._AT.process]
        host.hold(self._AT.word, 'before', until='hasten')
        super().begin(lambda: None)
        host.must_stand(self._AT.word, 'before', _REACHED_S)
        ready()
        self.site.ask(self.site.api.abort, self._snapshot)


class RestoringWithout(Restoring):
    """A host is away when members are to be resumed."""

    name = 'restore, h2 away'
    _AT = Step(COORDINATOR, 'resolve resume')

    def begin(self, ready):
        _without(self.site, self._AT, super().begin, ready)

    def end(self, killed):
        _back(self.site, self._snapshot)
        return super().end(killed)


def _cut(site):
    site.mark(EARLIER)
    for _ in range(_TRIES):
        then = judge.seen(site)
        snapshot = site.create()
        wrong = site.wait_over(snapshot, _ENDS_S)
        found = site.database.get(snapshot)
        if not wrong and found.status == rows.AVAILABLE:
            return Cut(snapshot, then)
    raise services.ServiceError(f'no snapshot to restore: {found.error_message}, {wrong}')


def _without(site, at, begin, ready):
    """Begin a plot whose second host dies at this step of the coordinator."""
    coordinator = site.processes[at.process]
    coordinator.stand(at.word, 'after')
    begin(lambda: None)
    coordinator.must_stand(at.word, 'after', _REACHED_S)
    site.hosts['h2'].service.kill()
    ready()
    coordinator.go(at.word, 'after')


def _back(site, snapshot):
    """The second host is, once nobody waits for it any more."""
    ends = time.monotonic() + _ENDS_S
    service = site.hosts['h2'].service
    while not (service.lives or site.is_closed(snapshot)) and time.monotonic() < ends:
        time.sleep(0.02)
    if not service.lives:
        service.start()
        service.wait_ready()


def _but(off):
    return f' but {", ".join(sorted(off))}, off' if off else ''


PLOTS = (Taking, Aborting, TakingWithout, Restoring, Undoing, RestoringWithout)
_KINDS = {kind.name: kind for kind in PLOTS}


def steps(site: Bed, kind: type[Plot]) -> list[Step]:
    """What is met in an undisturbed run of a plot, in its order, each once."""
    plot, found = kind(site), []

    def ready():
        for name in _PROCESSES:
            site.processes[name].tell()
    plot.begin(ready)
    outcome, wrong = plot.end({})
    if wrong:
        raise services.ServiceError(f'{plot.name}, undisturbed: {outcome}: {"; ".join(wrong)}')
    for name in _PROCESSES:
        found += dict.fromkeys(Step(name, word) for word in site.processes[name].steps())
        site.processes[name].nothing()
    site.heal()
    return found


def run(site: Bed, case: Case) -> Result:
    """One case; the site is as before, where nothing is wrong."""
    began = time.monotonic()
    plot = _KINDS[case.plot](site)
    standing, where = site.processes[case.step.process], (case.step.word, case.when)
    plot.begin(lambda: standing.stand(*where))
    if standing.wait_standing(*where, _REACHED_S):
        killed = site.strike(case.fault)
        if standing.lives:
            standing.go(*where)
        site.revive(case.fault)
        outcome, wrong = plot.end(killed)
    else:
        standing.nothing()
        outcome, wrong = plot.end({})
        wrong = [*wrong, 'the step was not met']
    site.heal()
    return Result(case, outcome, tuple(wrong), round(time.monotonic() - began, 2))


def of(kind: type[Plot], there: list[Step], faults: Iterable[Fault]) -> list[Case]:
    """Every step, before and after, with each of the faults."""
    return [Case(kind.name, step, when, fault)
            for step in there for when in WHEN for fault in faults]
