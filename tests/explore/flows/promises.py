# SPDX-License-Identifier: Apache-2.0
"""What must never be, whatever fails, beside what `guests.check` says of a single guest.

Each is judged by one host and the rows alone, but `no_old_member_runs`, which looks at all hosts.
"""

from hotsnap_nova.protocol.durable import Decision
from hotsnap_nova.protocol.restore.durable import Resolution
from hotsnap_nova.protocol.restore.messages import Step
from tests.explore.flows import guests as g
from tests.explore.flows.guests import Violation


def old_member_runs(host, restore):
    """The member here that still, or again, runs on a disk that the restore replaces; or None.

    While there is one anywhere, no restored member may run.
    """
    if restore in [end.restore for end in host.ended]:
        return None
    mine = ("", f"cut-{restore}")
    return next((
        guest.name for guest in host.guests
        if not guest.gone and (guest.open not in mine or guest.elsewhere not in mine)
    ), None)  # fmt: skip


def check(host, undertakings):
    """Raise where a host and the rows tell of a broken promise."""
    for each in undertakings:
        (_check_restore if each.is_restore else _check_snapshot)(host, each.row)


def _check_restore(host, row):
    for end in host.ended:
        decided = Resolution.RESUME if end.step is Step.RESUME else Resolution.UNDO
        if end.restore == row.restore and decided is not row.resolution:
            raise Violation(f"{host.name} has ended with {end.step}, which was never decided")
    share = dict(row.hosts)[host.name]
    members, paused = {member.id for member in share.members}, share.paused
    for guest in host.guests:
        if row.restore in guest.ran and row.resolution is not Resolution.RESUME:
            raise Violation(f"{guest.name} ran at a cut, which was never decided")
    if not row.closed or host.name in row.absent:
        return
    parts = (*host.restore_journal, *(host.restores.parts if host.alive else ()))
    if row.restore in [part.restore for part in parts]:
        raise Violation(f"{host.name} still holds on to {row.restore}, which is closed")
    named = {fault.member for fault in row.faults}
    resumed = row.resolution is Resolution.RESUME
    for guest in host.guests:
        if guest.name not in members or guest.gone:
            continue
        if guest.lock == row.restore:
            raise Violation(f"{guest.name} is locked by {row.restore}, which is closed")
        files = guest.named(f"new-{row.restore}") or guest.named(f"old-{row.restore}")
        if files and guest.name not in named:
            raise Violation(f"{guest.name} has files of {row.restore}, which is closed")
        if resumed and row.restore not in guest.ran and guest.name not in named:
            raise Violation(f"{guest.name} did not run at the cut, and nobody says so")
        if resumed and guest.name in named and not guest.harmed:
            raise Violation(f"{guest.name} is named, and nothing has happened to it")
        runs = guest.state == (g.PAUSED if resumed and paused else g.RUNNING)
        if not (runs or guest.harmed) and is_at_rest(host):
            raise Violation(f"{guest.name} is left {guest.state}")
        undone = row.resolution is Resolution.UNDO
        told = guest.name in named or guest.harmed
        if undone and row.restore in guest.rebooted and not told:
            raise Violation(f"{guest.name} was started anew, and nobody says so")
        if undone and guest.disk == f"cut-{row.restore}" and guest.name not in named:
            raise Violation(f"{guest.name} has the disk of a cut that never was; nobody says so")


def _check_snapshot(host, row):
    for known in host.decided:
        if known.snapshot == row.snapshot and known.decision is not row.decision:
            raise Violation(f"{host.name} believes {known.decision}, not {row.decision}")
    finished = row.decision is Decision.FINISH
    members = {member.id for member in dict(row.hosts)[host.name].members}
    closed = row.closed and host.name not in row.absent
    parts = (*host.snapshot_journal, *(host.snapshots.parts if host.alive else ()))
    if closed and row.snapshot in [part.snapshot for part in parts]:
        raise Violation(f"{host.name} still holds on to {row.snapshot}, which is closed")
    if finished and row.cause:
        raise Violation("a host is said to have lost its journal, and none has")
    for guest in (each for each in host.guests if each.name in members):
        published = row.snapshot in guest.published
        if published and not finished:
            raise Violation(f"{guest.name} was published but never decided")
        if finished and not (published or row.snapshot in guest.saved):
            raise Violation(f"available without the state of {guest.name}")
        if finished and closed and not published:
            raise Violation(f"{guest.name} of an available snapshot is missing")
        if closed and (row.snapshot in guest.left or guest.lock == row.snapshot):
            raise Violation(f"{guest.name} is left with traces of {row.snapshot}")


def is_at_rest(host):
    """Nothing is under way here, and every guest is its owner's."""
    return (
        host.alive and not (host.threads or host.works or host.restore_journal)
        and not (host.restores.parts or host.snapshots.parts or host.snapshot_journal)
        and not any(
            guest.lock or guest.left or (guest.state == g.PAUSED and guest.loaded)
            for guest in host.guests if not (guest.gone or guest.owned)
        )
    )  # fmt: skip
