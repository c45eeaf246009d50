# SPDX-License-Identifier: Apache-2.0
"""How coordinators, and the database row they share, go on."""

from dataclasses import replace

from hotsnap_nova.protocol import commands as do
from hotsnap_nova.protocol.coordinator import Phase
from hotsnap_nova.protocol.messages import Abort
from tests.explore import promises
from tests.explore.world import FAILED, Slot


class CoordinatorRules:
    def _start(self, world, slot):
        machine, commands = self.build.coordinator.resume(world.row, 0)
        if slot:
            world = world.spend("takeovers")
        return self._coordinate(world, slot, machine.state, commands)

    def _write(self, world, slot, how):
        state = world.coordinators[slot].state
        write, row = state.write, world.row
        if how != "ok":
            world = world.spend("failures")
        outcome = do.Superseded(write.snapshot)
        if how == "lost":
            outcome = do.CommandFailed(write, FAILED)
        elif row.generation == write.generation:
            row = replace(
                row, generation=row.generation + 1, decision=write.decision,
                closed=write.closed, cause=write.cause, answers=write.answers,
                absent=write.absent,
            )  # fmt: skip
            promises.check_decision(world, row)
            world = replace(world, row=row)
            outcome = do.Persisted(write.snapshot, row.generation)
        if how == "unheard":
            outcome = do.CommandFailed(write, FAILED)
        return self._tell(world, slot, outcome)

    def _write_again(self, world, slot):
        return self._wake(world, slot, world.coordinators[slot].state.write_again_ns)

    def _deadline(self, world, slot):
        deadline_ns = world.coordinators[slot].state.deadline_ns
        return self._wake(world.spend("timeouts"), slot, deadline_ns)

    def _absent(self, world, slot, how):
        """The coordinator waits no longer for one of those that it has heard nothing of."""
        calls = world.coordinators[slot].state.waiting
        now = min(call.absent_ns for call in calls)
        machine = self.build.coordinator(world.coordinators[slot].state)
        commands = machine.tick(now)
        (errand,) = (each for each in commands if isinstance(each, do.LeaveErrand))
        world = self._coordinate(world.spend("absences"), slot, machine.state, commands)
        if how == "lost":
            return self._tell(world.spend("failures"), slot, do.CommandFailed(errand, FAILED))
        left = do.ErrandLeft(errand.message.snapshot, errand.message.host)
        return self._tell(replace(world, net=world.net | {errand.message}), slot, left)

    def _abort(self, world, slot):
        return self._tell(world.spend("aborts"), slot, Abort(world.row.snapshot))

    def _crash_coordinator(self, world, slot):
        return self._coordinate(world.spend("coordinator_crashes"), slot, None, ())

    def _answer(self, world, slot, message):
        state = world.coordinators[slot].state
        return self._put(world, slot, *self.memory.once(self._coordinator_heard, state, message))

    def _coordinator_heard(self, state, message):
        machine = self.build.coordinator(state)
        commands = machine.receive(message, 0)
        return self._settled(machine.state, commands)

    def _tell(self, world, slot, message):
        state = world.coordinators[slot].state
        return self._put(world, slot, *self._coordinator_heard(state, message))

    def _wake(self, world, slot, now):
        machine = self.build.coordinator(world.coordinators[slot].state)
        commands = machine.tick(now)
        return self._coordinate(world, slot, machine.state, commands)

    def _coordinate(self, world, slot, state, commands):
        return self._put(world, slot, *self._settled(state, commands))

    def _settled(self, state, commands):
        """(the state as it is remembered, what is sent)."""
        if state is not None and state.phase is Phase.STOOD_DOWN:
            state = None  # the service forgets it, and later takes over what nobody drives
        if state is not None and state.cause is not None:  # one cause is as good as another
            write = state.write and replace(state.write, cause=state.write.cause and FAILED)
            state = replace(state, cause=FAILED, write=write)
        sent = (command.message for command in commands if isinstance(command, do.Send))
        return self.memory.same(state), frozenset(map(self.memory.same, sent))

    def _put(self, world, slot, state, sent):
        if state is world.coordinators[slot].state and sent <= world.net:
            return world
        slots = list(world.coordinators)
        slots[slot] = Slot(state)
        return replace(world, coordinators=tuple(slots), net=world.net | sent)
