# SPDX-License-Identifier: Apache-2.0
"""What Nova's API asks of the coordinator.

Each method has one endpoint of its name, wrapped in ``rpc.answers``. The
caller has authorised the request; the coordinator owns all the rest: quota,
membership, preflight, status. It acts in the name of the context, a dictionary
as ``nova.context.RequestContext.to_dict`` makes it, and keeps its request id.

A snapshot travels as a dictionary of these keys; more may come::

    id, name, description, properties      as its user gave them
    group_id, group_name                   as they were when it was taken
    project_id, user_id, request_id        project: the group's own
    status                                 STATUSES
    phase                                  of what goes on; '' where nothing does
    gate, disk, epoch                      what was chosen, never 'auto'
    created_at, updated_at                 2026-01-31T12:00:00Z
    skew_ms                                None until the cut stands
    error                                  None or {code, message, member, host}: why
                                           it is in error; member is a server's id
    last_action                            None or {name, status, started_at,
                                           finished_at, request_id, error, result, hosts}:
                                           name 'restore' or 'verify', status ACTION_STATUSES,
                                           result of verify {files, size_bytes}, of restore
                                           kept_present, the id of the snapshot made before it,
                                           and warnings, where there are any: of each {member,
                                           name, host, device, cause, remedy}, of the group
                                           with '' as member; hosts those that its error may
                                           name
    members                                of each {id, name, host, pause_ms, wait_ms, hold_ms,
                                           size_bytes, done_bytes, total_bytes}; None where
                                           not known yet

Long work is begun and shown in the row before the answer, so whoever asks
again after the answer sees it under way or over.

Version history:

* 1.0  create, get, list, update, delete, restore, verify, abort, reset_status, check
* 1.1  parts, forget: for the operator's command, and not in the API
* 1.2  restore takes ``drop_internal_snapshots`` and ``keep_present``
"""

import oslo_messaging

from hotsnap_nova import exception, rpc

TOPIC = 'hotsnap-conductor'
VERSION = '1.2'
#: What the API asks for, of coordinators that may be older.
_API_VERSION = '1.0'
_PARTS_VERSION = '1.1'
_RESTORE_VERSION = '1.2'

STATUSES = ('creating', 'available', 'restoring', 'deleting', 'error', 'error_deleting')
#: What `reset_status` may set.
RESETTABLE = ('available', 'error')
#: In a caller's context: whose locks of servers the caller may take off, of ``LOCKED_BY``. Where
#: an API of before does not say so, locks are not looked at, as then.
MAY_UNLOCK = 'hotsnap_may_unlock'
#: Who locks servers; '' where Nova has not kept that.
LOCKED_BY = ('owner', 'admin')
ACTION_STATUSES = ('running', 'done', 'failed')
GATES = ('auto', 'hold', 'barrier', 'marker')
DISKS = ('backup',)

#: Of the database alone.
_SHORT_S = 30.0
#: They change nothing.
_LOOKS = ('get', 'list', 'check', 'parts')
#: Hosts are asked, too: membership and preflight.
HOSTS_S = 60.0


class GroupNotFound(exception.Invalid):
    code = 'group_not_found'
    http_status = 404
    message_format = 'There is no server group %(group)s.'


class MembersAdded(exception.Invalid):
    """Servers joined the group after the snapshot; a restore would leave them where they are."""

    code = 'members_added'
    http_status = 409
    message_format = ('Since the snapshot servers joined the group: %(members)s. Ask to ignore '
                      'them, and they keep running as they are.')


class MembersDeleted(exception.Invalid):
    code = 'members_deleted'
    http_status = 409
    message_format = 'Members of the snapshot were deleted: %(members)s.'


class MembersForeign(exception.Invalid):
    """Who may snapshot a group may not therefore read the memory of another project's server."""

    code = 'members_foreign'
    http_status = 409
    message_format = 'Members belong to another project than the group: %(members)s.'


class MembersLocked(exception.Invalid):
    """Their owner, or an administrator, wants them left as they are."""

    code = 'members_locked'
    http_status = 409
    message_format = ('Members are locked, and you may not unlock them: %(members)s. Have them '
                      'unlocked first.')


