# SPDX-License-Identifier: Apache-2.0
"""One round: snapshot → kill -9 → restore paused → read counters → resume → verdict.

Our gates and the control go through the very same code; nothing here asks
which gate it was, but how long a control that is already proved broken need
still be watched.
"""

import collections
import concurrent.futures
import dataclasses
import itertools
import random
import time

from tests.lab import Finding, Group, verdict
from tests.lab.counters import Counters
from tests.rounds.command import CommandFailed, Hotsnap

#: For rounds with delays: they alone may reach 400 ms with three members, and
#: a busy machine adds its own.
RAISED_LIMITS = ('--max-hold-ms', '5000', '--max-pause-ms', '5000')
MAX_DELAY_S = 0.2
CONTROL = 'none'
MARKER = 'marker'
_BROKEN_WATCH_S = 4.0
_MOVES_WITHIN_S = 2.0
_DISK_KINDS = frozenset({'torn_block', 'missing_block', 'disk_ahead', 'foreign_block',
                         'lost_base', 'io_error', 'bad_read'})


@dataclasses.dataclass(frozen=True)
class Round:
    """What a round showed.

    :ivar shown: what ``hotsnap snapshot show`` tells; empty where there is no snapshot
    :ivar error: why there is no snapshot, or no restore
    :ivar cut: findings in the restored guests before they resume
    :ivar after: findings after so many further messages
    :ivar messages: further messages taken, by (sender, receiver, kind), TCP alone
    :ivar moments: seconds since the epoch of what happened, by name
    """

    gate: str
    delays_s: tuple[float, ...]
    shown: dict
    error: str = ''
    cut: tuple[Finding, ...] = ()
    after: tuple[Finding, ...] = ()
    messages: dict = dataclasses.field(default_factory=dict)
    alive: int = 0
    connections: int = 0
    states: tuple[Counters, ...] = dataclasses.field(default=(), repr=False)
    moments: dict = dataclasses.field(default_factory=dict)

    @property
    def consistent(self) -> bool:
        """One common past, and connections that live on."""
        return not (self.error or self.cut or self.after)

    @property
    def pauses_ms(self) -> list[float]:
        return [member['pause_ms'] for member in self.shown.get('members', ())]

    @property
    def holds_ms(self) -> list[float]:
        return [member['hold_ms'] for member in self.shown.get('members', ())]

    @property
    def waits_ms(self) -> list[float]:
        return [member['wait_ms'] for member in self.shown.get('members', ())]

    @property
    def skew_ms(self) -> float:
        return self.shown.get('skew_ms') or 0.0

    @property
    def asked(self) -> int:
        """Cuts that a packet asked for."""
        return sum(member.get('asked_by_mark', False) for member in self.shown.get('members', ()))

    @property
    def orphans(self) -> int:
        """Messages received that were never sent."""
        return sum(max(0, link.received - sender.link(receiver.guest, link.kind).sent)
                   for sender, receiver in itertools.permutations(self.states, 2)
                   for link in receiver.links if link.peer == sender.guest)

    @property
    def diverged(self) -> int:
        """Directions whose two ends remember different messages, before or after the resume."""
        return self._count('diverged', 'broken_chain')

    @property
    def disk_findings(self) -> int:
        return self._count(*_DISK_KINDS)

    @property
    def summary(self) -> dict[str, int]:
        """Findings by kind."""
        return dict(collections.Counter(each.kind for each in (*self.cut, *self.after)))

    def _count(self, *kinds: str) -> int:
        return sum(each.kind in kinds for each in {*self.cut, *self.after})


