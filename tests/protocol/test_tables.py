# SPDX-License-Identifier: Apache-2.0
"""What both machines do in every state with every message, compared with the tables kept here.

After a change that is meant, print the table anew and review its difference::

    python -m tests.protocol.cells host > tests/protocol/host.table
    python -m tests.protocol.cells coordinator > tests/protocol/coordinator.table
    python -m tests.protocol.restorecells host > tests/protocol/restore-host.table
    python -m tests.protocol.restorecells coordinator > tests/protocol/restore-coordinator.table
"""

import pathlib
import typing

from hotsnap_nova.protocol import commands, messages
from hotsnap_nova.protocol.coordinator import Phase as Stage
from hotsnap_nova.protocol.durable import Phase
from hotsnap_nova.protocol.restore import commands as restore_commands
from hotsnap_nova.protocol.restore import messages as restore_messages
from hotsnap_nova.protocol.restore.coordinator import Phase as RestorePhase
from hotsnap_nova.protocol.restore.durable import Status
from tests.protocol import cells, restorecells

HERE = pathlib.Path(__file__).parent


def test_hosts_do_what_the_table_says():
    assert cells.host_table() == (HERE / "host.table").read_text()


def test_coordinators_do_what_the_table_says():
    assert cells.coordinator_table() == (HERE / "coordinator.table").read_text()


def test_no_state_is_missing_in_the_tables():
    assert set(Phase) <= set(cells.HOST_STATES)
    assert {name.split()[0] for name in cells.COORDINATOR_STATES} == set(Stage)


def test_no_message_is_missing_in_the_tables():
    outcomes = {kind.__name__ for kind in commands.Outcome.__subclasses__()}
    requests = {kind.__name__ for kind in typing.get_args(messages.Request)}
    answers = {kind.__name__ for kind in typing.get_args(messages.Answer)}
    for_hosts = {type(message).__name__ for message in cells.HOST_MESSAGES.values()}
    for_coordinators = {type(message).__name__ for message in cells.COORDINATOR_MESSAGES.values()}

    assert outcomes | requests | {"Journaled", "CommandFailed"} <= for_hosts
    assert answers | {"Persisted", "Superseded", "ErrandLeft", "Abort"} <= for_coordinators


def test_a_machine_commands_engine_work_once_and_last():
    heavy = (commands.EngineCommand, commands.DiscardMembers)
    for state, host in cells.HOST_STATES.items():
        for name, message in cells.HOST_MESSAGES.items():
            if message is None:
                continue
            machine = cells.Participant(host)

            given = machine.receive(message, cells.CLOSED_NS + 1)

            work = [n for n, command in enumerate(given) if isinstance(command, heavy)]
            replies = [command for command in given if isinstance(command, commands.Reply)]
            assert len(work) <= 1, (state, name)
            assert len(replies) <= 1, (state, name)
            saves = any(isinstance(command, commands.SaveMembers) for command in given)
            assert not work or saves or work == [len(given) - 1], (state, name)


# -- restores -------------------------------------------------------------------------------------
def test_hosts_that_restore_do_what_the_table_says():
    assert restorecells.host_table() == (HERE / "restore-host.table").read_text()


def test_coordinators_of_restores_do_what_the_table_says():
    assert restorecells.coordinator_table() == (HERE / "restore-coordinator.table").read_text()


def test_no_state_of_a_restore_is_missing_in_the_tables():
    parts = [part for state in restorecells.HOST_STATES.values() for part in state.parts]
    ends = [end.step for state in restorecells.HOST_STATES.values() for end in state.ended]

    assert {part.step for part in parts} == set(restore_messages.Step)
    assert {part.status for part in parts} == set(Status)
    assert set(ends) == set(restore_messages.DECISIONS)
    named = {name.split()[0] for name in restorecells.COORDINATOR_STATES}
    assert named == set(RestorePhase)


def test_no_message_of_a_restore_is_missing_in_the_tables():
    answers = {kind.__name__ for kind in typing.get_args(restore_messages.OrderAnswer)}
    for_hosts = {type(each).__name__ for each in restorecells.HOST_MESSAGES.values()}
    for_coordinators = {type(each).__name__ for each in restorecells.COORDINATOR_MESSAGES.values()}

    assert {
        "Order", "OrderJournaled", "CarriedOut", "StepProgress", "MemberWithdrawn", "CommandFailed"
    } <= for_hosts  # fmt: skip
    assert answers | {"Resolved", "Overtaken", "ErrandLeft", "AbortRestore"} <= for_coordinators


def test_a_host_that_restores_begins_no_step_before_its_intent_was_journalled():
    for state, host in restorecells.HOST_STATES.items():
        for name, message in restorecells.HOST_MESSAGES.items():
            machine = restorecells.RestoreParticipant(host)

            given = machine.receive(message, 1)

            begun = [each for each in given if isinstance(each, restore_commands.CarryOut)]
            if begun:
                written = getattr(message, "command", None)
                assert isinstance(written, restore_commands.JournalOrder), (state, name)
                assert (written.begins, written.part.step) == (True, begun[0].step), (state, name)
            assert len(begun) <= 1, (state, name)
