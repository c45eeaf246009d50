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
"""

import os
import threading
from collections.abc import Callable

from hotsnap_nova import exception
from hotsnap_nova.compute import locks, owner
from hotsnap_nova.storage import base
from hotsnap_nova.storage import manifest as manifests
from hotsnap_nova.virt import records

STEPS = ('check', 'prepare', 'stop', 'start', 'resume', 'finish', 'undo')


class Restores:
    """Does the steps on one host.

    :param host_locks: those that snapshots take their members with
    :param guests_owner: is asked for the guests, and told
    """

    def __init__(self, engine, store: base.Store, host_locks: locks.Locks,
                 guests_owner: owner.Owner | None = None):
        self._engine = engine
        self._store = store
        self._locks = host_locks
        self._owner = guests_owner or owner.Owner()
        self._locked: dict[str, set[str]] = {}
        self._unwanted: set[str] = set()
        self._untouched: set[str] = set()
        self._works: dict[str, records.RestoreWork] = {}
        self._one_at_a_time = threading.Lock()

    def do(self, step: str, snapshot: str, restore_id: str, paused: bool,
           tell: Callable[[int, int], None], caller: dict | None = None) -> list[str]:
        """Do one step.

        :param caller: in whose name; see `owner.Owner`
        :returns: what an undo had to leave as it is, in words for the user
        :raises HotsnapError: the step was not done; `undo` is next
        """
        if step not in STEPS:
            raise exception.InvalidValue(name='step', reason=f'{step} is none of {STEPS}')
        if step == 'undo':
            self._unwanted.add(restore_id)    # a verification under way ends at once

        def proved(_member, _file, done, total):
            if restore_id in self._unwanted:
                raise exception.Aborted(who='the coordinator')
            tell(done, total)
        with self._one_at_a_time:
            # What was read at first stays: an undo must not depend on the store.
            work = self._works.get(restore_id) or self._work(snapshot, restore_id, paused)
            return self._do(step, work, proved, caller or {})

    def withdraw(self, member_id: str) -> None:
        """Its owner needs this guest for something else: a restore that has it will fail."""
        self._unwanted |= {restore_id for restore_id, members in tuple(self._locked.items())
                           if member_id in members}

    def _do(self, step, work, proved, caller):
        if step == 'check':
            verdict = self._engine.restore_check(work)
            _refuse(verdict)
            return []
        self._works[work.restore_id] = work
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
            self._store.verify(work.snapshot_id, proved)
        done = None
        if not busy:    # else this is an undo, and the preparation found it busy too
            done = getattr(self._engine, f'restore_{step}')(work)
        if step in ('finish', 'undo'):
            self._owner.end(work.restore_id, 'the restore was undone' if step == 'undo' else '')
            for member_id in self._locked.pop(work.restore_id, ()):
                self._locks.release(f'domain-{member_id}')
            self._unwanted.discard(work.restore_id)
            self._untouched.discard(work.restore_id)
            self._works.pop(work.restore_id, None)
        return list(done or ())

    def _work(self, snapshot, restore_id, paused):
        manifest = self._store.load(snapshot)
        members = []
        for member in manifests.kept_members(manifest):
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


def _refuse(verdict):
    for finding in verdict.findings:
        if finding.refuses:
            raise exception.Refused(member=finding.member, device=finding.device,
                                    cause=finding.cause, remedy=finding.remedy)
