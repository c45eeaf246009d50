# SPDX-License-Identifier: Apache-2.0
"""Whose servers a group has, and what of that a snapshot or a restore cannot do with.

What Nova knows comes from `cells`, or from a test's stand-in; nothing here asks anybody.
"""

import dataclasses
from collections.abc import Collection, Iterable

from hotsnap_nova import exception
from hotsnap_nova.conductor import rpcapi

#: Of a host's nova-compute. FENCED: an operator or a fencing agent vouches that it is off. GONE:
#: Nova has no trace of such a host left.
UP, DOWN, FENCED, GONE = 'up', 'down', 'fenced', 'gone'


@dataclasses.dataclass(frozen=True)
class Server:
    """A server that exists.

    :ivar domain: libvirt's name of it
    :ivar host: empty: not placed yet, or shelved
    :ivar locked_by: of `rpcapi.LOCKED_BY`, or ''; None: it is not locked
    """

    id: str
    name: str
    domain: str
    host: str
    vm_state: str
    task_state: str | None
    project_id: str
    locked_by: str | None = None


@dataclasses.dataclass(frozen=True)
class Group:
    """A server group with those of its members that exist."""

    id: str
    name: str
    project_id: str
    servers: tuple[Server, ...]


def must_run(group: Group) -> None:
    """Nothing, where every member runs and nothing is being done to it.

    :raises EmptyGroup, MembersForeign, GuestNotRunning, GuestBusy:
    """
    if not group.servers:
        raise exception.EmptyGroup()
    must_be_of_project(group.servers, group.project_id)
    for server in group.servers:
        if not server.host or server.vm_state != 'active':
            raise exception.GuestNotRunning(member=server.name, state=server.vm_state)
        _must_be_idle(server)


def must_be_of_project(servers: Iterable[Server], project_id: str) -> None:
    """Nothing, where all are of the group's project: an admin may boot any into a group.

    :raises MembersForeign:
    """
    if foreign := [each.name for each in servers if each.project_id != project_id]:
        raise rpcapi.MembersForeign(members=', '.join(sorted(foreign)))


def must_be_unlocked(servers: Iterable[Server], may_unlock: Collection[str] | None) -> None:
    """Nothing, where none is locked by whose lock the caller may not take off.

    :param may_unlock: of `rpcapi.LOCKED_BY`; None: it is not known, and locks are not looked at
    :raises MembersLocked:
    """
    if may_unlock is None:
        return
    locked = [each.name for each in servers if each.locked_by is not None
              and (each.locked_by not in may_unlock if each.locked_by else not may_unlock)]
    if locked:
        raise rpcapi.MembersLocked(members=', '.join(sorted(locked)))


def must_answer(states: dict[str, str]) -> None:
    """Nothing, where Nova holds all these hosts to be up.

    :raises HostUnreachable:
    """
    for host, state in sorted(states.items()):
        if state != UP:
            raise exception.HostUnreachable(host=host, reason=f'its nova-compute is {state}')


def must_be_as_then(members: Iterable, servers: dict[str, Server], group: Group | None,
                    states: dict[str, str], ignore_new: bool) -> dict[str, str]:
    """Where its members are now, by id, where a group can go back to its snapshot.

    :param members: of the snapshot's row
    :param servers: those of them that exist, by id
    :param group: None: it was deleted, and nobody can have joined it
    :param states: of all hosts, then and now
    :raises MembersDeleted, MembersAdded, GuestNotRunning, GuestBusy:
    :raises HostUnreachable: it may still run a member
    """
    members = tuple(members)
    if gone := [each.name for each in members if each.member_id not in servers]:
        raise rpcapi.MembersDeleted(members=', '.join(sorted(gone)))
    then = {each.member_id for each in members}
    added = [each.name for each in group.servers if each.id not in then] if group else []
    if added and not ignore_new:
        raise rpcapi.MembersAdded(members=', '.join(sorted(added)))
    for host, state in sorted(states.items()):
        if state == DOWN:
            raise exception.HostUnreachable(
                host=host, reason='its nova-compute is down, and it may still run a member; '
                                  'repair it, or fence it and force it down')
    for server in servers.values():
        if not server.host:
            raise exception.GuestNotRunning(member=server.name, state=server.vm_state)
    must_answer({each.host: states[each.host] for each in servers.values()})
    for server in servers.values():
        _must_be_idle(server)
    return {each.member_id: servers[each.member_id].host for each in members}


def _must_be_idle(server):
    if server.task_state:
        raise exception.GuestBusy(member=server.name, reason=f'it is {server.task_state}')
