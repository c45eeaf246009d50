# SPDX-License-Identifier: Apache-2.0
"""Plays a transcript of a restore, as `theatre` does one of a snapshot.

====================================  ===========================================================
``> begin h0=a,b h1=c``               a restore that two hosts have a share in
``> deliver stop h0``                 the last such order arrives at a host
``> deliver Done h0``                 the last such answer of a host arrives
``> done h0 fault=a``                 a host's engine has carried out, but for what is given
``> fail h0``                         or has failed
``> withdraw h0 a``                   the owner of a guest needs it
``> write``                           the decision is written; also ``write fails``,
                                      ``write unheard`` (done, and nobody knows)
``> time 150``                        it is so many ms after the beginning
``> errand h0``                       an errand was left for a host
``> abort``                           a user wants it stopped
``> restart coordinator``             from the database; ``> restart h0`` from its journal
====================================  ===========================================================
"""

from dataclasses import replace

from hotsnap_nova.protocol import commands as both
from hotsnap_nova.protocol.cut import NS_PER_MS
from hotsnap_nova.protocol.messages import Cause, Member
from hotsnap_nova.protocol.restore import commands as do
from hotsnap_nova.protocol.restore.coordinator import RestoreCoordinator
from hotsnap_nova.protocol.restore.durable import Restore, RestoreLimits
from hotsnap_nova.protocol.restore.messages import AbortRestore, MemberFault, Share
from hotsnap_nova.protocol.restore.participant import RestoreHostState, RestoreParticipant

CAUSE = Cause("broken")


class RestoreTheatre:
    """The machines of one restore, and all they have said so far."""

    def __init__(self):
        self.now = 0
        self.hosts, self.journal, self.said, self.orders, self.lines = {}, {}, {}, {}, []

    def play(self, line):
        """What follows from one line, as lines."""
        self.lines = []
        verb, *words = line.split()
        getattr(self, f"_{verb}")(*words)
        return self.lines

    def _begin(self, *hosts):
        shares = []
        for host in hosts:
            name, members = host.split("=")
            shares.append((name, Share("s", tuple(map(Member, members.split(","))))))
            self.hosts[name] = RestoreParticipant(RestoreHostState(name))
            self.journal[name] = ({}, [])
        self.row = Restore("r", "s", tuple(shares), RestoreLimits(absent_ms=60_000))
        self.coordinator, commands = RestoreCoordinator.begin(self.row, 0)
        self._coordinate(commands)

    def _deliver(self, kind, host):
        message = self.said[kind, host]
        if kind[0].islower():
            self._tell(host, message)
        else:
            self._coordinate(self.coordinator.receive(message, self.now))

    def _done(self, host, *faults):
        command = self.orders[host]
        found = tuple(MemberFault(fault.removeprefix("fault="), CAUSE) for fault in faults)
        self._tell(host, do.CarriedOut("r", command.step, found))

    def _fail(self, host):
        self._tell(host, both.CommandFailed(self.orders[host], CAUSE))

    def _withdraw(self, host, member):
        self._tell(host, do.MemberWithdrawn("r", member))

    def _write(self, how="ok"):
        write = self.coordinator.state.write
        outcome = both.CommandFailed(write, CAUSE)
        if self.row.generation != write.generation and how == "ok":
            outcome = do.Overtaken("r")
        elif how in ("ok", "unheard"):
            self.row = replace(
                self.row, generation=self.row.generation + 1, resolution=write.resolution,
                closed=write.closed, cause=write.cause, faults=write.faults, absent=write.absent,
            )  # fmt: skip
            if how == "ok":
                outcome = do.Resolved("r", self.row.generation)
        self._coordinate(self.coordinator.receive(outcome, self.now))

    def _time(self, ms):
        self.now = int(ms) * NS_PER_MS
        self._coordinate(self.coordinator.tick(self.now))

    def _errand(self, host):
        self._coordinate(self.coordinator.receive(do.ErrandLeft("r", host), self.now))

    def _abort(self):
        self._coordinate(self.coordinator.receive(AbortRestore("r"), self.now))

    def _restart(self, who):
        if who == "coordinator":
            self.coordinator, commands = RestoreCoordinator.resume(self.row, self.now)
            self._coordinate(commands)
            return
        parts, ended = self.journal[who]
        self.hosts[who], commands = RestoreParticipant.recover(who, parts.values(), ended)
        self._obey(who, commands)

    def _tell(self, host, message):
        self._obey(host, self.hosts[host].receive(message, self.now))

    def _obey(self, name, commands):
        """What is journalled is on record at once, and what follows from that is told, too."""
        words, todo = [], list(commands)
        while todo:
            match todo.pop(0):
                case do.ReplyToOrder(answer=answer):
                    kind = type(answer).__name__.removeprefix("Order")
                    self.said[kind, name] = answer
                    words.append(f"says {' '.join([kind, *_about(answer)])}")
                case do.JournalOrder() as command:
                    words.append(f"journals {self._record(name, command)}")
                    todo += self.hosts[name].receive(do.OrderJournaled(command), self.now)
                case do.CarryOut() as command:
                    self.orders[name] = command
                    words.append(f"begins to {command.step}")
                case do.Hasten():
                    words.append("hastens")
        part = self.hosts[name].state.part("r")
        where = f"{part.step} {part.status}" if part else "nothing left"
        self.lines.append(f"  {name}: {', '.join(words) or 'nothing'} ({where})")

    def _record(self, name, command):
        parts, ended = self.journal[name]
        parts.pop("r", None)
        if command.part is None:
            ended.append(command.ended)
            return f"the end of {command.ended.step}"
        parts["r"] = command.part
        return f"{command.part.step} {command.part.status}"

    def _coordinate(self, commands):
        words = []
        for command in commands:
            match command:
                case do.SendOrder(order=order):
                    self.said[str(order.step), order.host] = order
                    words.append(f"{order.step} to {order.host}")
                case do.LeaveErrand(order=order):
                    self.said[str(order.step), order.host] = order
                    words.append(f"leaves {order.host} an errand to {order.step}")
                case do.Resolve():
                    words.append(f"writes {_decision(command)}")
        phase = self.coordinator.state.phase
        self.lines.append(f"  coordinator: {', '.join(words) or 'nothing'} ({phase})")


def _about(answer):
    if hasattr(answer, "cause"):
        yield answer.cause.code
        return
    yield str(answer.step)
    if getattr(answer, "faults", ()):
        yield f"but for {', '.join(fault.member for fault in answer.faults)}"
    if getattr(answer, "trouble", ""):
        yield "with trouble"


def _decision(write):
    words = ["the end" if write.closed else str(write.resolution)]
    if write.cause and not write.closed:
        words.append(f"because of {write.cause.code}")
    if write.faults:
        words.append(f"but for {', '.join(fault.member for fault in write.faults)}")
    if write.absent:
        words.append(f"without {', '.join(write.absent)}")
    return " ".join(words)
