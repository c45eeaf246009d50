# SPDX-License-Identifier: Apache-2.0
"""A host's side of a restore: steps that the coordinator orders, each repeatable.

======== ==========================================================================
check    what stands in the way; nothing is touched
prepare  members locked, every digest proved, files placed; the old members run on
stop     every old member proved stopped
start    disks swapped, members started, paused
resume   members run
finish   temporary files gone, members unlocked
undo     old disks back, members unlocked; only before the first resume
======== ==========================================================================

A restore that was undone, or whose guest its owner needs, goes no further,
whoever orders it: a coordinator that was slow, or was overtaken, may still do so.
"""

import dataclasses
import os
import threading
from collections.abc import Callable, Collection

from oslo_log import log as logging

from hotsnap_nova import exception
from hotsnap_nova.compute import locks, owner, stepwise_orders, translate
from hotsnap_nova.storage import base
from hotsnap_nova.storage import manifest as manifests
from hotsnap_nova.virt import records

LOG = logging.getLogger(__name__)

STEPS = ('check', 'prepare', 'stop', 'start', 'resume', 'finish', 'undo')
_BEFORE_DECISION = ('prepare', 'stop', 'start')
_ENDS = ('finish', 'undo')
_AT_END = ('resume', *_ENDS)
#: How long a guest's owner waits for the step that is at work on it.
_WITHDRAW_S = 30.0


