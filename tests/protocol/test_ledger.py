# SPDX-License-Identifier: Apache-2.0
"""What a host remembers of snapshots that ended: each, not only the newest of a group."""

from dataclasses import replace

import pytest

from hotsnap_nova.protocol import commands as do
from hotsnap_nova.protocol import messages as say
from hotsnap_nova.protocol.coordinator import Coordinator
from hotsnap_nova.protocol.coordinator import Phase as Stage
from hotsnap_nova.protocol.cut import NS_PER_MS
from hotsnap_nova.protocol.durable import Decided, Decision, Limits, Phase, Snapshot
from hotsnap_nova.protocol.hoststate import HostState, ledger
from hotsnap_nova.protocol.participant import Participant

WEB, DB = say.Member("web"), say.Member("db")
FIRST, RIVAL = ("first", 1, "h"), ("rival", 2, "h")


def work(*members, group="g"):
    return say.Work(group, members, say.Gate.HOLD, 100, 150)


def told(host, message, now=1):
    """The answer of a host whose engine and journal never fail."""
    answer, todo = None, list(host.receive(message, now))
    while todo:
        command = todo.pop(0)
        if isinstance(command, do.Reply):
            answer = command.answer
            continue
        todo = [*host.receive(outcome(command), now), *todo]
    return answer


def outcome(command):
    if isinstance(command, do.Journal):
        return do.Journaled(command)
    who = (command.snapshot, command.epoch)
    match command:
        case do.PrepareMembers():
            return do.MembersPrepared(*who)
        case do.RecordMembers(work=here):
            cuts = (say.MemberCut(m.id, 1, 1, 1.0, 1, 1) for m in here.members)
            return do.MembersRecorded(*who, tuple(cuts))
        case do.ReleaseMembers(work=here):
            releases = (say.MemberRelease(member.id, 1.0) for member in here.members)
            return do.MembersReleased(*who, tuple(releases))
        case do.SaveMembers():
            return do.MembersSaved(*who)
        case do.FinishMembers():
            return do.MembersFinished(*who)
        case do.DiscardMembers():
            return do.MembersDiscarded(*who)


def saved(who=FIRST, here=None):
    host = Participant(HostState("h"))
    for message in (
        say.Prepare(*who, here or work(WEB)), say.Record(*who), say.Release(*who), say.Save(*who),
    ):  # fmt: skip
        told(host, message)
    assert host.state.part(who[0]).phase is Phase.SAVED
    return host


def discard(who, **more):
    return say.Discard(*who, "g", (WEB,), **more)


def refuse_a_rival(host):
    refused = told(host, say.Prepare(*RIVAL, work(WEB)))
    assert refused.cause.code == "member_busy"
    assert isinstance(told(host, discard(RIVAL)), say.Discarded)


# -- each snapshot ends as decided ----------------------------------------------------------------
def test_finish_is_answered_again_after_a_newer_snapshot_was_discarded():
    host = saved()
    told(host, say.Finish(*FIRST))
    told(host, say.Prepare(*RIVAL, work(WEB)))
    told(host, discard(RIVAL))

    assert isinstance(told(host, say.Finish(*FIRST)), say.Finished)


def test_finish_is_answered_again_although_a_rival_was_refused_before_it():
    host = saved()
    refuse_a_rival(host)
    told(host, say.Finish(*FIRST))

    assert isinstance(told(host, say.Finish(*FIRST)), say.Finished)


def test_a_saved_part_survives_a_restart_although_a_rival_was_refused():
    host = saved()
    refuse_a_rival(host)

    again, todo = Participant.recover("h", (), host.state.parts, host.state.decided)

    assert not todo
    assert isinstance(told(again, say.Finish(*FIRST)), say.Finished)


def test_a_part_whose_end_is_in_the_ledger_but_not_yet_gone_is_finished_again():
    host = saved()
    parts = host.state.parts
    told(host, say.Finish(*FIRST))

    again, todo = Participant.recover("h", (), parts, host.state.decided)

    assert not todo
    assert isinstance(told(again, say.Finish(*FIRST)), say.Finished)
    assert not again.state.parts


