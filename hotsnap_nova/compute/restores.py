# SPDX-License-Identifier: Apache-2.0
"""A host's parts in restores: the participant machine, and what does its commands.

An order is answered at once: its step is carried out in a thread of its own, which may take an
hour, and the coordinator asks again. Up to the end of the restore the guests are locked against
others of us and claimed from their owner; order and claims outlive a restart together.
"""

import collections
import dataclasses
import json
import threading
import time

from oslo_log import log as logging

from hotsnap_nova import exception, runner
from hotsnap_nova.compute import locks, orders, owner, steps, translate
from hotsnap_nova.protocol import commands as any_commands
from hotsnap_nova.protocol import messages
from hotsnap_nova.protocol.restore import commands, durable
from hotsnap_nova.protocol.restore import messages as restores
from hotsnap_nova.protocol.restore import participant as machines
from hotsnap_nova.storage import base

LOG = logging.getLogger(__name__)

#: How long steps have to end at the end of the service: QEMU or a store may hang for ever.
_CLOSE_S = 30.0
#: How long a guest's owner waits for the step that is at work on it.
_WITHDRAW_S = 30.0
_PROGRESS_EVERY_S = 0.2
#: How long until a guest's owner, or libvirt, that did not answer is asked again.
_ASK_AGAIN_S = 1.0
#: How long libvirt or an owner may be away while members stand still, and are not decided about.
_PATIENCE_S = 30.0
_PATIENT = frozenset({restores.Step.STOP, restores.Step.START})


