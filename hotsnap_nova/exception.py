# SPDX-License-Identifier: Apache-2.0
"""Every error a caller of this project can meet.

The four branches say who acts::

    HotsnapError
    ├── Invalid      the user changes the request                (400)
    ├── Conflict     the user tries again, perhaps later         (409)
    ├── Unavailable  the operator repairs something              (503)
    └── Bug          we do: report it with the request id        (500)

``code`` is stable: programs may compare it, and it never changes its meaning.
libvirt's, QEMU's and the operating system's errors are translated once, in
their adapter, ``from exc``.
"""

#: Characters: as JSON it fits into a column of 64 KiB with all that is around it.
MAX_MESSAGE = 4000


class HotsnapError(Exception):
    """An error with a stable code, an HTTP status and a one-line message.

    ``kwargs`` are kept so that an error crosses RPC unchanged: it is rebuilt at the
    far end from its message and its keyword arguments. The message is made once, here,
    and its text is never looked into: who wants to know about whom it is asks ``kwargs``.

    :param message: replaces the class's own; already formatted
    :param kwargs: what the class's ``message_format`` names. Of a value with an ``id``, as a
        member is, the message has the name people know and ``kwargs`` the id
    """

    code = 'error'
    http_status = 500
    message_format = 'An unknown error occurred.'

    def __init__(self, message: str | None = None, **kwargs):
        self.kwargs = {key: getattr(value, 'id', value) for key, value in kwargs.items()}
        if message is None:
            message = self.message_format % kwargs
        if len(message) > MAX_MESSAGE:
            message = message[:MAX_MESSAGE - 2] + ' …'
        super().__init__(message)

    def to_dict(self) -> dict:
        """What goes on the wire and into the database: code, message, details."""
        return {
            'code': self.code,
            'message': str(self),
            'details': {key: _plain(value) for key, value in self.kwargs.items()},
        }


def _plain(value):
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


class Invalid(HotsnapError):
    """The request cannot be done as it stands; the user changes it."""

    code = 'invalid'
    http_status = 400
    message_format = 'The request is not valid.'


class Conflict(HotsnapError):
    """Something else is going on, or went on meanwhile; trying again may work."""

    code = 'conflict'
    http_status = 409
    message_format = 'The request conflicts with something in progress.'


class Unavailable(HotsnapError):
    """Something the request needs is broken, full or away; the operator acts."""

    code = 'unavailable'
    http_status = 503
    message_format = 'A service or resource is not available.'


class Bug(HotsnapError):
    """We reached a state that we hold to be impossible."""

    code = 'bug'
    http_status = 500
    message_format = 'Internal error: %(reason)s'


# --- Invalid -----------------------------------------------------------------


class InvalidValue(Invalid):
    code = 'invalid_value'
    message_format = '%(name)s: %(reason)s'


class EmptyGroup(Invalid):
    code = 'empty_group'
    message_format = 'The group has no members.'


class DuplicateMember(Invalid):
    code = 'duplicate_member'
    message_format = 'Member %(member)s is named more than once.'


class MemberNotFound(Invalid):
    code = 'member_not_found'
    http_status = 404
    message_format = 'There is no server or domain %(member)s.'


class SnapshotNotFound(Invalid):
    code = 'snapshot_not_found'
    http_status = 404
    message_format = 'There is no snapshot %(snapshot)s.'


class NameNotUnique(Invalid):
    code = 'name_not_unique'
    http_status = 409
    message_format = 'More than one snapshot is named %(name)s; use its id.'


class NameTaken(Invalid):
    code = 'name_taken'
    http_status = 409
    message_format = 'A snapshot named %(name)s exists already.'


class OverQuota(Invalid):
    code = 'over_quota'
    http_status = 403
    message_format = 'Quota exceeded: %(used)d of %(limit)d group snapshots of %(scope)s exist.'


class GuestNotRunning(Invalid):
    code = 'guest_not_running'
    http_status = 409
    message_format = 'Member %(member)s is not running (%(state)s).'


class Refused(Invalid):
    """The preflight found what rules a snapshot out; nothing was touched."""

    code = 'refused'
    message_format = '%(member)s, %(device)s: %(cause)s. Remedy: %(remedy)s.'


class MembersMoved(Invalid):
    """A host can restore what its store has; stores may be shared or not."""

    code = 'members_moved'
    http_status = 409
    message_format = ('Members run on another host than in the snapshot, and its store does not '
                      'have what was kept of them: %(members)s. Migrate them back first.')


class GateNotPossible(Invalid):
    code = 'gate_not_possible'
    message_format = 'Gate %(gate)s is not possible for %(member)s: %(cause)s.'


# --- Conflict ----------------------------------------------------------------


class GuestBusy(Conflict):
    code = 'guest_busy'
    message_format = 'Member %(member)s is busy: %(reason)s.'


class GuestChanged(Conflict):
    """The guest or its devices are no longer those that were prepared."""

    code = 'guest_changed'
    message_format = 'Member %(member)s changed after it was prepared: %(reason)s.'


