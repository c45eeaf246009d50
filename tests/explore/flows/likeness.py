# SPDX-License-Identifier: Apache-2.0
"""Hosts are alike, and so are rival restores: worlds that differ by who is called how are one.

A name is a string: ``h1`` a host, ``g1a`` a guest on it, ``r2`` a restore, alone or in the name
of a file.
"""

import dataclasses
import itertools
import re

_NAME = re.compile(r"\b([hg])(\d)|\b(r\d)\b")
_SORTED = frozenset({
    "hosts", "waiting", "absent", "faults", "answers", "parts", "restore_journal", "files",
    "before", "written", "stopped", "resumed", "ran", "owned", "unrecorded", "threads",
    "works",
})  # fmt: skip
"""Fields whose order follows names, or means nothing."""


@dataclasses.dataclass(frozen=True)
class Naming:
    """``hosts``: number n is called ``hosts[n]``; ``restores``: the same for their names."""

    hosts: tuple[int, ...] = ()
    restores: tuple[tuple[str, str], ...] = ()

    def text(self, text):
        return _NAME.sub(self._one, text)

    def _one(self, found):
        if found[3]:
            return dict(self.restores).get(found[3], found[3])
        n = int(found[2])
        return f"{found[1]}{self.hosts[n] if n < len(self.hosts) else n}"

    def after(self, other):
        """What this makes of the names that ``other`` has made."""
        hosts = tuple(self.hosts[n] for n in other.hosts)
        mine = dict(self.restores)
        return Naming(hosts, tuple((old, mine.get(new, new)) for old, new in other.restores))

    def of(self, thing):
        """The same thing, called otherwise."""
        if isinstance(thing, str):
            return self.text(thing) if type(thing) is str else thing
        if isinstance(thing, tuple):
            return tuple(map(self.of, thing))
        if isinstance(thing, frozenset):
            return frozenset(map(self.of, thing))
        if not dataclasses.is_dataclass(thing):
            return thing
        fields = {}
        for field in dataclasses.fields(thing):
            value = self.of(getattr(thing, field.name))
            if field.name in _SORTED and len(value) > 1:
                value = tuple(sorted(value, key=repr))
            fields[field.name] = value
        return type(thing)(**fields)


def swapped(n):
    """Number 0 and number n have each other's name."""
    hosts = list(range(n + 1))
    hosts[0], hosts[n] = n, 0
    return Naming(tuple(hosts))


def renamings(names):
    """All ways to call restores among each other, as they are first."""
    for order in itertools.permutations(names):
        yield tuple(zip(names, order, strict=True))


def orders(keys):
    """All permutations (new number → old) that sort ``keys``."""
    numbers = sorted(range(len(keys)), key=keys.__getitem__)
    groups = [tuple(group) for _, group in itertools.groupby(numbers, key=keys.__getitem__)]
    if len(groups) == len(keys):
        return [tuple(numbers)]
    choices = itertools.product(*map(itertools.permutations, groups))
    return [tuple(itertools.chain.from_iterable(choice)) for choice in choices]
