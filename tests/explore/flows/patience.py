# SPDX-License-Identifier: Apache-2.0
"""Nobody waits for ever: a coordinator comes to an end although no host ever answers it.

Rows here have hosts that may be left an errand; where nobody would run one, it waits by design.
"""

from hotsnap_nova.protocol import commands as snap
from hotsnap_nova.protocol import messages as say
from hotsnap_nova.protocol.coordinator import ABORTABLE as UNTIL_AVAILABLE
from hotsnap_nova.protocol.durable import Decision
from hotsnap_nova.protocol.restore import commands as rest
from hotsnap_nova.protocol.restore.coordinator import ABORTABLE as UNTIL_DECIDED
from hotsnap_nova.protocol.restore.durable import Resolution
from hotsnap_nova.protocol.restore.messages import AbortRestore
from tests.explore.flows.guests import Violation

LATER_NS = 10**16  # four months: whatever anybody waits for has passed
PATIENCE = 50  # and so often


def check(kind, all_of_it):
    """Raise where one of its coordinators depends on a host, or a user's wish does."""
    for state in all_of_it.slots:
        if state is not None:
            _check_end(kind(state), all_of_it)
            _check_abort(kind(state), all_of_it)


def _check_end(machine, all_of_it):
    now, phase = 0, machine.state.phase
    for _ in range(PATIENCE):
        if machine.state.phase in ("closed", "stood_down"):
            return
        write = machine.state.write
        if write is not None and machine.state.write_again_ns is None:
            done = rest.Resolved if all_of_it.is_restore else snap.Persisted
            machine.receive(done(all_of_it.id, write.generation + 1), now)
            continue
        now += LATER_NS
        for command in machine.tick(now):
            if isinstance(command, rest.LeaveErrand):
                machine.receive(rest.ErrandLeft(all_of_it.id, command.order.host), now)
            elif isinstance(command, snap.LeaveErrand):
                machine.receive(snap.ErrandLeft(all_of_it.id, command.message.host), now)
    raise Violation(f"{all_of_it.id} waits for ever at {phase} for a host that is silent")


def _check_abort(machine, all_of_it):
    phase = machine.state.phase
    if phase not in (UNTIL_DECIDED if all_of_it.is_restore else UNTIL_AVAILABLE):
        return
    wish = AbortRestore if all_of_it.is_restore else say.Abort
    undone = [
        getattr(command, "resolution", None) or getattr(command, "decision", None)
        for command in machine.receive(wish(all_of_it.id), 0)
    ]
    if not {Resolution.UNDO, Decision.DISCARD} & set(undone):
        raise Violation(f"{all_of_it.id} cannot be aborted at {phase}")
