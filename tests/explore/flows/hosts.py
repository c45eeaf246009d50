# SPDX-License-Identifier: Apache-2.0
"""A host: machines, journals, commands under way, post; what `doing` makes of it is the next."""

import dataclasses
from dataclasses import replace

from hotsnap_nova.protocol import messages as say
from hotsnap_nova.protocol.coordinator import LOST
from hotsnap_nova.protocol.durable import Part
from hotsnap_nova.protocol.hoststate import HostState
from hotsnap_nova.protocol.restore import messages as order
from hotsnap_nova.protocol.restore.durable import RestoreEnded, RestorePart
from hotsnap_nova.protocol.restore.participant import RestoreHostState
from tests.explore.flows import guests as g
from tests.explore.flows.engine import FAILED
from tests.explore.flows.guests import Guest

NOTHING_KNOWN = say.Cause("unknown_snapshot")
ANSWERS = (
    order.OrderDone, order.OrderRefused, say.Prepared, say.Recorded, say.Released, say.Saved,
    say.Finished, say.Discarded, say.Refused,
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Host:
    """The machines are None while the process is dead; ``threads`` are lists of commands."""

    name: str
    guests: tuple[Guest, ...]
    power: bool = True
    restores: RestoreHostState | None = None
    snapshots: HostState | None = None
    restore_journal: tuple[RestorePart, ...] = ()
    ended: tuple[RestoreEnded, ...] = ()
    snapshot_journal: tuple[Part, ...] = ()
    decided: tuple = ()
    threads: tuple[tuple, ...] = ()
    works: tuple = ()  # commands that go on in the background
    mail: frozenset = frozenset()

    @property
    def alive(self):
        return self.restores is not None

    def guest(self, name):
        return next(guest for guest in self.guests if guest.name == name)

    def with_guest(self, guest):
        guests = tuple(guest if each.name == guest.name else each for each in self.guests)
        return replace(self, guests=guests)

    def requests(self):
        return sorted((m for m in self.mail if not isinstance(m, ANSWERS)), key=repr)

    def answers(self):
        return sorted((m for m in self.mail if isinstance(m, ANSWERS)), key=repr)


def write_order(host, command):
    """The host once the command has written; what is newer is not replaced by what is older."""
    restore = command.restore
    parts = {part.restore: part for part in host.restore_journal}
    ended = host.ended
    if command.part is None:
        parts.pop(restore, None)
        ended = RestoreHostState("", (), ended).with_end(command.ended).ended
        guests = (replace(guest, lock="") if guest.lock == restore else guest
                  for guest in host.guests)  # fmt: skip
        host = replace(host, guests=tuple(guests))
    elif restore not in [end.restore for end in ended]:
        now = host.restores.part(restore)
        if now is not None and now.step is command.part.step:
            refusal = command.part.refusal or now.refusal
            parts[restore] = replace(command.part, withdrawn=now.withdrawn, refusal=refusal)
    found = tuple(part for _, part in sorted(parts.items()))
    return replace(host, restore_journal=found, ended=ended)


def may_happen(host, what, name):
    """Whether such a thing is possible now, and would change anything."""
    guest = host.guest(name)
    if guest.gone:
        return False
    match what:
        case "kill" | "stop":
            return guest.active
        case "pause":
            return guest.state == g.RUNNING
        case "start":
            return host.power and not (guest.active or guest.elsewhere or guest.guarded)
        case "withdraw":
            parts = (*host.restores.parts, *host.snapshots.parts) if host.alive else ()
            return any(name not in getattr(part, "withdrawn", ()) for part in parts)
        case "delete":
            return host.alive
        case "evacuate":
            return not host.power and not guest.elsewhere
    raise AssertionError(what)


def plain(answer, request=None):
    """One cause is as good as another, but for knowing nothing of what is to be finished."""
    match answer:
        case say.Refused(cause=cause) if isinstance(request, say.Finish) and cause.code in LOST:
            return replace(answer, cause=NOTHING_KNOWN)
        case order.OrderRefused() | say.Refused():
            return replace(answer, cause=FAILED)
        case order.OrderDone():
            return _plain_faults(answer)
    return answer


def epoch_of(snapshot):
    return int(snapshot[1:])


def settled(host):
    """The host, with one cause as good as another, and in no order that means nothing."""
    restores, snapshots = host.restores, host.snapshots
    if restores is not None:
        restores = replace(
            restores, parts=tuple(map(_order_part, restores.parts)),
            ended=tuple(map(_plain_faults, restores.ended)),
        )  # fmt: skip
        snapshots = replace(snapshots, parts=tuple(map(_snapshot_part, snapshots.parts)))
    return replace(
        host, restores=restores, snapshots=snapshots,
        ended=tuple(map(_plain_faults, host.ended)),
        restore_journal=tuple(map(_order_part, host.restore_journal)),
        snapshot_journal=tuple(map(_snapshot_part, host.snapshot_journal)),
        threads=tuple(sorted(host.threads, key=repr)), works=tuple(sorted(host.works, key=repr)),
    )  # fmt: skip


def _order_part(part):
    trouble = part.trouble and "trouble"
    return replace(_plain_faults(part), refusal=part.refusal and FAILED, trouble=trouble)


def _snapshot_part(part):
    return replace(part, refusal=part.refusal and replace(part.refusal, cause=FAILED))


def _plain_faults(thing):
    return replace(thing, faults=tuple(replace(each, cause=FAILED) for each in thing.faults))
