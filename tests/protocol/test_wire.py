# SPDX-License-Identifier: Apache-2.0
"""What crosses a wire or a restart comes back equal, or is refused in one sentence."""

import json

import pytest

from hotsnap_nova.protocol import wire
from hotsnap_nova.protocol.durable import Decided, Decision, Phase, Residue
from hotsnap_nova.protocol.messages import Discard, Finish, Member, Record, Saved
from tests.protocol import cells

THINGS = [
    *(m for m in cells.HOST_MESSAGES.values() if type(m).__name__ in wire._KINDS),
    *(m for m in cells.COORDINATOR_MESSAGES.values() if type(m).__name__ in wire._KINDS),
    *(cells.part(phase) for phase in Phase),
    *(state.row for state in cells.COORDINATOR_STATES.values()),
    Finish("s", 5, "h", cells.ANSWERS),
    Decided("g", cells.GUEST, 5, "s", Decision.FINISH),
    Residue("s", 5, (cells.GUEST,)),
]


@pytest.mark.parametrize("thing", THINGS, ids=lambda thing: type(thing).__name__)
def test_a_thing_survives_json(thing):
    plain = json.loads(json.dumps(wire.encode(thing)))

    assert wire.decode(plain) == thing


def test_what_an_older_release_wrote_is_read_with_defaults():
    row = {
        "v": 1, "kind": "Decided", "group": "g", "epoch": 5, "snapshot": "s",
        "decision": "finish", "member": {"kind": "Member", "id": "a", "name": "web"},
    }  # fmt: skip
    discard = {
        "v": 1, "kind": "Discard", "snapshot": "s", "epoch": 5, "host": "h", "group": "g",
        "members": [],
    }  # fmt: skip

    assert wire.decode(row) == Decided("g", Member("a", "web"), 5, "s", Decision.FINISH)
    assert wire.decode(discard) == Discard("s", 5, "h", "g", (), deleted=False)


def test_fields_of_a_newer_release_are_ignored_and_missing_ones_take_their_default():
    plain = wire.encode(Saved("s", 5, "h", "{}")) | {"colour": "blue"}
    del plain["detail"]

    assert wire.decode(plain) == Saved("s", 5, "h")


@pytest.mark.parametrize("broken", [
    {"v": 2}, {"kind": "Nonsense"}, {"epoch": "five"}, {"epoch": True}, {"host": None},
    {"kind": None}, {"kind": "dataclass"},
])  # fmt: skip
def test_a_broken_message_is_refused(broken):
    with pytest.raises(ValueError):
        wire.decode(wire.encode(Record("s", 5, "h")) | broken)


def test_a_message_without_its_address_is_refused():
    plain = wire.encode(Record("s", 5, "h"))
    del plain["epoch"]

    with pytest.raises(ValueError):
        wire.decode(plain)