@pytest.mark.parametrize("late", [
    say.Prepare(*FIRST, work(WEB)), say.Record(*FIRST), say.Release(*FIRST), say.Save(*FIRST),
])  # fmt: skip
def test_whatever_comes_late_for_a_finished_snapshot_is_told_that_it_is_finished(late):
    host = saved()
    told(host, say.Finish(*FIRST))

    assert isinstance(told(host, late), say.Finished)


def test_a_prepare_that_comes_behind_its_discard_begins_nothing():
    host = Participant(HostState("h"))
    told(host, discard(FIRST))

    refused = told(host, say.Prepare(*FIRST, work(WEB)))

    assert refused.cause.code == "already_discarded"
    assert not host.state.parts


def test_an_older_epoch_of_the_group_is_refused():
    host = Participant(HostState("h"))
    told(host, discard(RIVAL))

    assert told(host, say.Prepare(*FIRST, work(WEB))).cause.code == "epoch_decided"


# -- deleted, whatever was decided ----------------------------------------------------------------
def test_what_is_deleted_goes_although_it_is_finished():
    host = saved()
    told(host, say.Finish(*FIRST))

    refused = told(host, discard(FIRST))
    commands = host.receive(discard(FIRST, deleted=True), 1)

    assert refused.cause.code == "already_finished"
    assert commands == [do.DiscardMembers("first", 1, (WEB,), decided=True, deleted=True)]


def test_a_finish_that_comes_behind_the_deletion_publishes_nothing():
    host = saved()
    told(host, say.Finish(*FIRST))

    assert isinstance(told(host, discard(FIRST, deleted=True)), say.Discarded)
    assert isinstance(told(host, discard(FIRST, deleted=True)), say.Discarded)
    assert told(host, say.Finish(*FIRST)).cause.code == "already_discarded"


@pytest.mark.parametrize("ends", [
    lambda command: do.MembersFinished("first", 1),
    lambda command: do.CommandFailed(command, say.Cause("broken")),
])  # fmt: skip
def test_what_is_deleted_while_it_is_being_published_goes_right_after(ends):
    host = saved()
    (finish,) = host.receive(say.Finish(*FIRST), 1)

    answer = told(host, discard(FIRST, deleted=True))
    commands = host.receive(ends(finish), 1)

    assert isinstance(answer, say.Working)
    assert commands == [do.DiscardMembers("first", 1, (WEB,), decided=True, deleted=True)]


def test_what_is_deleted_while_its_end_is_being_journalled_goes_right_after():
    host = saved()
    host.receive(say.Finish(*FIRST), 1)
    (journal,) = host.receive(do.MembersFinished("first", 1), 1)
    told(host, discard(FIRST, deleted=True))

    answer = told(host, do.Journaled(journal))

    assert isinstance(answer, say.Discarded)
    assert host.state.decision_of("first") is Decision.DISCARD


# -- what is kept ---------------------------------------------------------------------------------
def row(n, group="g", member=WEB):
    return Decided(group, member, n, f"{group}-{n}", Decision.DISCARD)


def test_the_ledger_is_bounded_and_what_a_newer_epoch_stands_for_goes_first():
    lonely = row(0, "lonely")

    kept = ledger([lonely, *map(row, range(5))], [row(5)], kept=4)

    assert kept == (lonely, row(3), row(4), row(5))


def test_where_all_are_the_newest_the_oldest_goes():
    kept = ledger([row(9, "a"), row(1, "b")], [row(1, "c")], kept=2)

    assert kept == (row(1, "b"), row(1, "c"))


def test_a_row_of_the_same_snapshot_and_member_is_replaced():
    finished = replace(row(1), decision=Decision.FINISH)

    assert ledger([finished, row(2)], [row(1)]) == (row(2), row(1))


# -- what the ledger does not know ----------------------------------------------------------------
def finishing(*hosts, absent_ms=None):
    decided = Snapshot(
        "first", 1, tuple((host, work(WEB)) for host in hosts), Limits(absent_ms=absent_ms),
        decision=Decision.FINISH,
    )  # fmt: skip
    machine, _ = Coordinator.resume(decided, 0)
    return machine


