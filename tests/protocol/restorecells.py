# SPDX-License-Identifier: Apache-2.0
"""Every message in every state of a restore's machines, tried out and written down as a table."""


from hotsnap_nova.protocol import commands as both
from hotsnap_nova.protocol.messages import Cause, Member, MemberProgress
from hotsnap_nova.protocol.restore import commands as do
from hotsnap_nova.protocol.restore.coordinator import RestoreCoordinator
from hotsnap_nova.protocol.restore.durable import (
    Resolution,
    Restore,
    RestoreEnded,
    RestoreLimits,
    RestorePart,
    Status,
)
from hotsnap_nova.protocol.restore.messages import (
    BEFORE_DECISION,
    DECISIONS,
    AbortRestore,
    MemberFault,
    Order,
    OrderDone,
    OrderRefused,
    OrderWorking,
    Share,
    Step,
)
from hotsnap_nova.protocol.restore.participant import RestoreHostState, RestoreParticipant
from tests.protocol.cells import table

CAUSE = Cause("broken")
SHARE = Share("s", (Member("g"),))
FAULTS = (MemberFault("g", CAUSE),)
PROGRESS = (MemberProgress("g", 1, 2),)


# -- a host ---------------------------------------------------------------------------------------
def _part(step, status, **more):
    return RestorePart("r", SHARE, step, status, **more)


def _host_states():
    parts = {}
    for step in Step:
        parts[f"{step} working"] = _part(step, Status.WORKING)
        if step in BEFORE_DECISION:
            parts[f"{step} done"] = _part(step, Status.DONE)
            parts[f"{step} failed"] = _part(step, Status.FAILED, refusal=CAUSE)
            for then in DECISIONS:
                parts[f"{step} working then {then}"] = _part(step, Status.WORKING, then=then)
        else:
            parts[f"{step} failed"] = _part(step, Status.FAILED, trouble="broken")
            parts[f"{step} unwritten"] = _part(step, Status.DONE, trouble="broken")
        parts[f"{step} interrupted"] = _part(step, Status.INTERRUPTED)
    del parts["resume unwritten"], parts["undo unwritten"]  # they go on to finish, and to clear
    ends = {
        f"ended with {step}": RestoreHostState("h", (), (RestoreEnded("r", step),))
        for step in DECISIONS
    }
    return (
        {"absent": RestoreHostState("h")} | ends
        | {name: RestoreHostState("h", (part,)) for name, part in parts.items()}
    )  # fmt: skip


HOST_STATES = _host_states()


def _host_messages():
    orders = {
        f"Order({step})": Order("r", "h", step, SHARE) for step in (*BEFORE_DECISION, *DECISIONS)
    }
    ends = {step: RestoreEnded("r", step) for step in DECISIONS}
    begun = {step: do.JournalOrder("r", _part(step, Status.WORKING), begins=True) for step in Step}
    kept = {step: do.JournalOrder("r", _part(step, Status.DONE)) for step in BEFORE_DECISION}
    gone = {step: do.JournalOrder("r", None, end) for step, end in ends.items()}
    withdrawn = do.JournalOrder("r", _part(Step.PREPARE, Status.WORKING, withdrawn=("g",)))
    writes = (
        {f"the intent to {step}": each for step, each in begun.items()}
        | {f"{step} done": each for step, each in kept.items()}
        | {f"the end of {step}": each for step, each in gone.items()}
        | {"a withdrawal": withdrawn}
    )  # fmt: skip
    works = {step: do.CarryOut("r", step, SHARE) for step in Step}
    return (
        orders | {"Order of another host": Order("r", "i", Step.PREPARE, SHARE)}
        | {f"OrderJournaled({name})": do.OrderJournaled(write) for name, write in writes.items()}
        | {f"CarriedOut({step})": do.CarriedOut("r", step) for step in Step}
        | {"CarriedOut(resume), a fault": do.CarriedOut("r", Step.RESUME, FAULTS)}
        | {f"Journal failed ({name})": both.CommandFailed(each, CAUSE)
           for name, each in writes.items()}
        | {f"CarryOut({step}) failed": both.CommandFailed(each, CAUSE)
           for step, each in works.items()}
        | {"StepProgress": do.StepProgress("r", PROGRESS),
           "MemberWithdrawn": do.MemberWithdrawn("r", "g"),
           "MemberWithdrawn, a stranger": do.MemberWithdrawn("r", "x")}
    )  # fmt: skip


HOST_MESSAGES = _host_messages()


def host_cell(state, message):
    """What a host does: `commands → state`, with what it replies."""
    machine = RestoreParticipant(HOST_STATES[state])
    commands = machine.receive(HOST_MESSAGES[message], 1)
    words = [_host_word(command) for command in commands]
    return _cell(words, *_change(HOST_STATES[state], machine.state))


def _change(before, after):
    """What is different after it, in words."""
    if after.ended != before.ended:
        yield f"ended with {after.ended[0].step}"
    part, old = after.part("r"), before.part("r")
    if part is None or part == old:
        return
    if old is None or (part.step, part.status) != (old.step, old.status):
        yield f"{part.step} {part.status}"
    for name in ("then", "refusal", "withdrawn", "trouble", "progress", "faults"):
        now, then = getattr(part, name), getattr(old, name, None)
        if bool(now) != bool(then):
            yield f"{'with' if now else 'without'} {name}"
        elif name == "then" and now != then:
            yield f"then {now}"


