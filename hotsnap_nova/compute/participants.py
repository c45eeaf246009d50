# SPDX-License-Identifier: Apache-2.0
"""A host's parts in snapshots: the participant machine, and what does its commands.

A request is served in the thread that brought it, engine and all; a repeat
that comes meanwhile finds the machine busy and is answered "working". Only a
save goes on in a thread of its own.
"""

import dataclasses
import json
import threading
import time

from oslo_log import log as logging

from hotsnap_nova import exception, runner
from hotsnap_nova.compute import (
    background,
    claims,
    journal,
    locks,
    manifest,
    owner,
    saves,
    translate,
)
from hotsnap_nova.protocol import commands, durable, messages
from hotsnap_nova.protocol import participant as machines
from hotsnap_nova.storage import base
from hotsnap_nova.storage import durable as files
from hotsnap_nova.storage import manifest as manifests
from hotsnap_nova.virt import records

LOG = logging.getLogger(__name__)

#: How long a discard waits for a save to let go of its files.
_SAVE_END_S = 30.0
#: How long work has to end at the end of the service: a store may hang for ever.
_CLOSE_S = 30.0
#: How long a guest's owner waits for us to let go of it.
_WITHDRAW_S = 30.0
#: Phases in which a guest is in our hands.
_HOLDING = frozenset({
    durable.Phase.PREPARING, durable.Phase.PREPARED, durable.Phase.RECORDING,
    durable.Phase.RECORDED, durable.Phase.RELEASING, durable.Phase.RELEASED,
    durable.Phase.SAVING})
#: Phases in which it is as long as it is locked.
_LETTING_GO = frozenset({
    durable.Phase.SPOILING, durable.Phase.DISCARDING, durable.Phase.STUCK})
#: Snapshots that QEMU shows and no journal knows are called so.
_UNKNOWN = 'unknown-'


