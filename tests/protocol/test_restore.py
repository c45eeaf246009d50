# SPDX-License-Identifier: Apache-2.0
"""What the machines of a restore promise, one thing at a time; the explorer tries all at once."""

from dataclasses import replace

import pytest

from hotsnap_nova.protocol import commands as both
from hotsnap_nova.protocol.cut import NS_PER_MS
from hotsnap_nova.protocol.messages import Cause, Member
from hotsnap_nova.protocol.restore import commands as do
from hotsnap_nova.protocol.restore.coordinator import Phase, RestoreCoordinator
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
    AbortRestore,
    MemberFault,
    MemberWarning,
    Order,
    OrderDone,
    OrderRefused,
    OrderWorking,
    Share,
    Step,
)
from hotsnap_nova.protocol.restore.participant import RestoreHostState, RestoreParticipant

WEB, DB = Member("web"), Member("db")
SHARE = Share("s", (WEB, DB))
BROKEN = Cause("broken", "it broke")


def order(step, restore="r"):
    return Order(restore, "h", step, SHARE)


class Host:
    """A host whose engine does what is asked, or fails at the steps in ``fails``."""

    def __init__(self, machine=None):
        self.machine = machine or RestoreParticipant(RestoreHostState("h"))
        self.fails, self.faults, self.keeps_ends = set(), (), True
        self.warns = {}
        self.carried_out, self.journal = [], []

    def told(self, message):
        """The last answer to a message and to all that follows from it."""
        answer, todo, background = None, list(self.machine.receive(message, 0)), []
        while todo or background:
            if not todo:  # which is what hosts do while the coordinator asks again
                todo += self.machine.receive(self._done(background.pop(0)), 0)
                continue
            match todo.pop(0):
                case do.ReplyToOrder(answer=answer):
                    pass
                case do.CarryOut() as command:
                    background.append(command)
                case do.JournalOrder() as command:
                    self.journal.append(command)
                    outcome = do.OrderJournaled(command)
                    if command.part is None and not self.keeps_ends:
                        outcome = both.CommandFailed(command, BROKEN)
                    todo = [*self.machine.receive(outcome, 0), *todo]
        return answer

    def _done(self, command):
        self.carried_out.append(command.step)
        if command.step in self.fails:
            return both.CommandFailed(command, BROKEN)
        return do.CarriedOut(command.restore, command.step, self.faults,
                             warnings=self.warns.get(command.step, ()))

    def restarted(self):
        """The host after its process died, and what was left to do at once."""
        part = next((each.part for each in reversed(self.journal)), None)
        ended = [each.ended for each in self.journal if each.ended]
        machine, todo = RestoreParticipant.recover("h", [part] if part else [], ended)
        return Host(machine), todo


@pytest.fixture
def host():
    return Host()


def up_to(host, last):
    for step in (Step.PREPARE, Step.STOP, Step.START):
        assert host.told(order(step)) == OrderDone("r", "h", step)
        if step is last:
            return


# -- hosts: what is ended stays ended -------------------------------------------------------------
@pytest.mark.parametrize("step", [Step.RESUME, Step.UNDO])
def test_a_decision_that_is_repeated_after_the_end_touches_nothing(host, step):
    up_to(host, Step.START)
    first = host.told(order(step))
    host.carried_out.clear()

    assert first == OrderDone("r", "h", step)
    assert host.told(order(step)) == first
    assert not host.carried_out


@pytest.mark.parametrize("late", [Step.PREPARE, Step.STOP, Step.START])
def test_an_order_that_comes_behind_its_undo_begins_nothing(host, late):
    host.told(order(Step.UNDO))
    host.carried_out.clear()

    assert host.told(order(late)).cause.code == "restore_ended"
    assert not host.carried_out


ENDS = [(Step.RESUME, Step.FINISH), (Step.UNDO, Step.CLEAR)]


@pytest.mark.parametrize(("decision", "last"), ENDS)
def test_that_a_decision_was_carried_out_is_on_record_before_what_it_needs_goes(
    host, decision, last
):
    up_to(host, Step.START)

    host.told(order(decision))

    journalled = [each.part.step if each.part else "end" for each in host.journal[-3:]]
    assert journalled == [decision, last, "end"]
    assert host.carried_out[-2:] == [decision, last]


@pytest.mark.parametrize(("decision", "last"), ENDS)
def test_after_a_restart_a_decision_that_was_carried_out_is_not_again(host, decision, last):
    up_to(host, Step.START)
    host.fails = {last}
    host.told(order(decision))

    again, todo = host.restarted()

    assert [(each.part.step, each.begins) for each in todo] == [(last, True)]
    again.told(do.OrderJournaled(todo[0]))
    assert again.carried_out == [last]