class SnapshotBusy(Conflict):
    code = 'snapshot_busy'
    message_format = 'Snapshot %(snapshot)s is %(status)s.'


class StaleGeneration(Conflict):
    """Another coordinator changed the row first; the loser stands down."""

    code = 'stale_generation'
    message_format = ('Snapshot %(snapshot)s is no longer at generation %(generation)d; '
                      'another coordinator decided.')


class LeaseHeld(Conflict):
    code = 'lease_held'
    message_format = 'Snapshot %(snapshot)s is in the hands of %(owner)s.'


class CutExpired(Conflict):
    """The deadline passed before the cut was whole; the guests run."""

    code = 'cut_expired'
    message_format = 'The deadline passed while %(phase)s.'


class PauseTooLong(Conflict):
    code = 'pause_too_long'
    message_format = ('Member %(member)s was paused for %(pause_ms).1f ms; '
                      'the limit is %(max_pause_ms)d ms.')


class GateOpened(Conflict):
    """A closed gate's lease ran out before the release."""

    code = 'gate_opened'
    message_format = 'The gate of %(member)s opened by itself after %(hold_ms).1f ms.'


class CutNotClean(Conflict):
    """The guest stopped or resumed more often than one cut accounts for."""

    code = 'cut_not_clean'
    message_format = ('Member %(member)s was stopped %(stops)d and resumed %(resumes)d times '
                      'during its cut: %(reason)s.')


class Aborted(Conflict):
    code = 'aborted'
    message_format = 'The snapshot was aborted by %(who)s.'


# --- Unavailable -------------------------------------------------------------


class HostUnreachable(Unavailable):
    code = 'host_unreachable'
    message_format = 'Host %(host)s does not answer: %(reason)s.'


class HostTooOld(Unavailable):
    code = 'host_too_old'
    message_format = 'Host %(host)s runs a version that knows no %(method)s: upgrade it.'


class HypervisorError(Unavailable):
    """libvirt or QEMU refused or failed; the guest runs."""

    code = 'hypervisor_error'
    message_format = 'Member %(member)s: %(reason)s.'


class CleanupIncomplete(Unavailable):
    """Decided, but a host fails or hangs at what the decision asks of it."""

    code = 'cleanup_incomplete'
    message_format = ('Snapshot %(snapshot)s: %(decision)s is decided, but not every host has '
                      'done its part yet.')


class MemberLeft(Unavailable):
    """A decided restore could do nothing for one member; all others went on."""

    code = 'member_left'
    message_format = 'Member %(member)s was left as it is: %(reason)s.'


class MemberRebooted(Unavailable):
    """A restore was undone, and what ran before runs again: on its old disks, from a boot."""

    code = 'member_rebooted'
    message_format = ('Member %(member)s had been stopped for the restore and was started again '
                      'from its disks as they were then: it has booted anew.')


class RestoreIncomplete(Unavailable):
    """A restore was decided, and went on without members or hosts that failed at it."""

    code = 'restore_incomplete'
    message_format = 'The group is back at the cut, but not wholly: %(left)s.'


class RestoreNotUndone(Unavailable):
    """A restore failed and a member had meanwhile been started by somebody else."""

    code = 'restore_not_undone'
    message_format = 'The restore failed (%(reason)s) and was undone, but %(left)s.'


class TargetFailed(Unavailable):
    """Where the snapshot is written is full, broken or hangs; the guest does not notice."""

    code = 'target_failed'
    message_format = ('Member %(member)s, %(device)s: the snapshot could not be written: '
                      '%(reason)s.')


class NotEnoughSpace(Unavailable):
    code = 'not_enough_space'
    message_format = '%(place)s has %(free_bytes)d bytes free; %(needed_bytes)d are needed.'


class StoreUnavailable(Unavailable):
    code = 'store_unavailable'
    message_format = 'Store %(store)s: %(reason)s.'


class NovaUnavailable(Unavailable):
    """What Nova knows of servers and hosts is in its own databases, and one is away."""

    code = 'nova_unavailable'
    message_format = 'What Nova knows cannot be read: %(reason)s.'


class DatabaseUnavailable(Unavailable):
    code = 'database_unavailable'
    message_format = 'The database cannot be used: %(reason)s.'


class SnapshotDamaged(Unavailable):
    """What the store holds is not what was put there."""

    code = 'snapshot_damaged'
    message_format = 'Snapshot %(snapshot)s, member %(member)s, file %(file)s: %(reason)s.'


class ManifestDamaged(Unavailable):
    code = 'manifest_damaged'
    message_format = 'Snapshot %(snapshot)s: its manifest cannot be used: %(reason)s.'


class ManifestTooNew(Unavailable):
    code = 'manifest_too_new'
    message_format = ('Snapshot %(snapshot)s has format version %(found)s; this software reads up '
                      'to %(known)d: upgrade it.')
