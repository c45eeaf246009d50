# SPDX-License-Identifier: Apache-2.0
"""Plays a transcript: lines that begin with ``>`` say what happens, the others what follows.

====================================  ===========================================================
``> begin hold h0=a,b h1=c``          a snapshot of group g, epoch 5
``> deliver Record h0``               the last such message to, or from, this host arrives
``> done h0 RecordMembers stops=2``   a host's engine has finished, measuring what is given
``> fail h0 SaveMembers``             or has failed
``> write``                           the decision is written; also ``write fails``,
                                      ``write unheard`` (done, and nobody knows)
``> time 150``                        it is so many ms after the beginning; all machines tick
``> abort``                           a user wants it stopped
``> restart coordinator``             from the database; ``> restart h0`` from its journal
====================================  ===========================================================
"""

from dataclasses import replace

from hotsnap_nova.protocol import commands as do
from hotsnap_nova.protocol import messages as say
from hotsnap_nova.protocol.coordinator import Coordinator
from hotsnap_nova.protocol.cut import NS_PER_MS
from hotsnap_nova.protocol.durable import Residue, Snapshot
from hotsnap_nova.protocol.hoststate import HostState
from hotsnap_nova.protocol.participant import Participant

CAUSE = say.Cause("broken")


class Theatre:
    """The machines of one snapshot, and all they have said so far."""

    def __init__(self):
        self.now = 0
        self.hosts, self.journal, self.said, self.orders, self.lines = {}, {}, {}, {}, []

    def play(self, line):
        """What follows from one line, as lines."""
        self.lines = []
        verb, *words = line.split()
        getattr(self, f"_{verb}")(*words)
        return self.lines

    def _begin(self, gate, *hosts):
        works = []
        for host in hosts:
            name, members = host.split("=")
            members = tuple(say.Member(member) for member in members.split(","))
            works.append((name, say.Work("g", members, say.Gate(gate), 100, 150)))
            self.hosts[name] = Participant(HostState(name))
            self.journal[name] = ({}, {})
        self.row = Snapshot("s", 5, tuple(works))
        self.coordinator, commands = Coordinator.begin(self.row, 0)
        self._coordinate(commands)

    def _deliver(self, kind, host):
        message = self.said[kind, host]
        if kind in ("Prepare", "Record", "Release", "Save", "Finish", "Discard"):
            self._tell(host, message)
        else:
            self._coordinate(self.coordinator.receive(message, self.now))

    def _done(self, host, kind, *measured):
        command = self.orders[host, kind]
        facts = {key: float(value) for key, value in (m.split("=") for m in measured)}
        who = (command.snapshot, command.epoch)
        members = [m.id for m in (
            command.members if kind == "DiscardMembers" else command.work.members
        )]  # fmt: skip
        outcome = {
            "PrepareMembers": lambda: do.MembersPrepared(*who),
            "RecordMembers": lambda: do.MembersRecorded(*who, tuple(
                say.MemberCut(
                    m, self.now, self.now or 1, facts.get("pause_ms", 7.0),
                    int(facts.get("stops", 1)),
                    int(facts.get("resumes", command.work.gate != "barrier")),
                ) for m in members
            )),
            "ReleaseMembers": lambda: do.MembersReleased(*who, tuple(
                say.MemberRelease(
                    m, facts.get("hold_ms", 20.0), opened_by_itself="by_itself" in facts
                ) for m in members
            )),
            "SaveMembers": lambda: do.MembersSaved(*who),
            "FinishMembers": lambda: do.MembersFinished(*who),
            "DiscardMembers": lambda: do.MembersDiscarded(*who),
        }[kind]()  # fmt: skip
        self._tell(host, outcome)

    def _fail(self, host, kind):
        self._tell(host, do.CommandFailed(self.orders[host, kind], CAUSE))

    def _write(self, how="ok"):
        write = self.coordinator.state.write
        outcome = do.CommandFailed(write, CAUSE)
        if self.row.generation != write.generation and how == "ok":
            outcome = do.Superseded("s")
        elif how in ("ok", "unheard"):
            self.row = replace(
                self.row, generation=self.row.generation + 1, decision=write.decision,
                closed=write.closed, cause=write.cause, answers=write.answers,
            )  # fmt: skip
            if how == "ok":
                outcome = do.Persisted("s", self.row.generation)
        self._coordinate(self.coordinator.receive(outcome, self.now))

    def _time(self, ms):
        self.now = int(ms) * NS_PER_MS
        self._coordinate(self.coordinator.tick(self.now), quiet=True)
        for name, host in self.hosts.items():
            self._obey(name, host.tick(self.now), quiet=True)

    def _abort(self):
        self._coordinate(self.coordinator.receive(say.Abort("s"), self.now))

    def _restart(self, who):
        if who == "coordinator":
            self.coordinator, commands = Coordinator.resume(self.row, self.now)
            self._coordinate(commands)
            return
        parts, decided = self.journal[who]
        residues = [Residue(p.snapshot, p.epoch, p.work.members) for p in parts.values()]
        self.hosts[who], commands = Participant.recover(
            who, residues, parts.values(), decided.values()
        )  # fmt: skip
        self._obey(who, commands)

    def _tell(self, host, message):
        self._obey(host, self.hosts[host].receive(message, self.now))

    def _obey(self, name, commands, quiet=False):
        words = []
        outcomes = []
        for command in commands:
            match command:
                case do.Reply(answer=answer):
                    self.said[type(answer).__name__, name] = answer
                    code = f" {answer.cause.code}" if isinstance(answer, say.Refused) else ""
                    words.append(f"says {type(answer).__name__}{code}")
                case do.Journal(part=part):
                    parts, decided = self.journal[name]
                    parts.pop(command.snapshot, None)
                    if part is not None:
                        parts[command.snapshot] = part
                    decided |= {(row.group, row.member.id): row for row in command.decided}
                    words.append(f"journals {part.phase if part else 'the end'}")
                    outcomes.append(do.Journaled(command))
                case _:
                    self.orders[name, type(command).__name__] = command
                    words.append(type(command).__name__)
        part = self.hosts[name].state.part("s")
        phase = str(part.phase) if part else "nothing left"
        if words or not quiet:
            self.lines.append(f"  {name}: {', '.join(words) or 'nothing'} ({phase})")
        for outcome in outcomes:
            self._obey(name, self.hosts[name].receive(outcome, self.now), quiet=True)

    def _coordinate(self, commands, quiet=False):
        words = []
        for command in commands:
            match command:
                case do.Send(message=message):
                    self.said[type(message).__name__, message.host] = message
                    words.append(f"{type(message).__name__} to {message.host}")
                case do.Persist():
                    what = "the end" if command.closed else command.decision
                    code = f" because of {command.cause.code}" if command.cause else ""
                    words.append(f"writes {what}{code}")
        if words or not quiet:
            phase = self.coordinator.state.phase
            self.lines.append(f"  coordinator: {', '.join(words) or 'nothing'} ({phase})")


def replay(text, theatre):
    """The transcript as the machines play it today: remarks and ``>`` lines are kept."""
    played = []
    for line in text.splitlines():
        if line.startswith(">"):
            played += [line, *theatre.play(line[1:])]
        elif not line.startswith("  "):
            played.append(line)
    return "\n".join(played) + "\n"
