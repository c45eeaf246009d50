# SPDX-License-Identifier: Apache-2.0
"""What the service tells, as plain frozen objects."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Error:
    """Why something failed.

    :ivar host: None for all but admins
    """

    code: str
    message: str
    server_id: str | None = None
    host: str | None = None


@dataclasses.dataclass(frozen=True)
class Member:
    """One server's part of a snapshot; None where not known yet."""

    server_id: str
    name: str
    pause_ms: float | None = None
    wait_ms: float | None = None
    hold_ms: float | None = None
    size_bytes: int | None = None
    done_bytes: int = 0
    total_bytes: int = 0
    host: str | None = None


@dataclasses.dataclass(frozen=True)
class Action:
    """The last restore or verification: ``status`` is running, done or failed."""

    name: str
    status: str
    started_at: str | None = None
    finished_at: str | None = None
    request_id: str | None = None
    result: dict | None = None
    error: Error | None = None

    @property
    def warnings(self) -> 'tuple[Finding, ...]':
        """What to know of a restore that has not failed; of the group, without a server's id."""
        return tuple(_known(Finding, each) for each in (self.result or {}).get('warnings', ()))


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A snapshot of a server group; of `Client.list`'s brief ones only the first seven."""

    id: str
    name: str
    status: str
    phase: str
    server_group_id: str
    server_group_name: str
    created_at: str
    updated_at: str | None = None
    description: str = ''
    properties: dict = dataclasses.field(default_factory=dict)
    project_id: str | None = None
    user_id: str | None = None
    request_id: str | None = None
    gate: str | None = None
    disk: str | None = None
    epoch: int | None = None
    skew_ms: float | None = None
    error: Error | None = None
    last_action: Action | None = None
    members: tuple[Member, ...] = ()

    @property
    def size_bytes(self) -> int:
        return sum(each.size_bytes or 0 for each in self.members)


@dataclasses.dataclass(frozen=True)
class Finding:
    """What there is to say about a device of a server.

    :ivar rules_out: gates, ``snapshot`` or ``restore``; empty: it is a warning
    """

    server_id: str
    server_name: str
    device: str
    cause: str
    remedy: str
    rules_out: tuple[str, ...] = ()
    host: str | None = None


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether a group can be snapshotted, and by which gates; and could be restored then."""

    possible: bool
    restorable: bool
    gates: tuple[str, ...]
    findings: tuple[Finding, ...]


def snapshot(plain: dict) -> Snapshot:
    """From an answer's body."""
    action = plain.get('last_action')
    return _known(Snapshot, plain | {
        'error': _error(plain.get('error')),
        'members': tuple(_known(Member, {
            key: value for key, value in each.items() if value is not None})
            for each in plain.get('members', ())),
        'last_action': action and _known(Action, action | {'error': _error(action.get('error'))}),
    })


def verdict(plain: dict) -> Verdict:
    """From an answer's body; a service of before 1.1 says nothing of restores."""
    findings = tuple(_known(Finding, each | {'rules_out': tuple(
        each.get('rules_out', each['gates'] or ['snapshot']))}) for each in plain['findings'])
    return Verdict(plain['possible'], plain.get('restorable', plain['possible']),
                   tuple(plain['gates']), findings)


def _known(cls, plain: dict):
    """An object of the fields known here: a newer service may send more."""
    names = {each.name for each in dataclasses.fields(cls)}
    return cls(**{key: value for key, value in plain.items() if key in names})


def _error(plain):
    return _known(Error, plain) if plain else None
