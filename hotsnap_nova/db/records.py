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
    :ivar last_action: as `conductor.rpcapi` tells it; ``action_status`` is a copy to search by
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
    disk: str
    action_status: str | None
    last_action: dict | None
    members: tuple[Member, ...]


@dataclasses.dataclass(frozen=True)
class Service:
    """A process of ours. Times are seconds since 1970.

    :ivar rpc_version: of what it answers
    :ivar seen_at: None: it was asked and has never answered
    """

    binary: str
    host: str
    version: str
    rpc_version: str
    started_at: float | None
    seen_at: float | None
    asked_at: float | None


@dataclasses.dataclass(frozen=True)
class Errand:
    """What a host still has to do; ``detail`` is its kind's own.

    :ivar attempts: how often it was tried in vain; ``error``: why the last time
    :ivar not_before: until then it is left alone; seconds since 1970, as all times
    :ivar claimed_by: who is at it
    """

    id: int
    snapshot_id: str
    host: str
    kind: str
    detail: dict
    created_at: float
    attempts: int
    error: str | None
    not_before: float | None
    claimed_by: str | None
    claimed_until: float | None
