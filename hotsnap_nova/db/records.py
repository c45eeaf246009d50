# SPDX-License-Identifier: Apache-2.0
"""Rows as the rest of the project sees them: plain, frozen, detached from any session."""

import dataclasses
import datetime


@dataclasses.dataclass(frozen=True)
class Member:
    """One server's part of a snapshot.

    :ivar detail: measured facts that nobody searches by: digests, versions, parts
    """

    member_id: str
    name: str
    host: str
    pause_ms: float | None
    wait_ms: float | None
    hold_ms: float | None
    size_bytes: int | None
    done_bytes: int
    total_bytes: int
    detail: dict


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A group snapshot.

    :ivar generation: grows with each decision; see ``Database.compare_and_swap``
    :ivar machine: the coordinator machine's own form of this row
    :ivar closed: every host has answered the decision
    :ivar restore: how far a restore is, in the restore's own form
    :ivar abort_request: why somebody wants it given up
    :ivar lease_expires_at: seconds since 1970
    """

    id: str
    name: str
    description: str
    properties: dict
    project_id: str
    user_id: str
    request_id: str
    group_id: str
    group_name: str
    epoch: int
    gate: str
    status: str
    phase: str
    decision: str
    closed: bool
    generation: int
    machine: str
    restore: str | None
    abort_request: str | None
    skew_ms: float | None
    error_code: str | None
    error_message: str | None
    error_member: str | None
    error_host: str | None
    lease_owner: str | None
    lease_expires_at: float | None
    created_at: datetime.datetime
    updated_at: datetime.datetime
    members: tuple[Member, ...]