@pytest.mark.parametrize(("decision", "last"), ENDS)
def test_what_a_decision_has_to_tell_is_told_after_a_restart(host, decision, last):
    up_to(host, Step.START)
    host.fails, host.faults = {last}, (MemberFault("g", BROKEN),)
    host.told(order(decision))

    again, todo = host.restarted()

    done = again.told(do.OrderJournaled(todo[0]))
    assert done == OrderDone("r", "h", decision, (MemberFault("g", BROKEN),))


# -- hosts: decisions are obeyed from anywhere ----------------------------------------------------
@pytest.mark.parametrize("step", [Step.RESUME, Step.UNDO])
def test_a_host_that_lost_its_journal_still_does_what_was_decided(host, step):
    host.told(order(step))

    assert host.carried_out[0] is step


def test_a_decision_waits_for_the_step_that_is_under_way_and_hastens_it(host):
    (journal,) = host.machine.receive(order(Step.PREPARE), 0)
    (carry_out, _) = host.machine.receive(do.OrderJournaled(journal), 0)

    hasten, working = host.machine.receive(order(Step.UNDO), 0)
    host.told(both.CommandFailed(carry_out, BROKEN))

    assert hasten == do.Hasten("r")
    assert isinstance(working.answer, OrderWorking)
    assert host.carried_out == [Step.UNDO, Step.CLEAR]


def test_a_decision_that_comes_while_an_intent_is_journalled_replaces_it(host):
    (journal,) = host.machine.receive(order(Step.PREPARE), 0)
    host.machine.receive(order(Step.UNDO), 0)

    assert host.told(do.OrderJournaled(journal)) == OrderDone("r", "h", Step.UNDO)
    assert host.carried_out == [Step.UNDO, Step.CLEAR]


def test_a_decision_is_carried_out_although_the_journal_fails_and_only_once(host):
    up_to(host, Step.START)
    (journal,) = host.machine.receive(order(Step.RESUME), 0)

    commands = host.machine.receive(both.CommandFailed(journal, BROKEN), 0)

    assert [type(each) for each in commands] == [do.CarryOut, do.ReplyToOrder]


def test_what_was_decided_goes_on_after_a_restart_one_command_for_each_restore():
    parts = [RestorePart(r, SHARE, Step.UNDO) for r in ("r", "q")]

    _, todo = RestoreParticipant.recover("h", parts, [])

    assert sorted(each.restore for each in todo) == ["q", "r"]


def test_a_decision_that_failed_is_tried_again_when_it_is_ordered_again(host):
    host.fails = {Step.UNDO}
    first = host.told(order(Step.UNDO))
    host.fails = set()

    assert first == OrderWorking("r", "h", Step.UNDO, trouble="it broke")
    assert host.told(order(Step.UNDO)) == OrderDone("r", "h", Step.UNDO)


def test_why_a_decision_failed_is_told_to_whoever_orders_it_again(host):
    """It failed when nobody was waiting: hosts carry out in the background."""
    host.fails = {Step.UNDO}
    host.told(order(Step.UNDO))

    (journal,) = host.machine.receive(order(Step.UNDO), 0)
    begun, reply = host.machine.receive(do.OrderJournaled(journal), 0)

    assert isinstance(begun, do.CarryOut)
    assert reply == do.ReplyToOrder(OrderWorking("r", "h", Step.UNDO, trouble="it broke"))
def test_an_end_that_cannot_be_put_on_record_is_tried_again_and_nothing_else_is(host):
    up_to(host, Step.START)
    host.keeps_ends = False
    first = host.told(order(Step.UNDO))
    host.carried_out.clear()
    host.keeps_ends = True

    again = host.told(order(Step.UNDO))

    assert first == OrderWorking("r", "h", Step.UNDO, trouble="it broke")
    assert again == OrderDone("r", "h", Step.UNDO)
    assert not host.carried_out


def test_an_end_is_put_on_record_once_however_often_it_is_asked_for(host):
    (journal,) = host.machine.receive(order(Step.UNDO), 0)
    host.machine.receive(do.OrderJournaled(journal), 0)
    (journal,) = host.machine.receive(do.CarriedOut("r", Step.UNDO), 0)
    host.machine.receive(do.OrderJournaled(journal), 0)
    host.machine.receive(do.CarriedOut("r", Step.CLEAR), 0)

    (reply,) = host.machine.receive(order(Step.UNDO), 0)

    assert isinstance(reply.answer, OrderWorking)