def _host_word(command):
    match command:
        case do.ReplyToOrder(answer=OrderDone(step=step, faults=faults)):
            return f"«Done({step}{', a fault' if faults else ''})»"
        case do.ReplyToOrder(answer=OrderWorking(step=step, trouble=trouble)):
            return f"«Working({step}{', trouble' if trouble else ''})»"
        case do.ReplyToOrder(answer=OrderRefused(cause=cause)):
            return f"«Refused({cause.code})»"
        case do.JournalOrder(part=None):
            return "Journal(gone)"
        case do.JournalOrder(part=part, begins=begins):
            return f"Journal({'intent: ' if begins else ''}{part.step} {part.status})"
        case do.CarryOut(step=step):
            return f"CarryOut({step})"
        case do.Hasten():
            return "Hasten"
    raise AssertionError(command)


# -- a coordinator --------------------------------------------------------------------------------
ROW = Restore("r", "s", (("h", SHARE), ("i", SHARE)), RestoreLimits(absent_ms=60_000))


def _coordinator_states():
    """Each phase, waiting for h alone; by playing it."""
    machine, _ = RestoreCoordinator.begin(ROW, 0)
    states = {}
    for step in BEFORE_DECISION:
        machine.receive(OrderDone("r", "i", step), 0)
        states[str(step)] = machine.state
        machine.receive(OrderDone("r", "h", step), 0)
    states["decide resume"] = machine.state
    aborted = RestoreCoordinator(states["stop"])
    aborted.receive(AbortRestore("r"), 0)
    states["decide undo"] = aborted.state
    for decision, deciding in ((Step.RESUME, machine), (Step.UNDO, aborted)):
        deciding.receive(do.Resolved("r", 1), 0)
        deciding.receive(OrderDone("r", "i", decision), 0)
        states[str(decision)] = deciding.state
        deciding.receive(OrderDone("r", "h", decision), 0)
        states[f"decide closed after {decision}"] = deciding.state
    machine.receive(do.Resolved("r", 2), 0)
    states["closed"] = machine.state
    aborted.receive(do.Overtaken("r"), 0)
    states["stood_down"] = aborted.state
    return states


COORDINATOR_STATES = _coordinator_states()
COORDINATOR_MESSAGES = {
    **{f"Done({step})": OrderDone("r", "h", step) for step in (*BEFORE_DECISION, *DECISIONS)},
    "Done(resume), a fault": OrderDone("r", "h", Step.RESUME, FAULTS),
    "Working": OrderWorking("r", "h", Step.PREPARE),
    "Working, progress": OrderWorking("r", "h", Step.PREPARE, PROGRESS),
    "Working, trouble": OrderWorking("r", "h", Step.UNDO, trouble="broken"),
    "Refused": OrderRefused("r", "h", CAUSE),
    "answer of a stranger": OrderDone("r", "x", Step.PREPARE),
    "Abort": AbortRestore("r"),
    "time to repeat": None,
    "deadline": None,
    "host silent": None,
    "late Done": None,
    "ErrandLeft": do.ErrandLeft("r", "h"),
    "Resolved": do.Resolved("r", 7),
    "Overtaken": do.Overtaken("r"),
    "Resolve failed": None,
    "errand failed": both.CommandFailed(
        do.LeaveErrand(Order("r", "h", Step.UNDO, SHARE)), CAUSE
    ),
}  # fmt: skip


def coordinator_cell(state, message):
    """What a coordinator does that waits for h alone: `commands → phase`."""
    machine = RestoreCoordinator(COORDINATOR_STATES[state])
    before = machine.state
    match message:
        case "time to repeat":
            commands = machine.tick(min((c.repeat_ns for c in before.waiting), default=0))
        case "deadline":
            commands = machine.tick(before.deadline_ns or 0)
        case "host silent":
            absent = (call.absent_ns for call in before.waiting)
            commands = machine.tick(min((t for t in absent if t is not None), default=0))
        case "late Done":
            step = before.phase if before.phase in set(Step) else Step.PREPARE
            commands = machine.receive(OrderDone("r", "h", Step(step)), 10**16)
        case "Resolve failed":
            write = before.write or do.Resolve("r", 0, Resolution.NONE)
            commands = machine.receive(both.CommandFailed(write, CAUSE), 1)
        case _:
            commands = machine.receive(COORDINATOR_MESSAGES[message], 1)
    words = [_coordinator_word(command) for command in commands]
    after = _name(machine.state)
    return _cell(words, *([] if after == _name(before) else [after]))


def _name(state):
    name = str(state.phase)
    if state.write is not None:
        name += " closed" if state.write.closed else f" {state.write.resolution}"
        name += ", again later" if state.write_again_ns is not None else ""
    return name


def _coordinator_word(command):
    match command:
        case do.SendOrder(order=order):
            return f"Order({order.step}, {order.host})"
        case do.LeaveErrand(order=order):
            return f"LeaveErrand({order.step}, {order.host})"
        case do.Resolve(closed=closed, resolution=resolution):
            return f"Resolve({'closed, ' if closed else ''}{resolution})"
        case do.AnnounceStep(step=step, progress=progress):
            return f"Announce({step}{', progress' if progress else ''})"
    raise AssertionError(command)


def _cell(words, *changes):
    return " ".join([*words, *(["→", ", ".join(changes)] if changes else [])]) or "·"


def host_table():
    return table(HOST_STATES, HOST_MESSAGES, host_cell)


def coordinator_table():
    return table(COORDINATOR_STATES, COORDINATOR_MESSAGES, coordinator_cell)


if __name__ == "__main__":  # print what a reviewed change makes of the tables
    import sys

    sys.stdout.write(host_table() if sys.argv[1] == "host" else coordinator_table())