class Restores:
    """Does the steps on one host.

    :param host: its name in manifests; unless it is told otherwise it restores its own members
    :param state_path: folder that survives a restart of the host
    :param host_locks: those that snapshots take their members with
    :param guests_owner: is asked for the guests, and told
    """

    def __init__(self, host: str, engine, store: base.Store, state_path: str,
                 host_locks: locks.Locks, guests_owner: owner.Owner | None = None):
        self._host = host
        self._engine = engine
        self._store = store
        self._orders = stepwise_orders.Orders(state_path)
        self._locks = host_locks
        self._owner = guests_owner or owner.Owner()
        self._locked: dict[str, set[str]] = {}
        self._unwanted: set[str] = set()
        self._withdrawn: dict[str, set[str]] = {}
        self._untouched: set[str] = set()
        self._works: dict[str, records.RestoreWork] = {}
        # A group that stands still must not wait while another's files are read.
        self._one_at_a_time: dict[str, threading.Lock] = {}

    def do(self, step: str, snapshot: str, restore_id: str, paused: bool,
           tell: Callable[[int, int], None], caller: dict | None = None,
           members: Collection[str] | None = None) -> list[str]:
        """Do one step.

        :param caller: in whose name, see `owner.Owner`; and his ``names`` of members
        :param members: ids of those that are here now; None: those that this host kept
        :returns: what an undo had to leave as it is, in words for the user
        :raises HotsnapError: the step was not done; `undo` is next
        """
        if step not in STEPS:
            raise exception.InvalidValue(name='step', reason=f'{step} is none of {STEPS}')
        if step == 'undo':
            self._unwanted.add(restore_id)    # a verification under way ends at once

        def proved(_member, _file, done, total):
            self._must_be_wanted(restore_id)
            tell(done, total)
        with self._turn(restore_id):
            if step in _BEFORE_DECISION:
                self._must_be_wanted(restore_id)
            # What was read at first stays, even through a restart: an undo must not
            # depend on the store.
            work = self._works.get(restore_id) or self._orders.read(restore_id)
            if work is None:
                try:
                    work = self._work(snapshot, restore_id, paused, members)
                except exception.SnapshotNotFound:
                    if step == 'check' and members:
                        raise _moved(members, caller or {}) from None
                    if step not in _ENDS:
                        raise
                    LOG.warning('Restore %s has ended here, or was never begun', restore_id)
                    return []
            called = _called(work, caller or {})
            with translate.in_users_words(self._engine, called):
                left = self._do(step, work, proved, caller or {}, members)
            names = translate.users_names(self._engine, called) if left else {}
            return [translate.renamed(words, names) for words in left]

    def withdraw(self, member_id: str) -> None:
        """Its owner needs this guest for something else: return when no restore is at work on it.

        One that is not decided yet will fail.

        :raises GuestBusy: it takes too long
        """
        for restore_id, members in tuple(self._locked.items()):
            if member_id in members:
                self._unwanted.add(restore_id)
                self._withdrawn.setdefault(restore_id, set()).add(member_id)
                turn = self._turn(restore_id)
                if not turn.acquire(timeout=_WITHDRAW_S):
                    raise exception.GuestBusy(member=member_id,
                                              reason='a restore is at work on it')
                turn.release()

    def _turn(self, restore_id):
        return self._one_at_a_time.setdefault(restore_id, threading.Lock())

    def _must_be_wanted(self, restore_id):
        if restore_id in self._unwanted:
            raise exception.Aborted(who='the coordinator, or for the owner of a guest')

    def _do(self, step, work, proved, caller, members):
        if step == 'check':
            if missing := set(members or ()) - {each.spec.id for each in work.members}:
                raise _moved(missing, caller)
            verdict = self._engine.restore_check(work)
            _refuse(verdict)
            return []
        if step in _BEFORE_DECISION and work.restore_id not in self._works:
            self._orders.write(work)
        self._works[work.restore_id] = work
        work = dataclasses.replace(
            work, withdrawn=tuple(sorted(self._withdrawn.get(work.restore_id, ()))))
        if step in _AT_END:
            work = self._engine.still_there(work)
        busy = False
        try:
            self._claim(work, caller)
        except exception.HotsnapError:
            busy = step == 'undo' and work.restore_id in self._untouched
            if step == 'prepare':
                self._untouched.add(work.restore_id)
            if not busy:
                raise
        if step == 'prepare':
            self._store.verify(work.snapshot_id, proved, {each.spec.id for each in work.members})
        done = None
        if not busy:    # else this is an undo, and the preparation found it busy too
            done = getattr(self._engine, f'restore_{step}')(work)
            if done.notes is not None:
                self._note(work.restore_id, done.notes)
        if step in _ENDS:
            self._owner.end(work.restore_id, 'the restore was undone' if step == 'undo' else '')
            for member_id in self._locked.pop(work.restore_id, ()):
                self._locks.release(f'domain-{member_id}')
            self._untouched.discard(work.restore_id)
            self._withdrawn.pop(work.restore_id, None)
            self._works.pop(work.restore_id, None)
            self._orders.forget(work.restore_id)
        return [str(fault.error) for fault in done.faults
                if isinstance(fault.error, exception.MemberLeft)] if done else []

    def _note(self, restore_id, notes):
        work = self._works[restore_id] = dataclasses.replace(
            self._works[restore_id], notes=notes)
        self._orders.write(work)

    def _work(self, snapshot, restore_id, paused, ids):
        manifest = self._store.load(snapshot)
        members = []
        # A store that hosts share has the others' members, too.
        here = [member for member in manifests.kept_members(manifest)
                if (member['host'] == self._host if ids is None else member['id'] in ids)]
        for member in here:
            file = self._store.path(snapshot, member['id'], member['files'][0]['name'])
            members.append(records.RestoreMember(
                spec=records.MemberSpec(member['id'], member['name']),
                folder=os.path.dirname(file), facts={**member, 'member': member['id']}))
        return records.RestoreWork(snapshot_id=snapshot, restore_id=restore_id,
                                   members=tuple(members), paused=paused)

    def _claim(self, work, caller):
        """Take all members.

        :raises HotsnapError: somebody else has one, whom it names
        """
        mine = self._locked.setdefault(work.restore_id, set())
        for spec in (member.spec for member in work.members):
            if spec.id not in mine:
                if not self._locks.take(f'domain-{spec.id}'):
                    raise exception.GuestBusy(member=spec.name,
                                              reason='a snapshot or restore has it')
                mine.add(spec.id)
        self._owner.begin_restore(
            work.restore_id, tuple(member.spec for member in work.members), caller)


def _called(work, caller):
    names = caller.get('names') or {}
    return [dataclasses.replace(each.spec, name=names.get(each.spec.id, each.spec.name))
            for each in work.members]


def _moved(ids, caller):
    names = caller.get('names') or {}
    return exception.MembersMoved(members=', '.join(sorted(names.get(each, each)
                                                           for each in ids)))


def _refuse(verdict):
    for finding in verdict.findings:
        if finding.refuses:
            raise exception.Refused(member=finding.member, device=finding.device,
                                    cause=finding.cause, remedy=finding.remedy)