# -- hosts: whose a guest is ----------------------------------------------------------------------
def test_a_member_that_was_withdrawn_fails_what_is_not_decided(host):
    up_to(host, Step.PREPARE)
    host.told(do.MemberWithdrawn("r", "web", Cause("withdrawn", "it is deleted")))

    refused = host.told(order(Step.STOP))

    assert refused.cause == Cause("withdrawn", "it is deleted", "h")
    assert host.carried_out == [Step.PREPARE]


def test_a_member_that_was_withdrawn_is_named_when_all_others_run(host):
    up_to(host, Step.START)
    host.told(do.MemberWithdrawn("r", "web", Cause("withdrawn")))

    done = host.told(order(Step.RESUME))

    assert [(each.member, each.cause.code) for each in done.faults] == [("web", "withdrawn")]


def test_a_withdrawal_survives_a_restart(host):
    up_to(host, Step.PREPARE)
    host.told(do.MemberWithdrawn("r", "web", Cause("withdrawn")))

    again, _ = host.restarted()

    assert again.told(order(Step.STOP)).cause.code == "withdrawn"


def test_a_withdrawal_while_the_intent_is_journalled_keeps_the_step_from_beginning(host):
    up_to(host, Step.PREPARE)
    (journal,) = host.machine.receive(order(Step.STOP), 0)
    host.told(do.MemberWithdrawn("r", "web", Cause("withdrawn")))

    assert isinstance(host.told(do.OrderJournaled(journal)), OrderRefused)
    assert host.carried_out == [Step.PREPARE]


# -- the coordinator ------------------------------------------------------------------------------
def coordinator(**row):
    limits = RestoreLimits(absent_ms=60_000)
    restore = Restore("r", "s", (("h", SHARE), ("i", SHARE)), limits, **row)
    make = RestoreCoordinator.resume if row else RestoreCoordinator.begin
    return make(restore, 0)


def in_phase(step):
    machine, _ = coordinator()
    for each in (Step.PREPARE, Step.STOP, Step.START):
        if each == step:
            return machine
        for host in ("h", "i"):
            last = machine.receive(OrderDone("r", host, each), 0)
    return machine, last


def ordered(commands):
    return [each.order.step for each in commands if isinstance(each, do.SendOrder)]


def test_a_decision_of_unknown_outcome_is_written_again_and_no_host_hears_of_it():
    machine, (write,) = in_phase(None)

    later = machine.receive(both.CommandFailed(write, BROKEN), 0)
    again = machine.tick(machine.wakeup())

    assert write.resolution is Resolution.RESUME
    assert not later
    assert again == [write]


def test_hosts_hear_of_a_decision_once_it_is_durable():
    machine, _ = in_phase(None)

    assert ordered(machine.receive(do.Resolved("r", 1), 0)) == [Step.RESUME] * 2


@pytest.mark.parametrize("found", Resolution)
def test_who_takes_over_writes_the_row_before_any_host_hears_of_him(found):
    machine, commands = coordinator(resolution=found)

    (write,) = commands
    wanted = Resolution.UNDO if found is Resolution.NONE else found
    assert (write.resolution, write.closed) == (wanted, False)
    assert ordered(machine.receive(do.Resolved("r", 1), 0)) == [str(wanted)] * 2


def test_who_was_overtaken_does_nothing_more():
    machine, _ = in_phase(None)

    assert not machine.receive(do.Overtaken("r"), 0)
    assert not machine.receive(do.Resolved("r", 1), 0)
    assert machine.state.phase is Phase.STOOD_DOWN


@pytest.mark.parametrize("step", [Step.PREPARE, Step.STOP, Step.START])
@pytest.mark.parametrize("trouble", [
    lambda machine: machine.receive(AbortRestore("r"), 0),
    lambda machine: machine.receive(OrderRefused("r", "h", BROKEN), 0),
    lambda machine: machine.tick(machine.state.deadline_ns),
    lambda machine: machine.tick(120_000 * NS_PER_MS),
])  # fmt: skip
def test_up_to_the_decision_trouble_leads_to_undo(step, trouble):
    machine = in_phase(step)

    (write,) = trouble(machine)

    assert write.resolution is Resolution.UNDO


def test_a_host_that_is_silent_before_the_decision_is_named():
    machine = in_phase(Step.START)
    machine.receive(OrderWorking("r", "i", Step.START), 60_000 * NS_PER_MS)

    (write,) = machine.tick(120_000 * NS_PER_MS)

    assert (write.cause.code, write.cause.host) == ("host_unreachable", "h")


