# SPDX-License-Identifier: Apache-2.0
"""What a host does at each step of a restore, and whose guests it may do it to.

======== =====================================================================================
prepare  members locked and claimed from their owner, every digest proved, files placed
stop     every old member proved stopped
start    disks swapped, members started, paused
resume   members run
finish   what was replaced is kept aside, members given back to their owner
undo     old disks back, what ran before runs again
clear    what the undo had to know is dropped, members given back
======== =====================================================================================

Each may be repeated, in this process or in the next one. The locks are let go of when the end is
on record.
"""

import concurrent.futures
import dataclasses
import json
import os
import threading
from collections.abc import Callable, Collection, Iterable

from oslo_log import log as logging

from hotsnap_nova import exception, unwaited
from hotsnap_nova.compute import claims, locks, orders, owner, proofs, translate
from hotsnap_nova.protocol import messages
from hotsnap_nova.protocol.restore import commands
from hotsnap_nova.protocol.restore import messages as restores
from hotsnap_nova.storage import base
from hotsnap_nova.storage import manifest as manifests
from hotsnap_nova.virt import records

LOG = logging.getLogger(__name__)

_BEFORE_DECISION = frozenset(restores.BEFORE_DECISION)
_UNDONE = 'the restore was undone'

Tell = Callable[[int, int], None]


class Steps:
    """Does the steps on one host; see `restores.Restores`."""

    def __init__(self, engine, store: base.Store, kept: orders.Orders,
                 domain_locks: locks.Locks, guests_owner: owner.Owner):
        self._engine = engine
        self._store = store
        self._orders = kept
        self._claims = claims.Claims(domain_locks)
        self._owner = guests_owner

    def check(self, restore: str, share: restores.Share) -> tuple[records.Finding, ...]:
        """What its user should know of a share that can be restored; touches nothing.

        :raises HotsnapError: what stands in the way
        """
        verdict = self._engine.restore_check(_work(restore, share, self._read_members(share)))
        for finding in verdict.findings:
            if finding.refuses:
                raise exception.Refused(member=finding.member, device=finding.device,
                                        cause=finding.cause, remedy=finding.remedy)
        return verdict.findings

    def do(self, command: commands.CarryOut, withdrawn: Collection[str],
           hasten: threading.Event, tell: Tell,
           faults: Iterable[restores.MemberFault]) -> records.RestoreOutcome:
        """Do one step for all members but those withdrawn.

        :param hasten: it is of no use any more
        :param tell: called with (done_bytes, total_bytes) now and then
        :param faults: of members that have already been left off
        :raises HotsnapError: it was not done, or in part
        """
        self._orders.claim(command.restore)

        def wanted(done_bytes, total_bytes):
            _must_be_of_use(hasten)
            tell(done_bytes, total_bytes)
        if command.step in _BEFORE_DECISION:
            _must_be_of_use(hasten)
        do = getattr(self, f'_{command.step}')
        return do(command, tuple(sorted(withdrawn)), wanted, hasten, tuple(faults))

    # -- the steps -----------------------------------------------------------------------------

    def _prepare(self, command, withdrawn, wanted, hasten, _faults):
        self._claim(command, withdrawn)
        # Reading can be abandoned: a store that hangs must not keep the guests.
        members = _abandonable(hasten, lambda: self._proved_members(command.share, wanted))
        self._orders.keep(command.restore, members)
        return self._engine.restore_prepare(self._work(command, withdrawn), wanted)

    def _stop(self, command, withdrawn, *_):
        self._claim(command, withdrawn)
        return self._engine.restore_stop(self._work(command, withdrawn))

    def _start(self, command, withdrawn, wanted, *_):
        self._claim(command, withdrawn)
        return self._engine.restore_start(self._work(command, withdrawn), wanted)

    def _resume(self, command, withdrawn, *_):
        if not self._is_touched(command):
            if _options(command.share).get('ended_where_unknown'):
                return records.RestoreOutcome()
            return records.RestoreOutcome(faults=tuple(
                records.RestoreFault(member.id, exception.MemberLeft(
                    member=translate.spec(member),
                    reason='this host knows nothing of the restore'))
                for member in command.share.members))
        self._must_lock(command, withdrawn)
        return self._engine.restore_resume(self._work(command, withdrawn))

    def _finish(self, command, withdrawn, _wanted, _hasten, faults):
        done = records.RestoreOutcome()
        if self._is_touched(command):
            done = self._engine.restore_finish(self._lockable(command, withdrawn))
        self._owner.end(command.restore, faults={
            each.member: str(each.error) for each in done.faults} | {
            each.member: each.cause.text or each.cause.code for each in faults})
        return done

    def _undo(self, command, withdrawn, *_):
        if not self._is_touched(command):
            return records.RestoreOutcome()
        return self._engine.restore_undo(self._lockable(command, withdrawn))

    def _clear(self, command, withdrawn, *_):
        if self._is_touched(command):
            self._engine.restore_clear(self._lockable(command, withdrawn))
        self._owner.end(command.restore, _UNDONE)
        return records.RestoreOutcome()

    # -- members -------------------------------------------------------------------------------

    def _is_touched(self, command):
        """Whether anything was done here for this restore; known without the store."""
        if self._orders.kept(command.restore) is not None:
            return True
        # It came no further than to the proof of digests, or the order is lost.
        return self._engine.restore_touched(
            _work(command.restore, command.share, _bare(command.share)))

    def _work(self, command, withdrawn):
        kept = self._orders.kept(command.restore)
        if kept is None:    # the order was lost
            try:
                kept = self._read_members(command.share)
            except exception.HotsnapError as exc:
                LOG.warning('Restore %(id)s: what was done is ended without the snapshot: '
                            '%(error)s', {'id': command.restore, 'error': exc})
                kept = _bare(command.share)
            self._orders.keep(command.restore, kept)
        return _work(command.restore, command.share, kept, withdrawn, command.notes)

    def _read_members(self, share):
        """What the manifest says of them, as `orders` keeps it; see `_load`."""
        return self._members_in(self._load(share), share)

    def _load(self, share):
        """The manifest, which says of the members what they were told to be.

        :raises MembersMoved: this store has not got all of them
        :raises SnapshotDamaged: somebody else wrote it, whatever its digest says
        """
        try:
            manifest = self._store.load(share.snapshot)
        except exception.SnapshotNotFound:
            raise _moved(share, {member.id for member in share.members}) from None
        proofs.must_hold(manifest, _options(share).get('proofs', {}))
        return manifest

    def _members_in(self, manifest, share):
        """:raises MembersMoved: this store has not got all of them"""
        wanted = {member.id: member for member in share.members}
        found = []
        for member in manifests.kept_members(manifest):
            if member['id'] in wanted:
                file = self._store.path(share.snapshot, member['id'], member['files'][0]['name'])
                found.append({'id': member['id'], 'name': member['name'],
                              'folder': os.path.dirname(file),
                              'facts': {**member, 'member': member['id']}})
        if missing := wanted.keys() - {each['id'] for each in found}:
            raise _moved(share, missing)
        return found

    def _proved_members(self, share, wanted):
        manifest = self._load(share)
        found = self._members_in(manifest, share)
        self._store.verify(share.snapshot,
                           lambda _member, _file, done, total: wanted(done, total),
                           {each['id'] for each in found}, manifest)
        return found

    # -- whose they are ------------------------------------------------------------------------

    def gone(self, member_ids: Iterable[str]) -> frozenset[str]:
        """Ids of those that are no longer this host's.

        :raises Unavailable: it cannot be known just now
        """
        return self._owner.gone(tuple(member_ids))

    def lock(self, restore: str, members: Iterable[messages.Member]) -> None:
        """Lock them again, as far as nobody else has."""
        self._claims.lock(restore, members)

    def unlock(self, restore: str) -> None:
        """Let go of all its members."""
        self._claims.unlock(restore)

    def _claim(self, command, withdrawn):
        """Have all members, by lock and of their owner.

        :raises HotsnapError: somebody else has one, whom it names
        """
        self._must_lock(command, withdrawn)
        self._owner.begin_restore(
            command.restore, tuple(each for each in translate.specs(command.share.members)
                                   if each.id not in withdrawn),
            _options(command.share).get('context') or {})

    def _must_lock(self, command, withdrawn):
        ours = self._claims.lock(command.restore, command.share.members)
        for member in command.share.members:
            if member.id not in ours and member.id not in withdrawn:
                raise exception.GuestBusy(member=translate.spec(member),
                                          reason='a snapshot or restore has it')

    def _lockable(self, command, withdrawn):
        """The work of an end, without members that are another's and were never touched."""
        work = self._work(command, withdrawn)
        ours = self._claims.lock(command.restore, command.share.members)
        left_out = set()
        for member in work.members:
            if member.spec.id not in ours and member.spec.id not in withdrawn:
                if self._engine.restore_touched(dataclasses.replace(work, members=(member,))):
                    raise exception.GuestBusy(member=member.spec,
                                              reason='a snapshot or restore has it')
                left_out.add(member.spec.id)
        return dataclasses.replace(work, members=tuple(
            member for member in work.members if member.spec.id not in left_out))


