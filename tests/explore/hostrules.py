# SPDX-License-Identifier: Apache-2.0
"""How hosts go on: their machine, its threads of commands, and the faults among them."""

from dataclasses import replace

from hotsnap_nova.protocol import commands as do
from hotsnap_nova.protocol import coordinator, cut
from hotsnap_nova.protocol.messages import Refused, Working
from tests.explore.hostmodel import Violation, write_journal
from tests.explore.world import DISOWNED, FAILED, LOST


class HostRules:
    def _request(self, world, name, message):
        host = world.host(name)
        state, commands = self.memory.once(self._heard, host.machine, message, host.now)
        return self._obey(world, host, state, commands)

    def _heard(self, state, message, now):
        machine = self.build.participant(state)
        commands = machine.receive(message, now)
        return self.memory.same(machine.state), commands

    def _tick(self, world, name):
        host = world.host(name)
        machine = self.build.participant(host.machine)
        commands = machine.tick(host.now)
        return self._obey(world, host, machine.state, commands)

    def _withdraw(self, world, name, snapshot):
        host = world.host(name)
        part = host.machine.part(snapshot)
        withdrawn = do.MembersWithdrawn(snapshot, part.epoch, FAILED)
        heard = self._hear(world, host, withdrawn)
        return world if heard == world else heard.spend("withdrawals")

    def _crash(self, world, name):
        host = replace(world.host(name), machine=None, threads=())
        return world.spend("host_crashes").with_host(host)

    def _lose_journal(self, world, name):
        host = replace(
            world.host(name), machine=None, threads=(), parts=(), decided=(), lost=True
        )  # fmt: skip
        return world.spend("losses").with_host(host)

    def _silence(self, world, name):
        """For so long that a coordinator counts as gone."""
        host = world.host(name)
        wakeup = self.build.participant(host.machine).wakeup()
        if wakeup is None:
            raise Violation(f"{name} keeps guests from their owner, and waits for ever")
        host = replace(host, now=wakeup)
        machine = self.build.participant(host.machine)
        world = world if host.lost else world.spend("silences")
        commands = machine.tick(host.now)
        return self._obey(world, host, machine.state, commands)

    def _restart(self, world, name):
        host = world.host(name)
        # Their owner gives back what nobody asks for who lives.
        guests = tuple(replace(guest, claimed=False) for guest in host.guests)
        host = replace(host, guests=guests)
        residues = self.build.engine.survey(host, world.row.snapshot, world.row.epoch)
        machine, commands = self.build.participant.recover(
            name, residues, host.parts, host.decided
        )  # fmt: skip
        return self._obey(world, host, machine.state, commands)

    def _do(self, world, name, n, how, units):
        host = world.host(name)
        command, rest = host.threads[n][0], host.threads[n][1:]
        others = host.threads[:n] + host.threads[n + 1 :]
        all_units = self._units(host, command)
        if self._fault is not None:
            kind, to_go = self._fault
            self._fault = None
            if to_go < all_units:
                how, units = kind, None if kind == "second stop" else to_go
            else:
                self._fault = (kind, to_go - all_units)
        self._done += [command] * all_units
        if how in ("fail", "second stop"):
            world = world.spend("failures")
        if how == "crash":
            world = world.spend("host_crashes")
        if isinstance(command, do.Journal):
            if units is None or units:
                host = write_journal(host, command)
            if how == "crash":
                return world.with_host(replace(host, machine=None, threads=()))
            failed = do.CommandFailed(command, FAILED)
            outcome = failed if how == "fail" else do.Journaled(command)
        else:
            if how == "ok" and not self.build.engine.allows(host, command):
                how, units = "fail", 0
            world = self._work(world, name, command, units, how)
            host = world.host(name)
            if how == "crash":
                return world.with_host(replace(host, machine=None, threads=()))
            if how == "fail":
                outcome = do.CommandFailed(command, FAILED)
            elif isinstance(command, do.GiveBackMembers):
                host = replace(host, threads=others)
                return self._obey(world.with_host(host), host, host.machine, (), rest)
            else:
                outcome = self.build.engine.outcome(host, command)
            if isinstance(command, do.DiscardMembers):  # it ends a save that was going on
                others = tuple(t for t in others if not isinstance(t[0], do.SaveMembers))
        if how == "fail" and self.build.stops_at_failure:
            rest = ()
        host = replace(host, threads=others)
        return self._hear(world, host, outcome, rest)

    def _work(self, world, name, command, limit, how):
        """The first ``limit`` units of an engine's command, or all."""
        engine = self.build.engine
        for member, unit in engine.units(world.host(name), command)[:limit]:
            host = world.host(name)
            journalled = {part.snapshot for part in host.parts}
            unknown = command.snapshot not in journalled and not host.lost
            if unit is cut.Step.SUSPEND and unknown:
                raise Violation(f"{name} stops a guest without having journalled that it may")
            guest, effects = engine.apply(host.guest(member), unit, command, host.now)
            if how == "second stop" and unit is cut.Step.FREEZE:
                taken = replace(guest.taken, torn=True)
                guest = replace(guest, taken=taken, stops=guest.stops + 1)
            world = self.route(world.with_host(host.with_guest(guest)), effects)
            world = self._leak(world)
        return world

    def _units(self, host, command):
        """The last of them is to report what was done."""
        if isinstance(command, do.Journal):
            return 2
        return len(self.build.engine.units(host, command)) + 1

    def _hear(self, world, host, message, rest=()):
        state, commands = self._heard(host.machine, message, host.now)
        return self._obey(world, host, state, commands, rest)

    def _obey(self, world, host, state, commands, rest=()):
        """Replies go out at once; a save goes on beside the rest, which goes on in its thread."""
        thread, threads = [], list(host.threads)
        net = set()
        for command in (*commands, *rest):
            if isinstance(command, do.Reply):
                if isinstance(command.answer, Refused):
                    # only what was journalled is known for ever; before it nothing was done
                    known = command.answer.snapshot in {part.snapshot for part in host.parts}
                    lost = command.answer.cause.code in coordinator.LOST
                    cause = LOST if lost else DISOWNED if known else FAILED
                    net.add(self.memory.once(_refused, command.answer, cause))
                elif not isinstance(command.answer, Working):
                    net.add(self.memory.same(command.answer))
            elif isinstance(command, do.SaveMembers):
                threads.append((command,))
            else:
                thread.append(command)
        if thread:
            threads.append(tuple(thread))
        nothing_new = len(threads) == len(host.threads)
        if state is host.machine and nothing_new and net <= world.net:
            return world
        if len(threads) > 1:
            threads.sort(key=repr)  # their order means nothing
        host = replace(host, machine=self.memory.same(state), threads=tuple(threads))
        world = replace(world.with_host(host), net=world.net | net)
        for n, waiting in enumerate(host.threads if self.atomic else ()):
            if not isinstance(waiting[0], do.SaveMembers):
                return self._do(world, host.name, n, "ok", None)
        return world


def _refused(answer, cause):
    return replace(answer, cause=cause)
