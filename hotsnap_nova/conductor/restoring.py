# SPDX-License-Identifier: Apache-2.0
"""One group brought back to its cut: driven from the snapshot's row to its end by the machine."""

import time

from hotsnap_nova import exception
from hotsnap_nova.conductor import drive, errands, restorations, work
from hotsnap_nova.protocol import messages
from hotsnap_nova.protocol.restore import commands, coordinator, durable
from hotsnap_nova.protocol.restore import messages as restores

_DECIDED = frozenset({coordinator.Phase.RESUME, coordinator.Phase.UNDO})
_OVER = frozenset({coordinator.Phase.CLOSED, coordinator.Phase.STOOD_DOWN})


class Restoring(drive.Drive):
    """Brings a group back, or ends what another began.

    :param row: as the database has it: `restorations.begun`, or found there
    :param action: the row's `last_action`, ended with it
    :param names: of members, by id
    :param resume: go on from the row
    """

    def __init__(self, row: durable.Restore, database, compute, owner: str, lease_s: float,
                 action: dict | None, names: dict[str, str],
                 watcher: work.Watcher | None = None, resume: bool = False):
        super().__init__(row.snapshot, (host for host, _ in row.hosts), database, compute, owner,
                         lease_s, watcher)
        self._row = row
        self._action = action
        self._names = names
        self._resume = resume
        self._untold: dict[str, str] = {}    # why hosts that may live are told nothing
        self._write: tuple[commands.Resolve, dict] | None = None

    def start(self, forget=lambda _work: None) -> None:
        machine = coordinator.RestoreCoordinator
        make = machine.resume if self._resume else machine.begin
        self._drive(make(self._row, time.monotonic_ns()), {
            commands.SendOrder: self._send,
            commands.Resolve: self._resolve,
            commands.LeaveErrand: self._leave_errand,
            commands.AnnounceStep: self._announce,
        })
        super().start(forget)

    def abort(self, cause: messages.Cause) -> None:
        self._runner.receive(restores.AbortRestore(self._row.restore, cause))

    def _is_done(self):
        return self._machine.state.phase in _OVER

    # -- commands, one method each -------------------------------------------------------------

    def _send(self, command):
        order = command.order
        self._ask(order.host, f'the order to {order.step}', lambda: self._order(order))

    def _order(self, order):
        try:
            answer = self._compute.order(order, drive.CALL_MS / 1e3)
        except exception.HostTooOld as exc:
            self._untold[order.host] = str(exc)
            raise
        self._untold.pop(order.host, None)
        return answer

    def _resolve(self, command):
        if self._write is None or self._write[0] != command:
            # Once for each: what is written again must be the same, to the second.
            self._write = command, restorations.resolved(
                self._row, command, self._action, self._names, self._untold)
        generation = self._swap(command.generation, self._write[1], command.closed)
        return [commands.Overtaken(command.restore) if generation is None
                else commands.Resolved(command.restore, generation)]

    def _leave_errand(self, command):
        host = command.order.host
        self._database.add_errand(self.snapshot, host, *errands.of(command.order))
        return [commands.ErrandLeft(command.order.restore, host)]

    def _announce(self, command):
        if command.step in _DECIDED:
            self._note_decided()
        if command.progress:
            self._tell(command.step, bytes=(
                sum(each.done_bytes for each in command.progress),
                sum(each.total_bytes for each in command.progress)))
            return
        self._quietly(self._database.show_phase, self.snapshot, str(command.step),
                      self._machine.state.row.generation)
        self._tell(command.step)

    def _phases(self):
        return {f'Restore {self._row.restore} of snapshot {self.snapshot}': str(
            self._machine.state.phase)}