class Participants:
    """Serves the coordinator's requests on one host.

    :param engine: `virt.host.Engine`, or one like it
    :param state_path: folder for journal and locks
    :param domain_locks: shared by all who work with these guests, whatever their
        state folder: a guest shows a snapshot to all of them; None: this folder's
    :param guests_owner: is asked for the guests, and told
    """

    def __init__(self, host: str, engine, store: base.Store, state_path: str,
                 domain_locks: locks.Locks | None = None,
                 guests_owner: owner.Owner | None = None):
        self._host = host
        self._engine = engine
        self._store = store
        files.make_folders(state_path)
        self.locks = locks.Locks(f'{state_path}/locks')
        self.domain_locks = domain_locks or self.locks
        self._owner = guests_owner or owner.Owner()
        self._journal = journal.Journal(state_path, self.locks)
        self._call = threading.local()
        self._saves = saves.Saves(host, engine, store, self._receive)
        self._beginning = threading.Lock()    # of a save
        self._background = background.Background(host, self._receive)
        self._works: dict[str, records.Work] = {}
        self._claims = claims.Claims(self.domain_locks)
        self._machine = machines.Participant(machines.HostState(host))
        self._runner: runner.Runner | None = None

    # -- coming and going ----------------------------------------------------------------------

    def start(self) -> tuple[str, ...]:
        """Clean up what dead processes left on this host; ids of what was found.

        QEMU is asked first, the journal second. What live processes are at
        work on is theirs.
        """
        leftovers = self._engine.survey()
        parts = self._journal.adopt()
        for part in parts:
            self._claims.lock(part.snapshot, part.work.members)
        residues = self._residues(leftovers, {part.snapshot for part in parts})
        machine, todo = machines.Participant.recover(
            self._host, residues, parts, self._journal.decided())
        self._runner = runner.Runner(machine, {
            commands.Reply: self._reply,
            commands.Journal: self._write,
            commands.SaveMembers: self._save,
            commands.PrepareMembers: self._prepare,
            commands.RecordMembers: self._record,
            commands.ReleaseMembers: self._release,
            commands.FinishMembers: self._finish,
            commands.DiscardMembers: self._discard,
            commands.GiveBackMembers: self._give_back,
        }, lambda: _phases(machine), self._host)
        self._machine = machine    # not before: who withdraws a guest of it needs the runner
        for command in todo:    # one that fails must not keep the others from being cleaned
            self._runner.carry_out([command])
        self._runner.start_ticking()
        return tuple(sorted({part.snapshot for part in parts}
                            | {residue.snapshot for residue in residues}))

    def sweep(self) -> None:
        """Remove files of snapshots that no journal knows: their process died in `begin`."""
        for draft in self._store.drafts():
            if draft.host != self._host or self._journal.has(draft.snapshot_id):
                continue
            if self._journal.claim(draft.snapshot_id):
                self._store.discard(draft.snapshot_id, self._host)
                self._journal.forget(draft.snapshot_id, ())

    def close(self, others_ended: bool = True) -> None:
        """End, leaving parts to whoever starts next; what is under way gets `_CLOSE_S` to end.

        :param others_ended: no other work here needs the locks any more
        """
        ends = time.monotonic() + _CLOSE_S
        ticks = self._runner is not None and not self._runner.close(_CLOSE_S)
        hung = self._saves.close(max(0.0, ends - time.monotonic()))
        if hung or ticks or not others_ended:
            # They may still write; their locks go when the process does.
            LOG.warning('What does not end now ends with the process: %s',
                        ', '.join(hung) or 'what a deadline began, or a restore')
            return
        self.locks.release_all()
        self.domain_locks.release_all()

    def serve(self, request: messages.Request) -> messages.Answer | None:
        """The answer to a coordinator's request; None where there is none to give.

        :raises Unavailable: what this host has of the snapshot could not be read
        """
        self._journal.must_be_read(request.snapshot)
        self._call.answer = None
        self._runner.receive(request)
        answer = self._call.answer
        if isinstance(answer, messages.Refused) and self._is_published(request, answer.cause):
            return messages.Finished(request.snapshot, request.epoch, self._host)
        return answer

    def withdraw(self, member_id: str, cause: messages.Cause) -> None:
        """Return when no snapshot holds this guest: one that does is given up.

        One that has all of the guest already stays, for it needs the guest no more.

        :raises GuestBusy: it takes too long
        """
        deadline = time.monotonic() + _WITHDRAW_S
        while part := self._part_with(member_id):
            self._runner.receive(commands.MembersWithdrawn(part.snapshot, part.epoch, cause))
            if self._part_with(member_id) is None:
                break
            if time.monotonic() > deadline:
                raise exception.GuestBusy(member=member_id, reason=f'a snapshot is {part.phase}')
            time.sleep(0.05)    # what the engine is at just now ends by itself, and soon

    def withdraw_all(self, cause: messages.Cause) -> None:
        """Give up all that can be given up; what hangs keeps no other.

        :raises GuestBusy: one does not let go of its guests in time
        """
        failures = []

        def give_up(member_id):
            try:
                self.withdraw(member_id, cause)
            except Exception as exc:
                failures.append(exc)
        threads = [threading.Thread(target=give_up, args=(part.work.members[0].id,), daemon=True,
                                    name='hotsnap-withdraw')
                   for part in self._machine.state.parts if part.work.members]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]

    def _is_published(self, request, cause):
        """Whether the store shows the end that the ledger has forgotten.

        That of version 1.0 knew only how the newest epoch of a member ended.
        """
        if not isinstance(request, messages.Finish) or cause.code != machines.UNKNOWN_SNAPSHOT:
            return False
        try:
            manifest = self._store.load(request.snapshot)
        except (exception.SnapshotNotFound, exception.ManifestDamaged):
            return False
        kept = {member['id'] for member in manifests.kept_members(manifest)}
        return kept.issuperset(member['id'] for member in manifest['members']
                               if member['host'] == self._host)

    def _part_with(self, member_id):
        return next((part for part in self._machine.state.parts
                     if any(member.id == member_id for member in part.work.members)
                     and (part.phase in _HOLDING or (
                         part.phase in _LETTING_GO
                         and self._claims.holds(part.snapshot, member_id)))), None)

    def busy(self) -> tuple[durable.Part, ...]:
        """The parts that this process has."""
        return self._machine.state.parts

    def unread(self) -> dict[str, str]:
        """Paths of parts that could not be read at the start, by snapshot."""
        return self._journal.unread()

    def has_ended(self, snapshot: str) -> bool:
        """Whether it is on record here how it ended."""
        return self._machine.state.decision_of(snapshot) is not None

    def _residues(self, leftovers, ours):
        """What QEMU shows, with the names the journal gives it; live processes' left out."""
        by_tag = {self._engine.tag_of(snapshot): snapshot for snapshot in self._journal.known()}
        found = []
        for leftover in leftovers:
            member = messages.Member(leftover.member, leftover.name)
            snapshots = {by_tag.get(tag) for tag in leftover.snapshot_tag.split(',')}
            name = f'{_UNKNOWN}{leftover.member}'
            if not snapshots & ours and self._claims.lock(name, (member,)):
                found.append(durable.Residue(name, 0, (member,)))
        return found

    # -- commands, one method each -------------------------------------------------------------

    def _reply(self, command):
        self._call.answer = command.answer

    def _write(self, command):
        if command.part is None:
            rows = [row for row in command.decided if row.group]    # none: an unknown snapshot's
            self._journal.forget(command.snapshot, rows)
            self._works.pop(command.snapshot, None)
        else:
            self._journal.write(command.part)
        return [commands.Journaled(command)]

    def _prepare(self, command):
        work = self._work(command)    # the store may hang, and must not with the guests claimed
        locked = self._claims.lock(command.snapshot, command.work.members)
        for member in command.work.members:
            if member.id not in locked:
                raise exception.GuestBusy(member=translate.spec(member),
                                          reason='another snapshot or restore has it')
        caller = json.loads(command.work.options).get('context') or {}
        self._owner.begin_snapshot(command.snapshot, translate.specs(command.work.members), caller)
        facts = self._engine.prepare(work)
        return [commands.MembersPrepared(command.snapshot, command.epoch,
                                         translate.facts_detail(facts))]

    def _record(self, command):
        cuts = self._engine.record(self._work(command))
        return [commands.MembersRecorded(command.snapshot, command.epoch,
                                         tuple(map(translate.cut, cuts)))]

    def _release(self, command):
        releases = self._engine.release(self._work(command))
        return [commands.MembersReleased(command.snapshot, command.epoch,
                                         tuple(map(translate.release, releases)))]

    def _save(self, command):
        with self._beginning:    # a discard that came meanwhile is seen here, or waits
            part = self._machine.state.part(command.snapshot)
            if part and part.phase is durable.Phase.SAVING:
                self._saves.begin(command, self._work(command))

    def _finish(self, command):
        work = self._work(command, begun=True)
        self._engine.finish(dataclasses.replace(
            work, members=self._ours(command.snapshot, command.work.members)))
        self._free(command.snapshot)

        def publish():
            self._store.publish(command.snapshot, manifest.of_snapshot(command))
            return [commands.MembersFinished(command.snapshot, command.epoch)]
        return self._background.do(command, publish)

    def _discard(self, command):
        with self._beginning:
            pass    # a save that was just beginning is known from here on
        members = self._ours(command.snapshot, command.members)
        discarded = [commands.MembersDiscarded(command.snapshot, command.epoch)]
        if command.snapshot.startswith(_UNKNOWN):
            self._engine.clean(members)
            self._free(command.snapshot)
            return discarded
        self._engine.discard(command.snapshot, members)
        self._free(command.snapshot, self._why_discarded(command.snapshot))

        def remove():
            # The engine has ended it, but its files may be read yet, or held open by a store
            # that hangs.
            self._saves.give_up(command.snapshot)
            self._saves.wait(command.snapshot, _SAVE_END_S)
            self._store.discard(command.snapshot, self._host)
            if command.deleted:
                self._store.delete(command.snapshot)
            return discarded
        return self._background.do(command, remove)

    def _give_back(self, command):
        # By the ticker's thread, which has to see to the gates of others.
        LOG.info('Snapshot %s: nothing is heard of a coordinator; its guests are saved, and are '
                 'given back', command.snapshot)
        return self._background.do(command, lambda: self._owner.end(command.snapshot) or ())

    def _free(self, snapshot, error=''):
        """Give the guests back. Files come last: a store may hang, and they need no guest."""
        self._owner.end(snapshot, error)
        self._claims.unlock(snapshot)

    def _why_discarded(self, snapshot):
        part = self._machine.state.part(snapshot)
        return (part and part.refusal and part.refusal.cause.text) or 'the snapshot was given up'

    def _work(self, command, begun=False):
        """The engine's order; kept, for nothing may look at the store while gates are closed."""
        work = self._works.get(command.snapshot)
        if work is None:
            try:
                folder = self._store.begin(command.snapshot, self._host)
            except exception.SnapshotBusy:
                if not begun:
                    raise
                folder = ''    # published by an earlier try: only QEMU is left to clean
            work = self._works[command.snapshot] = translate.engine_work(command, folder)
        return work

    def _ours(self, snapshot, members):
        """Those that are this snapshot's; those of another are none of its business any more."""
        ours = self._claims.lock(snapshot, members)
        return translate.specs(tuple(member for member in members if member.id in ours))

    def _receive(self, outcome):
        self._runner.receive(outcome)


def _phases(machine):
    return {f'Snapshot {part.snapshot} epoch {part.epoch}': str(part.phase)
            for part in machine.state.parts}
