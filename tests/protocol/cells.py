# SPDX-License-Identifier: Apache-2.0
"""Every message in every state of both machines, tried out and written down as a table."""

from dataclasses import replace

from hotsnap_nova.protocol import commands as do
from hotsnap_nova.protocol import messages as say
from hotsnap_nova.protocol.coordinator import Coordinator
from hotsnap_nova.protocol.coordinator import Phase as Stage
from hotsnap_nova.protocol.durable import Decided, Decision, Limits, Part, Phase, Snapshot
from hotsnap_nova.protocol.hoststate import HostState
from hotsnap_nova.protocol.participant import KEPT, Participant

GUEST = say.Member("g")
WORK = say.Work("group", (GUEST,), say.Gate.HOLD, 100, 150)
WHO = ("s", 5, "h")
CAUSE = say.Cause("broken")
CLOSED_NS = 1_000
LEASE_END_NS = CLOSED_NS + 150_000_000
SILENCE_END_NS = WORK.silence_ms * 1_000_000
CUTS = (say.MemberCut("g", 1_100, CLOSED_NS, 7.0, 1, 1),)
RELEASES = (say.MemberRelease("g", 12.0),)
ANSWERS = (
    say.Prepared(*WHO), say.Recorded(*WHO, CUTS), say.Released(*WHO, RELEASES), say.Saved(*WHO),
)  # fmt: skip
GIVEN = {  # how many of these a part has given in each phase
    Phase.PREPARED: 1, Phase.RECORDING: 1, Phase.RECORDED: 2, Phase.RELEASING: 2,
    Phase.RELEASED: 3, Phase.SAVING: 3, Phase.KEEPING: 3, Phase.UNKEPT: 4,
    Phase.SAVED: 4, Phase.FINISHING: 4,
}  # fmt: skip


def part(phase):
    refused = phase in (Phase.SPOILING, Phase.SPOILED)
    return Part(
        "s", 5, phase, WORK, ANSWERS[: GIVEN.get(phase, 0)],
        refusal=say.Refused(*WHO, CAUSE) if refused else None,
        discard=phase in (Phase.DISCARDING, Phase.STUCK),
        heard_ns=1 if phase in KEPT else 0,
    )  # fmt: skip


def decided(decision):
    return (Decided("group", GUEST, 5, "s", decision),)


HOST_STATES = {
    "absent": HostState("h"),
    "finished": HostState("h", (), decided(Decision.FINISH)),
    "discarded": HostState("h", (), decided(Decision.DISCARD)),
} | {str(phase): HostState("h", (part(phase),)) for phase in Phase}

