# SPDX-License-Identifier: Apache-2.0
"""Nova as the owner of guests: claimed by the instance's task_state, as Nova claims them itself.

While one is set, Nova's API answers 409 to what would disturb us, and Nova's
power state synchronisation and lifecycle events leave the instance alone. What
it does not stop is a deletion or an evacuation: the driver ends our part then.
"""

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Collection, Mapping

import oslo_messaging
from nova import context as nova_context
from nova import exception as nova_exception
from nova import objects
from nova.compute import power_state, task_states, vm_states
from nova.objects import fields
from oslo_log import log as logging

from hotsnap_nova import exception
from hotsnap_nova.compute import owner
from hotsnap_nova.nova import reports
from hotsnap_nova.virt import records

LOG = logging.getLogger(__name__)

#: What payloads of notifications show; loaded at once, not one by one.
_ATTRIBUTES = ['metadata', 'system_metadata', 'flavor', 'info_cache', 'security_groups']
#: vm_state by what the guest is found to be after a restore.
_VM_STATES = {power_state.RUNNING: vm_states.ACTIVE, power_state.PAUSED: vm_states.PAUSED}
#: States of an evacuation by which the host that comes back destroys the guest, as Nova does
#: itself (`_destroy_evacuated_instances`), after us. One that failed is in none of them: such a
#: guest is nowhere else.
_LEAVING = ('accepted', 'pre-migrating', 'done')
#: An evacuation's tasks. Nova sets an instance's host at its end, when the guest runs elsewhere.
_BUILT_ANEW = frozenset({
    task_states.REBUILDING, task_states.REBUILD_BLOCK_DEVICE_MAPPING,
    task_states.REBUILD_SPAWNING})


@dataclasses.dataclass(frozen=True)
class _Kind:
    """What instances are claimed for.

    :ivar task_states: set one after the other; the last one is held
    """

    action: reports.Action
    vm_states: tuple[str, ...]
    task_states: tuple[str, ...]


_SNAPSHOT = _Kind(reports.SNAPSHOT, (vm_states.ACTIVE,),
                  (task_states.IMAGE_SNAPSHOT_PENDING, task_states.IMAGE_SNAPSHOT))
_RESTORE = _Kind(reports.RESTORE, (vm_states.ACTIVE, vm_states.STOPPED, vm_states.PAUSED),
                 (task_states.RESTORING,))


@dataclasses.dataclass
class _Claim:
    kind: _Kind
    context: nova_context.RequestContext
    instances: list[objects.Instance] = dataclasses.field(default_factory=list)
    whole: bool = False
    ending: threading.Lock = dataclasses.field(default_factory=threading.Lock)