class Rounds:
    """Rounds on one group of lab guests, one after the other.

    Each goes on with the guests that the one before restored. After one that
    broke them, :meth:`mend` brings back a state known to be good: the first
    that was consistent, whose snapshot is kept for it.

    :param messages: further messages each TCP direction must take after a resume
    :param patience_s: how long that may take
    :param most_spent: snapshots that nobody needs any more are deleted when there are so many,
        at once, for each command takes a while; a cloud's quota may want fewer
    """

    def __init__(self, group: Group, hotsnap: Hotsnap, *, messages: int, patience_s: float = 120,
                 most_spent: int = 8):
        self.group = group
        self.hotsnap = hotsnap
        self._messages = messages
        self._patience_s = patience_s
        self._most_spent = most_spent
        self._numbers = itertools.count(1)
        self._good = ''
        self._spent: list[str] = []

    def run(self, gate: str, delays_s: tuple[float, ...] = (),
            limits: tuple[str, ...] = RAISED_LIMITS) -> Round:
        """One round; it never raises for what the guests or the command do wrong.

        :param delays_s: slept before each member's record, in order
        """
        name = f'{self.group.names[0]}-{gate}-{next(self._numbers)}'
        moments = {'create': time.time()}
        try:
            shown = self.hotsnap.create(
                name, self.group.names, gate=gate, limits=limits + self._addresses(gate),
                delays_s=dict(zip(self.group.names, delays_s, strict=False)))
        except CommandFailed as exc:
            return Round(gate, delays_s, {}, error=str(exc), moments=moments)
        moments['saved'] = time.time()
        # They move on, so that what is restored is not what was killed.
        time.sleep(0.3)
        moments['killed'] = time.time()
        for guest in self.group:
            guest.kill9()
        moments['restore'] = time.time()
        try:
            self.hotsnap.restore(name, paused=True)
        except CommandFailed as exc:
            return Round(gate, delays_s, shown, error=str(exc), moments=moments)
        moments['restored'] = time.time()
        states = self.group.counters()
        cut = self.group.verdict()
        moments['resume'] = time.time()
        self._resume()
        patience_s = _BROKEN_WATCH_S if cut and gate == CONTROL else self._patience_s
        after = self.group.wait_messages(self._messages, states, patience_s)
        now = self.group.counters()
        taken = {way: count for way, count in verdict.messages_since(states, now).items()
                 if way[2] != 'udp'}
        alive = len(taken) // 2 if not (cut or after) else self._alive(now)
        moments['end'] = time.time()
        done = Round(gate, delays_s, shown, cut=tuple(cut), after=tuple(after), messages=taken,
                     alive=alive, connections=len(taken) // 2, states=tuple(states),
                     moments=moments)
        if done.consistent and gate != CONTROL and not self._good:
            self._good = name             # stays, for mend
        elif gate == CONTROL or done.consistent:
            self._delete_some(name)
        return done

    def _addresses(self, gate: str) -> tuple[str, ...]:
        """What the command has to be told of guests that mark."""
        if gate != MARKER:
            return ()
        return tuple(word for guest in self.group for word in guest.address_words)

    def mend(self) -> None:
        """Bring back the good state, running.

        :raises CommandFailed: there is none yet, or it could not be restored
        """
        self.hotsnap.restore(self._good)

    def _delete_some(self, name: str) -> None:
        self._spent.append(name)
        if len(self._spent) >= self._most_spent:
            self.hotsnap.delete(*self._spent)
            self._spent.clear()

    def _resume(self) -> None:
        domains = [guest.domain for guest in self.group]
        with concurrent.futures.ThreadPoolExecutor(len(domains)) as pool:
            for resumed in [pool.submit(domain.resume) for domain in domains]:
                resumed.result()

    def _alive(self, before: list[Counters]) -> int:
        """TCP connections that are sound and still move both ways."""
        time.sleep(_MOVES_WITHIN_S)
        now = self.group.counters()
        moved = verdict.messages_since(before, now)
        return sum(
            end.state == 'up' and not end.breaks
            and (other := now[end.peer].link(state.guest, end.kind)).state == 'up'
            and not other.breaks
            and min(moved[state.guest, end.peer, end.kind],
                    moved[end.peer, state.guest, end.kind]) > 0
            for state in now for end in state.links
            if end.kind != 'udp' and state.guest < end.peer)


def random_delays(seed: str, members: int) -> tuple[float, ...]:
    """The same seconds for the same seed, 0 to MAX_DELAY_S before each member's record."""
    source = random.Random(seed)
    return tuple(round(source.uniform(0, MAX_DELAY_S), 4) for _ in range(members))