COMMAND = ("s", 5, WORK)
HOST_MESSAGES = {
    "Prepare": say.Prepare(*WHO, WORK),
    "Record": say.Record(*WHO),
    "Release": say.Release(*WHO),
    "Save": say.Save(*WHO),
    "Finish": say.Finish(*WHO),
    "Discard": say.Discard(*WHO, "group", (GUEST,)),
    "Discard, deleted": say.Discard(*WHO, "group", (GUEST,), deleted=True),
    "lease ends": None,
    "coordinator silent": None,
    "MembersPrepared": do.MembersPrepared("s", 5),
    "MembersRecorded": do.MembersRecorded("s", 5, CUTS),
    "MembersRecorded, twice stopped": do.MembersRecorded("s", 5, (replace(CUTS[0], stops=2),)),
    "MembersRecorded, long pause": do.MembersRecorded("s", 5, (replace(CUTS[0], pause_ms=101),)),
    "MembersRecorded, no gate": do.MembersRecorded("s", 5, (replace(CUTS[0], gate_closed_ns=0),)),
    "MembersRecorded, one missing": do.MembersRecorded("s", 5, ()),
    "MembersReleased": do.MembersReleased("s", 5, RELEASES),
    "MembersReleased, late": do.MembersReleased("s", 5, (replace(RELEASES[0], hold_ms=150.0),)),
    "MembersReleased, by itself": do.MembersReleased(
        "s", 5, (replace(RELEASES[0], opened_by_itself=True),)
    ),
    "SaveProgress": do.SaveProgress("s", 5, (say.MemberProgress("g", 1, 2),)),
    "MembersSaved": do.MembersSaved("s", 5),
    "MembersFinished": do.MembersFinished("s", 5),
    "MembersDiscarded": do.MembersDiscarded("s", 5),
    "MembersWithdrawn": do.MembersWithdrawn("s", 5, CAUSE),
    "of another epoch": do.MembersDiscarded("s", 4),
    "Journaled saved": do.Journaled(do.Journal("s", part(Phase.SAVED))),
    "Journaled finish": do.Journaled(do.Journal("s", None, decided(Decision.FINISH))),
    "Journaled discard": do.Journaled(do.Journal("s", None, decided(Decision.DISCARD))),
    "Prepare failed": do.CommandFailed(do.PrepareMembers(*COMMAND), CAUSE),
    "Record failed": do.CommandFailed(do.RecordMembers(*COMMAND), CAUSE),
    "Release failed": do.CommandFailed(do.ReleaseMembers(*COMMAND), CAUSE),
    "Save failed": do.CommandFailed(do.SaveMembers(*COMMAND), CAUSE),
    "Finish failed": do.CommandFailed(do.FinishMembers(*COMMAND), CAUSE),
    "Discard failed": do.CommandFailed(do.DiscardMembers("s", 5, (GUEST,)), CAUSE),
    "GiveBack failed": do.CommandFailed(do.GiveBackMembers("s", 5, (GUEST,)), CAUSE),
    "Journal failed": do.CommandFailed(do.Journal("s", part(Phase.PREPARING)), CAUSE),
    "Journal of saved failed": do.CommandFailed(do.Journal("s", part(Phase.SAVED)), CAUSE),
    "Journal of the end failed": do.CommandFailed(do.Journal("s", None), CAUSE),
}


def host_cell(state, message):
    """What a host does: `commands → phase`, with what it replies."""
    machine = Participant(HOST_STATES[state])
    if message == "lease ends":
        commands = machine.tick(LEASE_END_NS)
    elif message == "coordinator silent":
        commands = machine.tick(SILENCE_END_NS + 1)
    else:
        commands = machine.receive(HOST_MESSAGES[message], CLOSED_NS + 1)
    after = machine.state.part("s")
    if after is not None:
        name = str(after.phase) + (" + discard" if after.discard and after.phase in (
            Phase.PREPARING, Phase.RECORDING, Phase.RELEASING, Phase.KEEPING, Phase.SPOILING,
            Phase.FINISHING,
        ) else "")  # fmt: skip
    else:
        name = {Decision.FINISH: "finished", Decision.DISCARD: "discarded"}.get(
            machine.state.decided[0].decision if machine.state.decided else None, "absent"
        )
    return _cell(commands, state, name)


ROW = Snapshot("s", 5, (("h", WORK), ("i", WORK)), Limits(absent_ms=60_000))
TWO = ("s", 5, "i")