class Restores:
    """Serves the coordinator's orders on one host.

    :param engine: `virt.host.Engine`, or one like it
    :param state_path: folder that survives a restart of the host
    :param host_locks: of that folder
    :param domain_locks: those that snapshots take their members with
    :param guests_owner: is asked for the guests, and told
    """

    def __init__(self, host: str, engine, store: base.Store, state_path: str,
                 host_locks: locks.Locks, domain_locks: locks.Locks,
                 guests_owner: owner.Owner | None = None):
        self._host = host
        self._orders = orders.Orders(state_path, host_locks)
        self._steps = steps.Steps(engine, store, self._orders, domain_locks,
                                  guests_owner or owner.Owner())
        self._call = threading.local()
        self._machine = machines.RestoreParticipant(machines.RestoreHostState(host))
        self._runner: runner.Runner | None = None
        self._news = threading.Condition()
        self._at_work: dict[str, _AtWork] = {}
        self._hastened: set[str] = set()
        self._writing = threading.Lock()
        self._written: dict[str, frozenset[str]] = {}    # withdrawn members, as on disk
        self._ended = collections.deque(maxlen=machines.KEPT)
        self._closing = False
        self._adopted: tuple[durable.RestorePart, ...] = ()

    # -- coming and going ----------------------------------------------------------------------

    def adopt(self) -> None:
        """Lock the guests that restores of dead processes had locked.

        One that was refused its guests is on record, too, but has kept nothing of them.
        """
        self._adopted = self._orders.adopt()
        for part in self._adopted:
            if self._orders.kept(part.restore) is not None:
                self._steps.lock(part.restore, part.share.members)

    def start(self) -> tuple[str, ...]:
        """Go on with what was adopted; ids of those restores.

        What was decided goes on at once, all else waits for its coordinator; the guests of both
        are locked from now on.
        """
        parts = self._adopted
        for part in parts:
            self._written[part.restore] = frozenset(part.withdrawn)
            self._steps.lock(part.restore, part.share.members)
        machine, todo = machines.RestoreParticipant.recover(
            self._host, parts, self._orders.ended())
        self._runner = runner.Runner(machine, {
            commands.ReplyToOrder: self._reply,
            commands.JournalOrder: self._write,
            commands.CarryOut: self._carry_out,
            commands.Hasten: self._hasten,
        }, lambda: _phases(machine), self._host)
        self._machine = machine    # not before: who withdraws a guest of it needs the runner
        for command in todo:    # one that fails must not keep the others from being done
            self._runner.carry_out([command])
        return tuple(part.restore for part in parts)

    def close(self) -> bool:
        """Whether nothing is being done any more, after waiting for `_CLOSE_S` for it.

        Restores stay as they are: whoever starts next goes on.
        """
        with self._news:
            self._closing = True
            for at_work in self._at_work.values():
                at_work.hasten.set()
            return self._news.wait_for(lambda: not self._at_work, _CLOSE_S)

    def serve(self, order: restores.Order) -> restores.OrderAnswer | None:
        """The answer to an order; None where there is none to give.

        :raises Unavailable: what this host has of the restore could not be read
        """
        self._orders.must_be_read(order.restore)
        self._call.answer = None
        self._runner.receive(order)
        return self._call.answer

    def check(self, restore: str,
              share: restores.Share) -> tuple[restores.MemberWarning, ...]:
        """What to know of a share that this host can restore; touches nothing.

        :raises HotsnapError: what stands in the way
        """
        return self._warnings(self._steps.check(restore, share))

    def withdraw(self, member_id: str, cause: messages.Cause) -> None:
        """Return when no restore is at work on this guest, and none will be any more.

        One that is not decided yet will fail.

        :raises GuestBusy: what is at work on it does not end in time
        :raises OSError: it is withdrawn until a restart, for the journal cannot be written
        """
        ends = time.monotonic() + _WITHDRAW_S
        for part in self._machine.state.parts:
            if member_id in [member.id for member in part.share.members]:
                self._runner.receive(commands.MemberWithdrawn(part.restore, member_id, cause))
                self._wait_for_step(part.restore, member_id, ends)
                self._keep_withdrawn(part.restore, member_id)

    def busy(self) -> tuple[durable.RestorePart, ...]:
        """The parts that this process has."""
        return self._machine.state.parts

    def unread(self) -> dict[str, str]:
        """Paths of parts that could not be read at the start, by restore."""
        return self._orders.unread()

    def on_record(self) -> frozenset[str]:
        """Ids of all restores that may not have ended on this host, whoever is at work on them."""
        return self._orders.on_record()

    def has_ended(self, restore: str) -> bool:
        """Whether it is on record here how it ended."""
        return self._machine.state.end_of(restore) is not None

    def _wait_for_step(self, restore, member_id, ends):
        def is_kept_off():
            at_work = self._at_work.get(restore)
            return at_work is None or member_id in at_work.withdrawn
        with self._news:
            if not self._news.wait_for(is_kept_off, max(0.0, ends - time.monotonic())):
                raise exception.GuestBusy(member=member_id, reason='a restore is at work on it')

    def _keep_withdrawn(self, restore, member_id):
        """Where its own journal entry failed, or is still to come."""
        with self._writing:
            part = self._machine.state.part(restore)
            if part and member_id not in self._written.get(restore, ()):
                self._keep(part)

    # -- commands, one method each -------------------------------------------------------------

    def _reply(self, command):
        self._call.answer = command.answer

    def _write(self, command):
        restore = command.restore
        with self._writing:
            if command.part is None:
                if command.ended:
                    self._orders.end(command.ended)
                self._ended.append(restore)
                self._written.pop(restore, None)
                self._hastened.discard(restore)
                self._steps.unlock(restore)
            elif part := self._as_it_is_now(command.part):
                self._keep(part)
        return [commands.OrderJournaled(command)]

    def _keep(self, part):
        if part.restore not in self._ended:
            self._orders.write(part)
            self._written[part.restore] = frozenset(part.withdrawn)

    def _as_it_is_now(self, part):
        """What to write; None where the machine went on meanwhile, and writes what it went to."""
        now = self._machine.state.part(part.restore)
        if now is None or now.step is not part.step:
            return None
        return dataclasses.replace(part, withdrawn=now.withdrawn,
                                   refusal=part.refusal or now.refusal)

    def _hasten(self, command):
        with self._news:
            self._hastened.add(command.restore)
            if at_work := self._at_work.get(command.restore):
                at_work.hasten.set()

    def _carry_out(self, command):
        threading.Thread(
            target=self._keep_at_it, args=(command,), daemon=True,
            name=f'hotsnap-restore-{command.step}-{command.restore[:8]}').start()

    # -- the thread of a step ------------------------------------------------------------------

    def _keep_at_it(self, command):
        if not (at_work := self._begin(command)):
            return
        try:
            self._withdraw_gone(command, at_work)
            done = self._do(command, at_work)
            outcome = commands.CarriedOut(
                command.restore, command.step,
                tuple(restores.MemberFault(fault.member, runner.cause_of(fault.error, self._host))
                      for fault in done.faults),
                json.dumps(done.notes) if done.notes else '', self._warnings(done.warnings))
        except Exception as exc:
            if not isinstance(exc, exception.HotsnapError):
                LOG.exception('Restore %s: %s failed', command.restore, command.step)
            outcome = any_commands.CommandFailed(
                command, runner.cause_of(exc, self._host))
        with self._news:
            self._at_work.pop(command.restore, None)
            self._news.notify_all()
            if self._closing:
                return    # what was interrupted has not failed: it is done again
        self._runner.receive(outcome)

    def _warnings(self, findings):
        return tuple(translate.warning(each, self._host) for each in findings)

    def _do(self, command, at_work):
        """Do the step. Members stand still by now: a libvirt or an owner that is away is asked
        again for a moment, from when that was noticed, for to fail is to give all up.
        """
        ends = None
        while True:
            try:
                return self._steps.do(command, at_work.withdrawn, at_work.hasten,
                                      self._teller(command), self._faults(command.restore))
            except exception.HostUnreachable as exc:
                ends = ends or time.monotonic() + _PATIENCE_S
                if (command.step not in _PATIENT or time.monotonic() >= ends
                        or at_work.hasten.wait(_ASK_AGAIN_S)):
                    raise
                LOG.warning('Restore %(id)s: %(step)s is tried again: %(error)s', {
                    'id': command.restore, 'step': command.step, 'error': exc})

    def _begin(self, command):
        with self._news:
            if self._closing:
                return None
            # Who withdraws tells the machine first, and looks at what is at work then.
            part = self._machine.state.part(command.restore)
            at_work = self._at_work[command.restore] = _AtWork(
                frozenset(command.withdrawn) | frozenset(part.withdrawn if part else ()))
            if command.restore in self._hastened:
                at_work.hasten.set()
            return at_work

    def _withdraw_gone(self, command, at_work):
        """Guests that their owner moved away or removed while nobody here could hear of it."""
        here = {member.id: member for member in command.share.members
                if member.id not in at_work.withdrawn}
        for member_id in sorted(self._gone(command, tuple(here), at_work.hasten)):
            error = exception.GuestChanged(member=translate.spec(here[member_id]),
                                           reason='it is no longer on this host')
            self._runner.receive(commands.MemberWithdrawn(
                command.restore, member_id, runner.cause_of(error, self._host)))
            at_work.withdrawn |= {member_id}

    def _gone(self, command, member_ids, hasten):
        while True:
            try:
                return self._steps.gone(member_ids)
            except exception.Unavailable as exc:
                # A decision is ordered again; before one, to fail is to give all up.
                if command.step not in restores.BEFORE_DECISION or hasten.wait(_ASK_AGAIN_S):
                    raise
                LOG.warning('Restore %(id)s: its guests\' owner is asked again: %(error)s',
                            {'id': command.restore, 'error': exc})

    def _faults(self, restore):
        part = self._machine.state.part(restore)
        return part.faults if part else ()

    def _teller(self, command):
        """Hands progress to the machine, now and then."""
        told = 0.0

        def tell(done_bytes, total_bytes):
            nonlocal told
            if time.monotonic() - told >= _PROGRESS_EVERY_S:
                told = time.monotonic()
                self._runner.receive(commands.StepProgress(command.restore, (
                    messages.MemberProgress('', done_bytes, total_bytes),)))
        return tell


def _phases(machine):
    return {f'Restore {part.restore}': f'{part.step} {part.status}'
            for part in machine.state.parts}


class _AtWork:
    """A step that is being carried out.

    :ivar withdrawn: members that it does not touch
    :ivar hasten: it is of no use any more
    """

    def __init__(self, withdrawn):
        self.withdrawn = withdrawn
        self.hasten = threading.Event()
