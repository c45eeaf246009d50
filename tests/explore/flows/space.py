# SPDX-License-Identifier: Apache-2.0
"""All worlds that can come of one, up to the names of hosts and of rival restores.

A world is a tuple of numbers: of the undertakings, of what may still go wrong, and of each host.
What a number stands for is worked out once, and so is all that may happen to it; so a world costs
a few look-ups. Every host is remembered as if it were the first, h0; its place says who it is.
"""

import dataclasses
import functools

from hotsnap_nova.protocol import messages as say
from tests.explore.flows import labels, promises
from tests.explore.flows.doing import Dead, Doing
from tests.explore.flows.guests import Violation
from tests.explore.flows.hosts import may_happen, settled
from tests.explore.flows.likeness import Naming, orders, renamings, swapped
from tests.explore.flows.undertakings import Office

TO_GUESTS = {
    "kill": "kills", "stop": "owners", "start": "owners", "pause": "owners",
    "withdraw": "withdrawals", "delete": "withdrawals", "evacuate": "evacuations",
}  # fmt: skip
BUDGETS = (
    "crashes", "powers", "failures", "kills", "owners", "withdrawals", "evacuations", "timeouts",
    "absences", "aborts", "takeovers", "coordinator_crashes",
)  # fmt: skip


_ONCE = (
    "_moves_of_host", "_moves_of_top", "_answers_of", "_hear", "_post", "_spend", "_rows_of",
    "_verdict", "_old_member", "_is_at_rest", "_called", "_top_called",
)  # fmt: skip
"""Methods that are remembered: what they give depends on the numbers they get."""


class _Table:
    """Numbers for things that are equal."""

    def __init__(self):
        self.things, self._numbers = [], {}

    def number(self, thing):
        found = self._numbers.get(thing)
        if found is None:
            found = self._numbers[thing] = len(self.things)
            self.things.append(thing)
        return found


