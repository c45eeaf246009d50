# SPDX-License-Identifier: Apache-2.0
"""What must never be, whatever fails."""

from hotsnap_nova.protocol.durable import Decision, Phase
from hotsnap_nova.protocol.messages import Refused
from tests.explore.hostmodel import Violation
from tests.explore.world import DISOWNED


def check_decision(world, row):
    final = world.row.decision in (Decision.FINISH, Decision.DISCARD)
    if final and row.decision is not world.row.decision:
        raise Violation("a decision was changed")
    if row.decision is not Decision.FINISH or row.closed:
        return
    for message in world.net:
        disowned = isinstance(message, Refused) and message.cause == DISOWNED
        if disowned and message.epoch == row.epoch:
            raise Violation(f"{message.host} has disowned this snapshot")
    for host in world.hosts:
        for guest in host.guests if not host.lost else ():
            taken = guest.taken
            if taken is None or taken.snapshot != row.snapshot or not guest.saved:
                raise Violation(f"available without the state of {guest.name}")
            if taken.orphan:
                raise Violation(f"{guest.name} has received what nobody has sent")
            if guest.path.overflowed:
                raise Violation(f"{guest.name}'s gate dropped packets, and nobody said so")
            if taken.torn:
                raise Violation(f"{guest.name}'s memory and disk are of two instants")
            for other in (g for h in world.hosts for g in h.guests):
                sent = dict(other.taken.sent).get(guest.name, 0) if other.taken else 0
                if dict(taken.received).get(other.name, 0) > sent:
                    raise Violation(f"{guest.name} has a packet {other.name} has not sent")


def check(world):
    """Raise where a promise is broken in this world."""
    row = world.row
    for host in world.hosts:
        for known in host.decided:
            decided = known.decision in (Decision.FINISH, Decision.DISCARD)
            if known.snapshot == row.snapshot and decided and known.decision != row.decision:
                raise Violation(f"{host.name} believes {known.decision}, not {row.decision}")
        for guest in host.guests:
            published = any(taken.snapshot == row.snapshot for taken in guest.published)
            if published and row.decision is not Decision.FINISH:
                raise Violation(f"{guest.name} was published but never decided")
            finished = row.closed and row.decision is Decision.FINISH
            if finished and not published and host.name not in row.absent:
                raise Violation(f"{guest.name} of an available snapshot is missing")
        parts = host.machine.parts if host.machine is not None else ()
        idle = host.machine is not None and not host.threads
        idle = idle and all(part.phase is Phase.SPOILED for part in parts)
        closed = row.closed and host.name not in row.absent and not host.lost
        for guest in host.guests if idle or closed else ():
            if not guest.untouched:
                raise Violation(f"{guest.name} is left with traces of a snapshot")
        if closed and (host.parts or (host.machine and host.machine.parts)):
            raise Violation(f"{host.name} still holds on to a closed snapshot")


def is_quiet(world):
    """Everything is over, and the guests are as they were."""
    return (
        world.row.closed
        and all(host.machine is not None and not host.threads for host in world.hosts)
        and not any(host.parts or host.machine.parts for host in world.hosts if not host.lost)
        and all(guest.untouched for host in world.hosts for guest in host.guests)
    )