def test_a_host_that_lost_its_journal_after_it_had_saved_ends_the_snapshot_with_a_cause():
    machine, lost = finishing("h"), Participant(HostState("h"))

    (write,) = machine.receive(told(lost, say.Finish(*FIRST)), 5)

    assert (write.decision, write.closed, write.absent) == (Decision.FINISH, True, ("h",))
    assert (write.cause.code, write.cause.host) == ("unknown_snapshot", "h")


def test_a_refusal_that_came_late_does_not_end_what_is_being_finished():
    machine = finishing("h")

    assert not machine.receive(say.Refused(*FIRST, say.Cause("member_busy")), 5)
    assert machine.state.phase is Stage.FINISH


def test_a_silent_host_is_left_an_errand_and_the_snapshot_closes():
    machine = finishing("h", "i", absent_ms=60_000)
    machine.receive(say.Finished("first", 1, "i"), 5)

    errand = machine.tick(60_000 * NS_PER_MS)[-1]
    (write,) = machine.receive(do.ErrandLeft("first", "h"), 60_001 * NS_PER_MS)

    assert errand == do.LeaveErrand(say.Finish(*FIRST))
    assert (write.closed, write.absent, write.cause) == (True, ("h",), None)


def test_a_host_that_answers_is_left_an_errand_once_it_takes_too_long():
    machine = finishing("h", absent_ms=60_000)
    late_ns = machine.state.row.limits.decided_timeout_ms * NS_PER_MS
    for now in range(0, late_ns, 50_000 * NS_PER_MS):
        machine.receive(say.Working(*FIRST), now)
        assert not [each for each in machine.tick(now) if isinstance(each, do.LeaveErrand)]

    assert do.LeaveErrand(say.Finish(*FIRST)) in machine.tick(late_ns)


def test_an_errand_that_cannot_be_written_is_in_nobodys_way_and_is_tried_again():
    machine = finishing("h", "i", absent_ms=60_000)
    now = 60_000 * NS_PER_MS
    first, second = (machine.tick(now)[-1] for _ in range(2))
    machine.receive(do.CommandFailed(first, say.Cause("broken")), now)

    later = machine.tick(machine.wakeup())

    assert {first.message.host, second.message.host} == {"h", "i"}
    assert first in later


def test_where_nobody_runs_errands_a_silent_host_is_waited_for():
    machine = finishing("h")

    for n in range(1, 100):
        machine.tick(n * 10**12)

    assert machine.state.phase is Stage.FINISH


# -- leases ---------------------------------------------------------------------------------------
def prepared(*snapshots):
    host = Participant(HostState("h"))
    for name, member in snapshots:
        told(host, say.Prepare(name, 1, "h", work(member, group=name)))
    return host


def test_a_prepared_guest_is_let_go_of_when_no_coordinator_is_heard_of():
    host = prepared(("first", WEB))
    ends = host.wakeup()

    assert ends == 1 + 600_000 * NS_PER_MS
    assert not host.tick(ends - 1)
    assert isinstance(host.tick(ends)[0], do.DiscardMembers)
    assert told(host, do.MembersDiscarded("first", 1)).cause.code == "coordinator_silent"


def test_a_request_shows_that_there_is_a_coordinator():
    host = prepared(("first", WEB))

    told(host, say.Prepare(*FIRST, work(WEB)), 500_000 * NS_PER_MS)

    assert host.wakeup() == 1_100_000 * NS_PER_MS


def test_a_record_after_that_time_cuts_nothing():
    host = prepared(("first", WEB))

    (command,) = host.receive(say.Record(*FIRST), host.wakeup())

    assert isinstance(command, do.DiscardMembers)


def test_leases_that_end_at_once_are_given_up_one_by_one():
    host = prepared(("first", WEB), ("other", DB))
    ends = host.wakeup()

    first, second = host.tick(ends), host.tick(ends)

    assert [command.snapshot for command in (*first, *second)] == ["first", "other"]
    assert host.wakeup() is None
