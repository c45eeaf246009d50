# SPDX-License-Identifier: Apache-2.0
"""Long random runs of whole hosts: several snapshots and restores of one group, many faults.

The explorer goes everywhere with one or two faults; a run goes one way, with many of them.
"""

import contextlib
import random
from dataclasses import replace

from tests.explore.flows import labels, promises
from tests.explore.flows.doing import Dead, Doing
from tests.explore.flows.guests import Violation
from tests.explore.flows.hosts import may_happen, settled
from tests.explore.flows.space import BUDGETS, TO_GUESTS
from tests.explore.flows.undertakings import Office
from tests.explore.flows.worlds import Build, new_hosts, new_undertakings

ROUNDS = 100  # of healing; more are not needed
RIVALS = ("r1", "r1 r2", "r1 s2", "r1 r2 s3", "s1 s2", "s1 r2 s3")
SELDOM = 8  # something goes wrong once in so many steps, or nothing would ever end well
_FAULTS = (("fail", "failures"), ("crash", "crashes"), ("lose power", "powers"))
_AS_FAULTS = ("kill", "stop", "start", "withdraw")
_HEALS = ("get power", "restart", "work", "thread")


class FlowRun:
    """One world that goes on.

    :param choose: gives the index of one of n possibilities
    :param faults: how often what may go wrong, by the names in `space.BUDGETS`
    :ivar story: what has happened, a line each
    :ivar steps: how often something could
    """

    def __init__(self, choose, ids, hosts=2, members=1, atomic=True, paused=False, build=None,
                 **faults):
        self._build, self._atomic = build or Build(), atomic
        self.hosts = list(new_hosts(hosts, members))
        self.tops = list(new_undertakings(ids, self.hosts, paused))
        self._office, self._choose, self._left = Office(self._build), choose, dict(faults)
        self.story, self.steps = [], 0

    def step(self):
        """One more thing happens, or nothing.

        :raises Violation: it breaks a promise
        """
        self.steps += 1
        who = self._choose(len(self.hosts) + 1)
        if who == len(self.hosts):
            wrong = not self._choose(SELDOM)
            self._one_of([
                each for each in self._top_moves()
                if (self._has(each[1]) if wrong else each[1] is None)
            ])  # fmt: skip
        else:
            self._one_of(self._host_moves(who))

    def go(self, steps):
        """So many of them, and healing.

        :raises Violation: as of both
        """
        for _ in range(steps):
            self.step()
        self.heal()

    def heal(self):
        """Nothing fails any more, and every message arrives: all must become quiet.

        :raises Violation: it does not
        """
        self._left = {}
        for _ in range(ROUNDS):
            if self.is_quiet():
                return
            before = (*self.hosts, *self.tops)
            for n in range(len(self.hosts)):
                self._mend(n)
            for n in range(len(self.tops)):
                self._get_on(n)
            if before == (*self.hosts, *self.tops):
                self._all_of(
                    each for each in self._top_moves()
                    if "deadline" in each[0] or "errand" in each[0]
                )  # fmt: skip
        raise Violation(f"this did not become quiet\n{self.told()}")

    def is_quiet(self):
        over = all(each.row.closed for each in self.tops if each.begun)
        return over and all(map(promises.is_at_rest, self.hosts))

    def told(self):
        return "\n".join(f"  {line}" for line in self.story)

    # -- what may happen --------------------------------------------------------------------------
    def _host_moves(self, n):
        host, found = self.hosts[n], []
        if not self._choose(SELDOM):
            happens = [
                ((what, guest.name), cost) for what, cost in TO_GUESTS.items()
                for guest in host.guests if may_happen(host, what, guest.name)
            ]  # fmt: skip
            happens += [(("crash",), "crashes")] if host.alive else []
            happens += [(("lose power",), "powers")] if host.power else []
            return [
                (" ".join(deed), cost, self._doing(n, *_deed(deed)))
                for deed, cost in happens if self._has(cost)
            ]  # fmt: skip
        for what, *about in self._plain(host):
            label = f"{what} {labels.brief(host, what, *about)}"
            found.append((label, None, self._perhaps_at_fault(n, label, what, *about)))
        return found

    def _plain(self, host):
        if host.alive:
            yield from (("order", message) for message in host.requests())
            yield from (("work", n) for n in range(len(host.works)))
            yield from (("thread", n) for n in range(len(host.threads)))
        elif host.power:
            yield ("restart",)
        else:
            yield ("get power",)

    def _top_moves(self, only=None):
        for n, each in enumerate(self.tops):
            if only in (None, n):
                for what, cost, then in self._office.moves(each):
                    yield f"{each.id}: coordinator {what}", cost, self._ruling(n, then)
        for host in self.hosts:
            for message in host.answers():
                about = getattr(message, "restore", None) or message.snapshot
                for n, each in enumerate(self.tops):
                    if each.id == about and only in (None, n):
                        for slot, then in self._office.answer(each, message):
                            label = f"{about}: coordinator {slot} hears {labels.short(message)}"
                            yield label, None, self._ruling(n, then)

    # -- and how ----------------------------------------------------------------------------------
    def _doing(self, n, what, *about, fault=None, at=-1):
        def do():
            doing = Doing(self._build, self.hosts[n], self._atomic, fault, at)
            with contextlib.suppress(Dead):
                getattr(doing, what.replace(" ", "_"))(*about)
            self.hosts[n] = settled(doing.host)
            for restore in doing.ran:
                for host in self.hosts:
                    if old := promises.old_member_runs(host, restore):
                        raise Violation(f"a restored member runs while {old} runs, too")
            promises.check(self.hosts[n], [each for each in self.tops if each.begun])
        return do

    def _perhaps_at_fault(self, n, label, what, *about):
        """The same, sometimes with what can go wrong at one of its units."""
        def do():
            faults = [((fault, ""), cost) for fault, cost in _FAULTS if self._has(cost)]
            faults += [
                ((deed, guest.name), TO_GUESTS[deed]) for deed in _AS_FAULTS
                for guest in self.hosts[n].guests if self._has(TO_GUESTS[deed])
            ]  # fmt: skip
            if not faults or self._choose(SELDOM):
                return self._doing(n, what, *about)()
            tried = Doing(self._build, self.hosts[n], self._atomic)
            getattr(tried, what.replace(" ", "_"))(*about)
            if not tried.units:
                return self._doing(n, what, *about)()
            fault, cost = faults[self._choose(len(faults))]
            at = self._choose(tried.units)
            self._left[cost] -= 1
            self.story[-1] += f", {' '.join(fault).strip()} at {at}"
            return self._doing(n, what, *about, fault=fault, at=at)()
        return do

    def _ruling(self, n, then):
        def do():
            found = then()
            if isinstance(found, str):
                raise Violation(found)
            self.tops[n], sent = found
            for place, host in enumerate(self.hosts):
                mine = {message for message in sent if message.host == host.name}
                self.hosts[place] = replace(host, mail=host.mail | mine)
                promises.check(self.hosts[place], [each for each in self.tops if each.begun])
        return do

    def _one_of(self, moves):
        if moves:
            self._do(*moves[self._choose(len(moves))])

    def _all_of(self, moves):
        for move in list(moves):
            self._do(*move)

    def _do(self, label, cost, do):
        if cost is not None and self._left:
            self._left[cost] -= 1
        self.story.append(label)
        try:
            do()
        except Violation as exc:
            raise Violation(f"{exc}\n{self.told()}") from None

    def _has(self, cost):
        return cost is None or self._left.get(cost, 0) > 0

    # -- healing ----------------------------------------------------------------------------------
    def _mend(self, n):
        """A host gets power, starts, ends what it is at, and hears all that was ever sent."""
        for message in ("", *self.hosts[n].requests()):
            while todo := [each for each in self._plain(self.hosts[n]) if each[0] in _HEALS]:
                what, *about = todo[0]
                self._do(f"{self.hosts[n].name} {what}", None, self._doing(n, what, *about))
            if message:
                label = f"{self.hosts[n].name} order {labels.short(message)}"
                self._do(label, None, self._doing(n, "order", message))

    def _get_on(self, n):
        """A coordinator starts, writes, and hears all that was ever answered."""
        for wanted in ("starts", "writes again", "writes", "hears"):
            moves = [
                each for each in self._top_moves(n)
                if each[1] is None and wanted in each[0] and self.tops[n].begun
            ]  # fmt: skip
            for label, *_ in moves:
                same = (each for each in self._top_moves(n) if each[0] == label)
                for move in same:  # which an earlier one may have made impossible
                    self._do(*move)
                    break


def flow_run(seed, build=None):
    """The run of this number, healed.

    :raises Violation: a promise was broken
    """
    chance = random.Random(seed)
    faults = chance.sample(BUDGETS, chance.randint(0, 4))
    run = FlowRun(
        chance.randrange, chance.choice(RIVALS).split(), chance.randint(1, 3),
        chance.randint(1, 2), bool(chance.randrange(2)), build=build,
        **{kind: chance.randint(1, 3) for kind in faults},
    )  # fmt: skip
    run.go(chance.randint(20, 400))
    return run


def _deed(deed):
    what, *about = deed
    return (what,) if what in ("crash", "lose power") else ("happen", what, *about)
