# SPDX-License-Identifier: Apache-2.0
"""Visit every world of a space, breadth first, and prove that each can become quiet."""

import array
import dataclasses
import gc
from collections import deque

from tests.explore.flows.guests import Violation
from tests.explore.flows.likeness import Naming
from tests.explore.flows.space import naming_of


@dataclasses.dataclass
class Found:
    """``ends``: how often everything was over with these decisions."""

    worlds: int
    steps: int
    quiet: int
    ends: dict


def explore(space, limit=3_000_000):
    """How much was visited.

    :raises Violation: with the shortest way that leads to it
    """
    gc.disable()  # nothing here is cyclic, and looking for it takes a third of the time
    try:
        return _explore(space, limit)
    finally:
        gc.enable()


def _explore(space, limit):
    start, by = space.canonical(space.start)
    number = {start: 0}
    worlds, parents, quiet = [start], [(None, "", by)], []
    sources, targets = array.array("l"), array.array("l")
    n = 0
    while n < len(worlds):
        world = worlds[n]
        if space.is_quiet(world):
            quiet.append(n)
        try:
            for label, after in space.moves(world):
                then, by = space.canonical(after)
                to = number.get(then)
                if to is None:
                    to = number[then] = len(worlds)
                    worlds.append(then)
                    parents.append((n, label, by))
                sources.append(n)
                targets.append(to)
        except Violation as exc:
            what, label = exc.args
            raise Violation(f"{what}\n{_story(parents, n, label)}") from None
        if len(worlds) > limit:
            raise AssertionError(f"more than {limit} worlds")
        n += 1
    _prove_all_heal(len(worlds), sources, targets, quiet, parents)
    ends = {}
    for n in quiet:
        key = tuple(str(each.decision) for each in space.undertakings(worlds[n]) if each.begun)
        ends[key] = ends.get(key, 0) + 1
    return Found(len(worlds), len(sources), len(quiet), ends)


def _prove_all_heal(many, sources, targets, quiet, parents):
    leads_to = [[] for _ in range(many)]
    for source, target in zip(sources, targets, strict=True):
        leads_to[target].append(source)
    heals, todo = bytearray(many), deque(quiet)
    for n in quiet:
        heals[n] = 1
    while todo:
        for before in leads_to[todo.popleft()]:
            if not heals[before]:
                heals[before] = 1
                todo.append(before)
    if 0 in heals:
        raise Violation(f"this never becomes quiet:\n{_story(parents, heals.index(0))}")


def _story(parents, n, last=None):
    """What led to a world, with the names that all had at the beginning."""
    chain = []
    while n is not None:
        chain.append(parents[n])
        n = parents[n][0]
    names, lines = None, []
    for _, label, by in reversed(chain):
        if label:
            lines.append("  " + told(label, names))
        names = _original(by, names)
    return "\n".join(lines + ([f"  {told(last, names)}"] if last else []))


def told(label, names=None):
    """A label with the names of its host, and of the beginning."""
    if isinstance(label, tuple):
        text, n = label
        label = text if n is None else Naming((n,)).text(text)
    return names.text(label) if names else label


def _original(by, names):
    """From names in the world that was visited to those of the beginning."""
    to = naming_of(*by)
    hosts = tuple(to.hosts.index(n) for n in range(len(to.hosts)))
    back = Naming(hosts, tuple((new, old) for old, new in to.restores))
    return names.after(back) if names else back