class Space:
    """Worlds from which others follow.

    :param hosts: a tuple of `Host`, called h0, h1 …
    :param undertakings: a tuple of `Undertaking`
    :param budget: how often what may go wrong, by the names in `BUDGETS`
    :param atomic: no message arrives while a host works, but while it saves
    """

    def __init__(self, build, hosts, undertakings, budget, atomic=True):
        assert set(budget) <= set(BUDGETS), budget
        self._build, self._atomic = build, atomic
        self._office = Office(build)
        self._kinds = {kind for kind, times in budget.items() if times}
        self._tops, self._hosts, self._budgets, self._rows = (_Table() for _ in range(4))
        self._naming = [swapped(n) for n in range(len(hosts))]
        self._renamings = self._alike(undertakings)
        for name in _ONCE:
            setattr(self, name, functools.cache(getattr(self, name)))
        self.start = (
            self._tops.number(undertakings),
            self._budgets.number(tuple(budget.get(kind, 0) for kind in BUDGETS)),
            *(self._hosts.number(self._naming[n].of(host)) for n, host in enumerate(hosts)),
        )

    def undertakings(self, world):
        return self._tops.things[world[0]]

    def without_faults(self, world):
        return (world[0], self._budgets.number((0,) * len(BUDGETS)), *world[2:])

    # -- what may happen --------------------------------------------------------------------------
    def moves(self, world):
        """(what happens, the world after it).

        :raises Violation: one of them breaks a promise
        """
        top, budget, *hosts = world
        for n, host in enumerate(hosts):
            for label, cost, then, ran in self._moves_of_host(host):
                left = budget if cost is None else self._spend(budget, cost)
                if left is None:
                    continue
                if isinstance(then, str):
                    raise Violation(self._naming[n].text(then), self._naming[n].text(label))
                after = (top, left, *hosts[:n], then, *hosts[n + 1:])
                for restore in ran:
                    self._check_old(after, restore, label)
                self._check(after, label, n)
                yield (label, n), after
        for label, cost, then, sent in self._moves_of_top(top):
            left = budget if cost is None else self._spend(budget, cost)
            if left is not None:
                yield (label, None), self._sent(label, then, left, hosts, sent)
        for n, host in enumerate(hosts):
            for message in self._answers_of(host, n):
                for label, then, sent in self._hear(top, message):
                    yield (label, None), self._sent(label, then, budget, hosts, sent)

    def is_quiet(self, world):
        """All is over, and every guest its owner's."""
        if not all(each.row.closed for each in self.undertakings(world) if each.begun):
            return False
        return all(self._is_at_rest(number) for number in world[2:])

    def _sent(self, label, then, budget, hosts, sent):
        if isinstance(then, str):
            raise Violation(then, label)
        if sent:
            hosts = [self._post(number, n, sent) for n, number in enumerate(hosts)]
        after = (then, budget, *hosts)
        for n in range(len(hosts)):
            self._check(after, label, n)
        return after

    # -- a host -----------------------------------------------------------------------------------
    def _moves_of_host(self, number):
        host, seen, found = self._hosts.things[number], set(), []
        for label, cost, then, ran in self._try_all(host):
            if not isinstance(then, str):
                if then == host:
                    continue
                then = self._hosts.number(then)
            if (cost, then) not in seen:
                seen.add((cost, then))
                found.append((f"{host.name} {label}", cost, then, ran))
        return found

    def _try_all(self, host):
        plain = []
        if host.alive:
            plain += [("order", message) for message in host.requests()]
            plain += [("work", n) for n in range(len(host.works))]
            plain += [("thread", n) for n in range(len(host.threads))]
            yield self._single("crash", "crashes", host)
        elif host.power:
            plain.append(("restart",))
        else:
            yield self._single("get_power", None, host)
        if host.power:
            yield self._single("lose_power", "powers", host)
        deeds = [
            (what, guest.name, cost) for what, cost in TO_GUESTS.items() if cost in self._kinds
            for guest in host.guests
        ]  # fmt: skip
        for what, name, cost in deeds:
            if may_happen(host, what, name):
                yield self._single("happen", cost, host, what, name)
        faults = [
            (what, "", cost) for what, cost in (
                ("fail", "failures"), ("crash", "crashes"), ("lose power", "powers")
            ) if cost in self._kinds
        ]  # fmt: skip
        faults += [deed for deed in deeds if deed[0] not in ("evacuate", "pause", "delete")]
        for what, *about in plain:
            label = f"{what} {labels.brief(host, what, *about)}"
            doing = Doing(self._build, host, self._atomic)
            yield self._run(doing, label, None, what, *about)
            for fault, name, cost in faults:
                for at in range(doing.units):
                    if at or fault == "fail":
                        again = Doing(self._build, host, self._atomic, (fault, name), at)
                        text = f"{label}, {fault} {name} at {at}"
                        yield self._run(again, text, cost, what, *about)

    def _single(self, what, cost, host, *about):
        label = " ".join((what.replace("_", " "), *about))
        return self._run(Doing(self._build, host, self._atomic), label, cost, what, *about)

    def _run(self, doing, label, cost, what, *about):
        try:
            getattr(doing, what)(*about)
        except Dead:
            pass
        except Violation as exc:
            return label, cost, str(exc), ()
        return label, cost, settled(doing.host), doing.ran

    def _post(self, number, n, sent):
        host = self._hosts.things[number]
        mine = {self._naming[n].of(message) for message in sent if message.host == f"h{n}"}
        return self._hosts.number(dataclasses.replace(host, mail=host.mail | mine))

    def _answers_of(self, number, n):
        return [self._naming[n].of(message) for message in self._hosts.things[number].answers()]

    def _is_at_rest(self, number):
        return promises.is_at_rest(self._hosts.things[number])

    # -- the undertakings -------------------------------------------------------------------------
    def _moves_of_top(self, number):
        found, top = [], self._tops.things[number]
        for n, each in enumerate(top):
            for what, cost, then in self._office.moves(each):
                if cost is None or cost in self._kinds:
                    label = f"{each.id}: coordinator {what}"
                    found += self._one(label, cost, number, n, then())
        return found

    def _hear(self, number, message):
        found, top = [], self._tops.things[number]
        about = message.snapshot if isinstance(message, say.Message) else message.restore
        for n, each in enumerate(top):
            if each.id == about:
                for slot, then in self._office.answer(each, message):
                    label = f"{each.id}: coordinator {slot} hears {labels.short(message)}"
                    found += self._one(label, None, number, n, then())
        return [(label, then, sent) for label, _, then, sent in found]

    def _one(self, label, cost, number, n, then):
        if isinstance(then, str):
            return [(label, cost, then, ())]
        top = self._tops.things[number]
        then, sent = then
        then = self._tops.number((*top[:n], then, *top[n + 1:]))
        return [(label, cost, then, sent)] if then != number else []

    def _spend(self, budget, cost):
        left = list(self._budgets.things[budget])
        left[BUDGETS.index(cost)] -= 1
        return None if min(left) < 0 else self._budgets.number(tuple(left))

    # -- promises ---------------------------------------------------------------------------------
    def _check(self, world, label, n):
        rows = self._rows_of(world[0], n)
        broken = self._verdict(world[n + 2], rows)
        if broken:
            raise Violation(*map(self._naming[n].text, (broken, label)))

    def _verdict(self, number, rows):
        try:
            promises.check(self._hosts.things[number], self._rows.things[rows])
        except Violation as exc:
            return str(exc)
        return None

    def _rows_of(self, top, n):
        """What the database says, as if host number n were the first."""
        rows = (
            dataclasses.replace(each, slots=(), row=dataclasses.replace(each.row, generation=0))
            for each in self._tops.things[top] if each.begun
        )  # fmt: skip
        return self._rows.number(self._naming[n].of(tuple(rows)))

    def _check_old(self, world, restore, label):
        for n, number in enumerate(world[2:]):
            old = self._old_member(number, restore)
            if old:
                old = self._naming[n].text(old)
                raise Violation(f"a restored member runs while {old} runs, too", label)

    def _old_member(self, number, restore):
        return promises.old_member_runs(self._hosts.things[number], restore)

    # -- likeness ---------------------------------------------------------------------------------
    def canonical(self, world):
        """(the one of its likes that is visited, what its names are in there)."""
        top, budget, *hosts = world
        likes = []
        for renaming in self._renamings:
            found = [self._called(host, renaming) for host in hosts]
            likes.append((sorted(found), found, renaming))
        least = min(like[0] for like in likes)
        number, by = min(
            (self._top_called(top, renaming, order), (renaming, order))
            for same, found, renaming in likes if same == least for order in orders(found)
        )  # fmt: skip
        return (number, budget, *least), by

    def _called(self, number, renaming):
        if all(old == new for old, new in renaming):
            return number
        return self._hosts.number(Naming((0,), renaming).of(self._hosts.things[number]))

    def _top_called(self, number, renaming, order):
        return self._tops.number(_renamed(self._tops.things[number], naming_of(renaming, order)))

    def _alike(self, undertakings):
        names = tuple(each.id for each in undertakings if each.is_restore)
        nobody = tuple(range(len(self._naming)))
        return [
            renaming for renaming in renamings(names)
            if _renamed(undertakings, Naming(nobody, renaming)) == undertakings
        ]  # fmt: skip


def naming_of(renaming, order):
    """Where ``order`` says which host has which place."""
    hosts = [0] * len(order)
    for new, old in enumerate(order):
        hosts[old] = new
    return Naming(tuple(hosts), renaming)


def _renamed(undertakings, naming):
    return tuple(sorted(naming.of(undertakings), key=lambda each: each.id))
