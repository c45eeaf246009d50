# SPDX-License-Identifier: Apache-2.0
"""Which host restores which members: each those that are there now.

Where that is another than kept them, their store has to be shared by both; the
host says so when it is asked whether it can.
"""


def of(found, plan: dict) -> dict[str, str]:
    """Hosts by member's id.

    :param found: the snapshot's row
    :param plan: of a restore; where it has no ``places`` nobody moved
    """
    return plan.get('places') or {each.member_id: each.host for each in found.members}


def of_host(found, plan: dict, host: str) -> tuple[list[str], bool]:
    """Ids of a host's members, and whether they are others than those it kept."""
    here = [member_id for member_id, place in of(found, plan).items() if place == host]
    return here, set(here) != {each.member_id for each in found.members if each.host == host}