def _gather():
    """A coordinator in each phase that waits, with i's answer already there; by playing it."""
    machine, _ = Coordinator.begin(ROW, 0)
    yield "prepare", machine.state
    for n, (name, answer) in enumerate(zip(("record", "", "save", ""), ANSWERS, strict=True)):
        machine.receive(replace(answer, host="i"), 0)
        machine.receive(answer, 0)
        if machine.state.phase is Stage.DECIDE:
            name = ("release", "finish")[n // 3]
            yield f"decide {name}", machine.state
            machine.receive(do.Persisted("s", n), 0)
        yield name, machine.state


def _coordinator_states():
    states = dict(_gather())
    finish = Coordinator(states["finish"])
    for answer in (say.Finished(*WHO), say.Finished(*TWO)):
        finish.receive(answer, 0)
    states["decide closed"] = finish.state
    aborted = Coordinator(states["record"])
    aborted.receive(say.Abort("s"), 0)
    states["decide discard"] = aborted.state
    aborted.receive(do.Persisted("s", 1), 0)
    states["discard"] = aborted.state
    finish.receive(do.Persisted("s", 9), 0)
    states["closed"] = finish.state
    aborted.receive(do.Superseded("s"), 0)
    states["stood_down"] = aborted.state
    for name in ("prepare", "record", "release", "save", "finish", "discard"):
        last = Coordinator(states[name])
        answer = {
            "finish": say.Finished, "discard": say.Discarded, "prepare": say.Prepared,
            "record": say.Recorded, "release": say.Released, "save": say.Saved,
        }[name]  # fmt: skip
        last.receive(answer(*TWO), 0)
        states[name] = last.state
    return states


COORDINATOR_STATES = _coordinator_states()
COORDINATOR_MESSAGES = {
    "Prepared": ANSWERS[0],
    "Recorded": ANSWERS[1],
    "Released": ANSWERS[2],
    "Saved": ANSWERS[3],
    "Finished": say.Finished(*WHO),
    "Discarded": say.Discarded(*WHO),
    "Refused": say.Refused(*WHO, CAUSE),
    "Refused, journal lost": say.Refused(*WHO, say.Cause("unknown_snapshot")),
    "Working": say.Working(*WHO, "saving"),
    "Working, progress": say.Working(*WHO, "saving", (say.MemberProgress("g", 1, 2),)),
    "answer of another epoch": say.Refused("s", 4, "h", CAUSE),
    "answer of a stranger": say.Refused("s", 5, "x", CAUSE),
    "Abort": say.Abort("s"),
    "time to repeat": None,
    "deadline": None,
    "host silent": None,
    "ErrandLeft": do.ErrandLeft("s", "h"),
    "late Recorded": ANSWERS[1],
    "Persisted": do.Persisted("s", 7),
    "Superseded": do.Superseded("s"),
    "Persist failed": None,
}


def coordinator_cell(state, message):
    """What a coordinator does that waits for h alone: `commands → phase`."""
    machine = Coordinator(COORDINATOR_STATES[state])
    before, far = machine.state, 10**15
    match message:
        case "time to repeat":
            commands = machine.tick(min((c.repeat_ns for c in before.waiting), default=0))
        case "deadline":
            commands = machine.tick(before.deadline_ns or 0)
        case "host silent":
            absent = (call.absent_ns for call in before.waiting)
            commands = machine.tick(min((t for t in absent if t is not None), default=0))
        case "late Recorded":
            commands = machine.receive(ANSWERS[1], far)
        case "Persist failed":
            write = before.write or do.Persist("s", 0, Decision.NONE)
            commands = machine.receive(do.CommandFailed(write, CAUSE), 1)
        case _:
            commands = machine.receive(COORDINATOR_MESSAGES[message], 1)
    after = machine.state
    name = str(after.phase)
    if after.write is not None:
        name += " closed" if after.write.closed else f" {after.write.decision}"
        name += ", to be undone" if after.cause and after.write.decision == "release" else ""
        name += ", again later" if after.write_again_ns is not None else ""
    return _cell(commands, state, name)


def _cell(commands, before, after):
    words = []
    for command in commands:
        match command:
            case do.Reply(answer=answer):
                word = f"«{type(answer).__name__}»"
            case do.Send(message=sent):
                word = f"{type(sent).__name__}({sent.host})"
            case do.LeaveErrand(message=errand):
                word = f"LeaveErrand({type(errand).__name__}({errand.host}))"
            case do.Persist():
                word = f"Persist({'closed' if command.closed else command.decision})"
            case do.Journal():
                word = f"Journal({command.part.phase if command.part else 'gone'})"
            case _:
                word = type(command).__name__
        words.append(word)
    if after != before:
        words.append(f"→ {after}")
    return " ".join(words) or "·"


def table(states, messages, cell):
    """One paragraph a message; states that do the same share a line."""
    lines = [f"states: {', '.join(states)}", ""]
    for message in messages:
        lines.append(f"{message}")
        same = {}
        for state in states:
            same.setdefault(cell(state, message), []).append(state)
        nothing = same.pop("·", [])
        lines += [f"    {', '.join(where)}: {what}" for what, where in same.items()]
        lines += [f"    nothing in the other {len(nothing)}"] if nothing else []
        lines.append("")
    return "\n".join(lines)


def host_table():
    return table(HOST_STATES, HOST_MESSAGES, host_cell)


def coordinator_table():
    return table(COORDINATOR_STATES, COORDINATOR_MESSAGES, coordinator_cell)


if __name__ == "__main__":  # print what a reviewed change makes of the tables
    import sys

    sys.stdout.write(host_table() if sys.argv[1] == "host" else coordinator_table())