class ConductorApi:
    """Calls any coordinator; its errors are raised as they were there.

    :param transport: of the API's cell
    :param context: in whose name, as a dictionary
    :raises Unavailable: from each method: no coordinator answered; whether it
        was done is not known
    """

    def __init__(self, transport, context: dict):
        self._client = rpc.Client(transport, TOPIC, _API_VERSION, context, dated=True)

    def create(self, group: str, *, name: str | None, description: str, properties: dict,
               gate: str, disk: str) -> dict:
        """The snapshot that is now being made.

        :param group: id
        :param name: None: made from the group's name
        :raises GroupNotFound, EmptyGroup, OverQuota, Refused, GateNotPossible, NameTaken:
            nothing was touched
        :raises GuestNotRunning, GuestBusy, MembersForeign: likewise
        """
        return self._call('create', HOSTS_S, group=group, name=name, description=description,
                          properties=properties, gate=gate, disk=disk)

    def get(self, snapshot: str) -> dict:
        """The snapshot of this id; names are not looked at, projects neither.

        :raises SnapshotNotFound:
        """
        return self._call('get', _SHORT_S, snapshot=snapshot)

    def list(self, *, filters: dict, limit: int, marker: str | None, detail: bool) -> list[dict]:
        """Snapshots, newest first.

        :param filters: of group_id, status, name, project_id; exact
        :param marker: id of the last one of the page before
        :param detail: with members
        :raises SnapshotNotFound: the marker is none
        """
        return self._call('list', _SHORT_S, filters=filters, limit=limit, marker=marker,
                          detail=detail)

    def update(self, snapshot: str, values: dict) -> dict:
        """The snapshot with new name, description or properties (these as a whole).

        :raises SnapshotNotFound, NameTaken:
        """
        return self._call('update', _SHORT_S, snapshot=snapshot, values=values)

    def delete(self, snapshot: str, force: bool) -> None:
        """Begin to delete.

        :param force: also one that is being made or restored, and without waiting for hosts
            that do not answer: they discard their part when they return
        :raises SnapshotNotFound, SnapshotBusy:
        """
        self._call('delete', _SHORT_S, snapshot=snapshot, force=force)

    def restore(self, snapshot: str, ignore_new_members: bool,
                drop_internal_snapshots: bool = False, keep_present: str | None = None) -> None:
        """Begin to bring all members back to the cut.

        :param drop_internal_snapshots: those in the disks of today, and checkpoints, may go with
            them
        :param keep_present: the name of a snapshot of the members that is made first; where it
            fails nothing is restored. Refused is then also whatever `create` refuses
        :raises SnapshotNotFound, SnapshotBusy, MembersAdded, MembersDeleted, MembersMoved,
            MembersForeign, MembersLocked:
            nothing was touched
        :raises Refused, GuestBusy: likewise
        :raises HostUnreachable: likewise; a host that does not answer may still run its members
        :raises HostTooOld: the coordinator cannot be told of either
        """
        more: dict = {'drop_internal_snapshots': True} if drop_internal_snapshots else {}
        if keep_present:
            more['keep_present'] = keep_present
        if more:    # of which coordinators of before that version know nothing
            more['version'] = _RESTORE_VERSION
        self._call('restore', HOSTS_S, snapshot=snapshot, ignore_new_members=ignore_new_members,
                   **more)

    def verify(self, snapshot: str) -> None:
        """Begin to read everything kept and compare it with what was written.

        :raises SnapshotNotFound, SnapshotBusy:
        """
        self._call('verify', _SHORT_S, snapshot=snapshot)

    def abort(self, snapshot: str) -> None:
        """Give up a snapshot that is being made; it ends in ``error``.

        :raises SnapshotNotFound:
        :raises SnapshotBusy: it is not being made
        """
        self._call('abort', _SHORT_S, snapshot=snapshot)

    def reset_status(self, snapshot: str, status: str) -> None:
        """Set the status and nothing else.

        :param status: RESETTABLE
        :raises SnapshotNotFound:
        """
        self._call('reset_status', _SHORT_S, snapshot=snapshot, status=status)

    def check(self, group: str, gate: str, disk: str) -> dict:
        """What stands in the way of a snapshot; nothing is touched.

        :returns: {possible, restorable, gates, findings}: gates all members can do, and of each
            finding {member, name, host, device, cause, remedy, rules_out}: gates, 'snapshot' or
            'restore', or nothing, where it warns
        :raises GroupNotFound, EmptyGroup, MembersForeign:
        """
        return self._call('check', HOSTS_S, group=group, gate=gate, disk=disk)

    def parts(self, host: str) -> tuple[dict, ...]:
        """What a host has of snapshots and restores: see `parts.of`.

        :raises HostTooOld: the host cannot say, or the coordinator cannot ask
        """
        return tuple(self._call('parts', HOSTS_S, version=_PARTS_VERSION, at_host=host))

    def forget(self, host: str, part: str) -> bool:
        """Whether a part that nobody is to end any more has ended on its host: see `parts.forget`.

        :raises SnapshotNotFound, SnapshotBusy:
        :raises HostTooOld: likewise
        """
        return self._call('forget', HOSTS_S, version=_PARTS_VERSION, at_host=host,
                          part=part)

    def _call(self, method, timeout_s, **kwargs):
        try:
            return self._client.call(None, method, timeout_s, **kwargs)
        except exception.HostUnreachable as exc:
            if not isinstance(exc.__cause__, oslo_messaging.MessagingException):
                raise    # the coordinator is well, a host of its is not
            raise exception.Unavailable(
                'The service for snapshots of server groups does not answer.' + (
                    '' if method in _LOOKS else ' It may still do what was asked for: look at '
                    'the snapshots.')) from exc