def _must_be_of_use(hasten):
    if hasten.is_set():
        raise exception.Aborted(who='the coordinator, or for the owner of a guest')


def _abandonable(hasten, read):
    """What ``read`` returns, unless it is of no use before it has.

    :raises Aborted: it is still at it, and its result is dropped
    """
    reading = unwaited.begin(read, 'hotsnap-restore-read')
    while not concurrent.futures.wait([reading], 0.1).done:
        _must_be_of_use(hasten)
    return reading.result()


def _work(restore, share, members, withdrawn=(), notes=''):
    """:param members: as `orders` keeps them, with libvirt's names"""
    called = {member.id: member.name for member in share.members}
    return records.RestoreWork(
        snapshot_id=share.snapshot, restore_id=restore, paused=share.paused,
        drops_internal_snapshots=bool(_options(share).get('drop_internal_snapshots')),
        members=tuple(records.RestoreMember(
            spec=records.MemberSpec(each['id'], called.get(each['id']) or each['name']),
            folder=each['folder'], facts=each['facts']) for each in members),
        withdrawn=tuple(withdrawn), notes=json.loads(notes or '{}'))


def _bare(share):
    """The members as they are known without the store."""
    return [{'id': member.id, 'name': member.name, 'folder': '', 'facts': {}}
            for member in share.members]


def _options(share):
    return json.loads(share.options)


def _moved(share, ids):
    return exception.MembersMoved(members=', '.join(sorted(
        str(translate.spec(member)) for member in share.members if member.id in ids)))
