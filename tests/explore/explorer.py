# SPDX-License-Identifier: Apache-2.0
"""Visit every world that can come of one, breadth first, and prove that each can become quiet."""

import dataclasses
import gc
from collections import deque

from hotsnap_nova.protocol.durable import Decision
from tests.explore import promises
from tests.explore.hostmodel import Violation


@dataclasses.dataclass
class Found:
    states: int
    steps: int
    quiet: int
    available: int


def explore(rules, world, limit=1_000_000):
    """How much was visited.

    :raises Violation: with the shortest way that leads to it, readable
    """
    gc.disable()  # nothing here is cyclic, and looking for it takes a third of the time
    try:
        return _explore(rules, world, limit)
    finally:
        gc.enable()


def _explore(rules, world, limit):
    came_from = {world: None}
    leads_to = {}
    todo = deque([world])
    steps = 0
    while todo:
        now = todo.popleft()
        for action in rules.actions(now):
            steps += 1
            try:
                then = rules.after(now, action)
                if then is now:
                    continue
                if then in came_from:
                    leads_to.setdefault(then, []).append(now)
                    continue
                promises.check(then)
            except Violation as exc:
                raise Violation(f"{exc}\n{_story(came_from, now, action)}") from None
            came_from[then] = (now, action)
            leads_to[then] = [now]
            todo.append(then)
            if len(came_from) > limit:
                raise AssertionError(f"more than {limit} states")
    quiet = [each for each in came_from if promises.is_quiet(each)]
    _prove_all_heal(came_from, leads_to, quiet)
    available = sum(world.row.decision is Decision.FINISH for world in quiet)
    return Found(len(came_from), steps, len(quiet), available)


def _prove_all_heal(came_from, leads_to, quiet):
    heals = set(quiet)
    todo = deque(quiet)
    while todo:
        for before in leads_to.get(todo.popleft(), ()):
            if before not in heals:
                heals.add(before)
                todo.append(before)
    for world in came_from:
        if world not in heals:
            raise Violation(f"this never becomes quiet:\n{_story(came_from, world)}")


def _story(came_from, world, last=None):
    lines = [] if last is None else [line(last)]
    while came_from[world] is not None:
        world, action = came_from[world]
        lines.append(line(action))
    return "\n".join(reversed(lines))


def line(action):
    name, *rest = action
    if name == "with":
        return f"{line(rest[2])} with {rest[0]} at {rest[1]}"
    words = " ".join(_brief(item) for item in rest if item is not None)
    return f"  {name} {words}"


def _brief(item):
    if hasattr(item, "path"):
        return item.name
    if hasattr(item, "epoch"):
        return f"{type(item).__name__}({item.snapshot}, {item.epoch}, {item.host})"
    return str(item)