def test_after_the_decision_nobody_can_abort():
    machine, _ = in_phase(None)

    assert not machine.receive(AbortRestore("r"), 0)
    machine.receive(do.Resolved("r", 1), 0)
    assert not machine.receive(AbortRestore("r"), 0)
    assert machine.state.phase is Phase.RESUME


def test_a_fault_of_one_member_keeps_nobody_else():
    machine, _ = coordinator(resolution=Resolution.RESUME)
    machine.receive(do.Resolved("r", 1), 0)
    fault = MemberFault("web", BROKEN)

    machine.receive(OrderDone("r", "h", Step.RESUME, (fault,)), 0)
    (write,) = machine.receive(OrderDone("r", "i", Step.RESUME), 0)

    assert (write.closed, write.resolution, write.faults) == (True, Resolution.RESUME, (fault,))


def test_what_a_host_warns_of_is_told_with_all_that_follows_and_by_its_next_process():
    host = Host()
    skipped = MemberWarning("web", "guest", "no trial", "make room", "h")
    late = MemberWarning("db", "clock", "it lags", "have it set", "h")
    host.warns = {Step.PREPARE: (skipped,), Step.START: (skipped,), Step.RESUME: (late,)}

    answers = [host.told(order(step)) for step in (*BEFORE_DECISION, Step.RESUME)]
    again = host.restarted()[0].told(order(Step.RESUME))

    assert [each.warnings for each in answers] == [(skipped,)] * 3 + [(skipped, late)]
    assert again == answers[-1]


def test_a_coordinator_keeps_what_hosts_warn_of_once_and_beside_what_it_knew():
    known, late, other = (MemberWarning(*each) for each in (
        ("web", "vda", "it has grown"), ("db", "clock", "it lags"), ("web", "clock", "it lags")))
    machine, _ = coordinator(resolution=Resolution.RESUME, warnings=(known,))
    machine.receive(do.Resolved("r", 1), 0)

    machine.receive(OrderDone("r", "h", Step.RESUME, warnings=(late, known)), 0)
    (write,) = machine.receive(OrderDone("r", "i", Step.RESUME, warnings=(other,)), 0)

    assert write.warnings == (known, late, other)
    machine.receive(do.Resolved("r", 2), 0)
    assert machine.state.row.warnings == write.warnings


def test_a_host_that_is_away_after_the_decision_is_left_an_errand():
    machine, _ = coordinator(resolution=Resolution.UNDO)
    machine.receive(do.Resolved("r", 1), 0)
    machine.receive(OrderDone("r", "i", Step.UNDO), 0)

    errand = machine.tick(60_000 * NS_PER_MS)[-1]
    (write,) = machine.receive(do.ErrandLeft("r", "h"), 60_001 * NS_PER_MS)

    assert errand == do.LeaveErrand(order(Step.UNDO))
    assert (write.closed, write.absent) == (True, ("h",))


def test_an_errand_that_cannot_be_written_is_in_nobodys_way():
    machine, _ = coordinator(resolution=Resolution.UNDO)
    machine.receive(do.Resolved("r", 1), 0)
    now = 60_000 * NS_PER_MS

    errands = [machine.tick(now)[-1] for _ in range(2)]

    assert [each.order.host for each in errands] == ["h", "i"]
    assert machine.wakeup() > now


def test_a_host_is_asked_seldom_when_it_has_trouble_and_often_when_it_gets_on():
    machine, _ = coordinator(resolution=Resolution.UNDO)
    machine.receive(do.Resolved("r", 1), 0)
    for _ in range(4):
        machine.receive(OrderWorking("r", "h", Step.UNDO, trouble="it broke"), 0)
        machine.receive(OrderWorking("r", "i", Step.UNDO), 0)

    waits = {call.host: call.repeat_ns // NS_PER_MS for call in machine.state.waiting}

    assert waits == {"h": 1600, "i": 100}


def test_a_part_whose_end_is_known_is_removed_after_a_restart():
    part = RestorePart("r", SHARE, Step.FINISH)
    ended = RestoreEnded("r", Step.RESUME)

    machine, todo = RestoreParticipant.recover("h", [part], [ended])

    assert todo == [do.JournalOrder("r", None, ended)]
    assert not machine.state.parts


def test_an_interrupted_step_is_done_again_when_it_is_ordered_again():
    part = RestorePart("r", SHARE, Step.START)
    machine, todo = RestoreParticipant.recover("h", [part], [])
    host = Host(machine)

    assert not todo
    assert machine.state.part("r") == replace(part, status=Status.INTERRUPTED)
    assert host.told(order(Step.START)) == OrderDone("r", "h", Step.START)
    assert host.carried_out == [Step.START]