class Instances(owner.Owner):
    """The instances of one host.

    :param host: as Nova calls it
    :param power_state_of: what an instance's guest is now; `power_state.NOSTATE` where that is
        not known
    """

    def __init__(self, host: str, power_state_of: Callable[[objects.Instance], int]):
        self._host = host
        self._power_state_of = power_state_of
        self._reports = reports.Reports(host)
        self._claims: dict[str, _Claim] = {}
        self._mutex = threading.Lock()

    def begin_snapshot(self, claim, members, caller):
        self._begin(claim, members, caller, _SNAPSHOT)

    def begin_restore(self, claim, members, caller):
        self._begin(claim, members, caller, _RESTORE)

    def gone(self, member_ids):
        context = nova_context.get_admin_context()
        with asking(self._host):
            found = objects.InstanceList.get_by_filters(
                context, {'uuid': list(member_ids), 'deleted': False})
            # Asked second: an evacuation sets the task before it is on record.
            leaving = {each.instance_uuid for each in objects.MigrationList.get_by_filters(
                context, {'source_compute': self._host, 'status': list(_LEAVING),
                          'migration_type': fields.MigrationType.EVACUATION})}
        here = {instance.uuid for instance in found
                if instance.host == self._host and instance.task_state not in _BUILT_ANEW}
        return frozenset(member_ids) - (here - leaving)

    def end(self, claim, error='', faults=None):
        if not (current := self._claims.get(claim)):
            return
        with current.ending:    # a deadline and a coordinator may want it at once
            failures = []
            for instance in tuple(current.instances):
                try:
                    self._give_back(claim, current, instance,
                                    error or (faults or {}).get(instance.uuid, ''))
                except exception.HotsnapError as exc:    # which keeps no other instance
                    failures.append(exc)
                else:
                    current.instances.remove(instance)
            if failures:
                raise failures[0]
            self._claims.pop(claim, None)

    def recover(self, under_way: Mapping[str, Collection[str] | None]) -> None:
        """Keep what a restore held when this service died and still needs; give back the rest.

        May be repeated until it succeeds.

        The coordinator goes on with a restore, or undoes it: up to then its guests are stopped
        or have another disk, and nobody else may work on them. Nova itself gives back what a
        snapshot held.

        :param under_way: ids of instances, by the restore that has begun and not ended; None:
            they are not known, and whoever they may be is left as it is
        :raises Unavailable: Nova's conductor or libvirt does not answer; all else is done
        """
        context, failures = nova_context.get_admin_context(), []
        restores = {uuid: claim for claim, uuids in under_way.items() for uuid in uuids or ()}
        kept = {instance.uuid for claim in self._claims.values() for instance in claim.instances}
        with asking(self._host):
            found = objects.InstanceList.get_by_host(context, self._host)
        for instance in found:
            # Nova restores deleted instances under this task state, too.
            if (instance.task_state != task_states.RESTORING or instance.uuid in kept
                    or instance.vm_state == vm_states.SOFT_DELETED):
                continue
            LOG.info('A restore of its group was interrupted', instance=instance)
            if instance.uuid not in restores and None in under_way.values():
                continue
            try:
                self._recover(context, instance, restores.get(instance.uuid))
            except exception.Unavailable as exc:    # which keeps no other instance
                failures.append(exc)
        if failures:
            raise failures[0]

    # --- inside ---

    def _begin(self, name, members, caller, kind):
        with self._mutex:
            claim = self._claims.setdefault(name, _Claim(kind, _context(caller)))
        if claim.whole:
            return
        claim.context = _context(caller)    # of one kept through a restart nobody knew it
        try:
            for member in members:
                if all(instance.uuid != member.id for instance in claim.instances):
                    claim.instances.append(self._take(name, claim, member))
            for task_state in kind.task_states[1:]:
                for instance in claim.instances:
                    with asking(instance.display_name):
                        instance.task_state = task_state
                        instance.save(expected_task_state=[kind.task_states[0]])
        except nova_exception.InstanceUpdateConflict as exc:
            self._undo(name, str(exc))
            raise exception.GuestBusy(member='of the group', reason=str(exc)) from exc
        except exception.HotsnapError as exc:
            self._undo(name, str(exc))
            raise
        claim.whole = True

    def _recover(self, context, instance, claim):
        with asking(instance.display_name):
            try:
                if claim:
                    self._keep(claim, objects.Instance.get_by_uuid(
                        context, instance.uuid, expected_attrs=_ATTRIBUTES))
                else:
                    self._settle(instance, task_states.RESTORING)
            except (nova_exception.InstanceNotFound, nova_exception.InstanceUpdateConflict) as exc:
                LOG.info('Deleted, or in other hands meanwhile: %s', exc, instance=instance)

    def _keep(self, name, instance):
        with self._mutex:
            claim = self._claims.setdefault(name, _Claim(_RESTORE, instance._context))
        claim.instances.append(instance)

    def _undo(self, name, why):
        # Where this fails too, the claim is kept, and ended with the discard that follows.
        with contextlib.suppress(exception.HotsnapError):
            self.end(name, why)

    def _take(self, claim_id, claim, member):
        with asking(member):
            try:
                instance = objects.Instance.get_by_uuid(
                    claim.context, member.id, expected_attrs=_ATTRIBUTES)
            except nova_exception.InstanceNotFound as exc:
                raise exception.MemberNotFound(member=member) from exc
            if instance.host != self._host:
                LOG.warning('It is on host %s now', instance.host, instance=instance)
                raise exception.GuestChanged(member=member, reason='it is on another host now')
            if instance.vm_state not in claim.kind.vm_states:
                raise exception.GuestNotRunning(member=member, state=instance.vm_state)
            if instance.task_state is not None:
                raise exception.GuestBusy(member=member, reason=_is_at(instance.task_state))
            instance.task_state = claim.kind.task_states[0]
            try:
                instance.save(expected_task_state=[None])
            except oslo_messaging.MessagingException:
                # It may have been done all the same: it is given back where it is found so.
                claim.instances.append(instance)
                raise
            except nova_exception.InstanceUpdateConflict as exc:
                instance.refresh()
                raise exception.GuestBusy(
                    member=member, reason=_is_at(instance.task_state)) from exc
        self._reports.began(claim.context, instance, claim.kind.action, claim_id)
        return instance

    def _give_back(self, name, claim, instance, error):
        with asking(instance.display_name):
            try:
                if claim.kind is _RESTORE:
                    self._settle(instance, *claim.kind.task_states)
                else:
                    instance.task_state = None
                    instance.save(expected_task_state=list(claim.kind.task_states))
            except (nova_exception.InstanceNotFound, nova_exception.InstanceUpdateConflict) as exc:
                # Deleted, evacuated or reset: it is no longer ours to give back.
                LOG.info('Not given back, for it changed hands: %s', exc, instance=instance)
                error = error or str(exc)
        self._reports.ended(claim.context, instance, claim.kind.action, name, error)

    def _settle(self, instance, *held):
        """What Nova says of it becomes what its guest is.

        :raises HypervisorError: that is not known: to say "stopped" of a guest that runs would
            let Nova stop it
        """
        found = self._power_state_of(instance)
        if found == power_state.NOSTATE:
            raise exception.HypervisorError(member=spec(instance),
                                            reason='libvirt does not say whether it runs')
        instance.power_state = found
        instance.vm_state = _VM_STATES.get(instance.power_state, vm_states.STOPPED)
        instance.task_state = None
        instance.save(expected_task_state=list(held))


def _context(caller):
    """An admin's, for only an admin may set states, in the caller's name."""
    if not caller.get('request_id'):
        return nova_context.get_admin_context()
    return nova_context.RequestContext(
        user_id=caller.get('user_id'), project_id=caller.get('project_id'),
        request_id=caller['request_id'], is_admin=True, overwrite=False)


def spec(instance) -> records.MemberSpec:
    """An instance as errors mention it."""
    return records.MemberSpec(instance.uuid, instance.display_name)


def _is_at(task_state):
    return f'Nova is at work on it ({task_state})'


@contextlib.contextmanager
def asking(about):
    """Nova's objects are had through its conductor. It may not answer, nor its database it.

    :raises HostUnreachable: so it is
    """
    try:
        yield
    except oslo_messaging.RemoteError as exc:
        # Its text has a statement's SQL and a traceback in it.
        raise exception.HostUnreachable(
            host='nova-conductor', reason=f'{about}: {exc.exc_type}') from exc
    except oslo_messaging.MessagingException as exc:
        raise exception.HostUnreachable(
            host='nova-conductor', reason=f'{about}: {type(exc).__name__}: {exc}') from exc
