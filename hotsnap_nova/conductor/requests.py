# SPDX-License-Identifier: Apache-2.0
"""What a request for a snapshot must be like; checked before anything is touched."""

import dataclasses
import json
import math
from collections.abc import Callable, Collection

from hotsnap_nova import exception

GATES = ('auto', 'hold', 'barrier', 'marker', 'none')
MARKER = 'marker'
#: DSCP of a mark where nobody configures another: of those that RFC 2474 leaves to local use.
MARKER_DSCP = (3, 7, 11)
#: Best first: what ``auto`` takes. ``marker`` is taken where it is asked for.
PREFERENCE = ('hold', 'barrier')
#: What a finding of a host's rules out beside gates; one that rules out nothing warns.
SNAPSHOT, RESTORE = 'snapshot', 'restore'
#: How disks can be frozen.
DISKS = ('backup',)
MAX_NAME = 255
#: Of a text in the manifest.
MAX_DESCRIPTION = 4096
#: What MySQL's plain TEXT holds of the JSON that they are kept as.
MAX_PROPERTIES_BYTES = 65535
#: A guest that stands for a minute is no hot snapshot.
MAX_LIMIT_MS = 60_000
MAX_DEADLINE_S = 7 * 86400


@dataclasses.dataclass(frozen=True)
class CreateRequest:
    """A wish for a snapshot of ``members``: (name or id, host) each.

    :ivar deadline_s: complete within so many seconds, or aborted; None: save_timeout_s
    :ivar record_delays_s: seconds by member's name, slept before its cut; for tests
    :ivar group_id: empty: made from the members
    :ivar names: for people, by member's id, where the caller knows them: hosts are then not
        asked to find the members
    :ivar domains: libvirt's names by member's id, which hosts of before RPC 1.3 tell of
    :ivar unique_name: no other snapshot of the project may have the name
    :ivar quotas: see `db.api.Database.create`
    :ivar must_fit: likewise
    :ivar keep_failed: so many rows in error the project keeps; None: all
    :ivar marker_dscp: code points that marks may have; the epoch says which of them
    :ivar addresses: (MAC, IP addresses) of members' NICs that no host knows
    :ivar context: in whose name, for the hosts: user_id, project_id, request_id
    """

    name: str
    members: tuple[tuple[str, str], ...]
    gate: str = 'auto'
    max_pause_ms: int = 100
    max_hold_ms: int = 150
    deadline_s: float | None = None
    prepare_timeout_s: float = 60.0
    save_timeout_s: float = 3600.0
    compress: bool = False
    description: str = ''
    properties: dict = dataclasses.field(default_factory=dict)
    group_id: str = ''
    group_name: str = ''
    project_id: str = ''
    user_id: str = ''
    request_id: str = ''
    record_delays_s: dict = dataclasses.field(default_factory=dict)
    names: dict = dataclasses.field(default_factory=dict)
    domains: dict = dataclasses.field(default_factory=dict)
    disk: str = 'backup'
    unique_name: bool = True
    quotas: tuple[tuple[str, str, int], ...] = ()
    must_fit: Callable[[Collection], None] | None = None
    keep_failed: int | None = None
    context: dict = dataclasses.field(default_factory=dict)
    marker_dscp: tuple[int, ...] = MARKER_DSCP
    addresses: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def check(self) -> None:
        """Nothing, where the request can be looked at more closely.

        :raises Invalid: names what is wrong
        """
        if self.name or not self.group_name:
            check_name(self.name)
        check_texts(self.description, self.properties)
        if not self.members:
            raise exception.EmptyGroup()
        seen = set()
        for member in self.members:
            if member in seen:
                raise exception.DuplicateMember(member=member[0])
            seen.add(member)
        if self.gate not in GATES:
            raise exception.InvalidValue(name='gate', reason=f'{self.gate} is none of '
                                         f'{", ".join(GATES[:-1])}')
        if self.gate == MARKER and len(set(self.marker_dscp)) < max(2, len(self.marker_dscp)):
            raise exception.InvalidValue(
                name='marker_dscp', reason='name two code points or more for marks, each once: '
                'two snapshots in turn must not have the same')
        if self.disk not in DISKS:
            raise exception.InvalidValue(name='disk', reason=f'{self.disk} is not possible yet; '
                                         f'{", ".join(DISKS)} is')
        for name in ('max_pause_ms', 'max_hold_ms'):
            _check_range(name, getattr(self, name), 1, MAX_LIMIT_MS, 'ms')
        if self.deadline_s is not None:
            _check_range('deadline_s', self.deadline_s, 0.001, MAX_DEADLINE_S, 's')


def name_of(request: CreateRequest, epoch: int) -> str:
    """The name asked for, or one made from the group's."""
    return request.name or f'{request.group_name[:MAX_NAME - 21]}-{epoch}'


def check_name(name: str) -> None:
    """Nothing, where ``name`` can name a snapshot.

    :raises InvalidValue:
    """
    if not name or name != name.strip() or not name.isprintable() or len(name) > MAX_NAME:
        raise exception.InvalidValue(
            name='name', reason=f'1 to {MAX_NAME} printable characters, no space around them')


def check_texts(description: str = '', properties: dict | None = None) -> None:
    """Nothing, where the database and the manifest have room for these.

    :raises InvalidValue:
    """
    if len(description) > MAX_DESCRIPTION:
        raise exception.InvalidValue(
            name='description', reason=f'at most {MAX_DESCRIPTION} characters')
    if len(json.dumps(properties or {})) > MAX_PROPERTIES_BYTES:
        raise exception.InvalidValue(
            name='properties', reason=f'at most {MAX_PROPERTIES_BYTES} bytes in all, as JSON')


def choose_gate(wanted: str, verdicts: dict[str, dict]) -> str:
    """The gate for all hosts: ``wanted``, or with ``auto`` the best that all can do.

    :param verdicts: by host: ``gates`` and ``findings``, of each what it ``rules_out``
    :raises Refused: a member cannot be snapshotted at all
    :raises GateNotPossible: not with this gate
    """
    findings = [each for verdict in verdicts.values() for each in verdict['findings']]
    for finding in findings:
        if SNAPSHOT in finding['rules_out']:
            raise exception.Refused(member=finding['member'], device=finding['device'],
                                    cause=finding['cause'], remedy=finding['remedy'])
    for gate in PREFERENCE if wanted == 'auto' else (wanted,):
        if all(gate in verdict['gates'] for verdict in verdicts.values()):
            return gate
    for finding in findings:
        if wanted in finding['rules_out'] or wanted == 'auto':
            raise exception.GateNotPossible(
                gate=wanted, member=finding['member'],
                cause=f'{finding["device"]}: {finding["cause"]}; remedy: {finding["remedy"]}')
    raise exception.GateNotPossible(gate=wanted, member='a member', cause='its host cannot do it')


def _check_range(name, value, least, most, unit):
    if not math.isfinite(value) or not least <= value <= most:
        raise exception.InvalidValue(name=name, reason=f'{least} to {most} {unit}, not {value}')
