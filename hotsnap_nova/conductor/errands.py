# SPDX-License-Identifier: Apache-2.0
"""What hosts have yet to do: asked of each until it is done, whoever else fails or is away.

======= =======================================================
order   the end of a restore, as it was decided
message the end of a snapshot that was made, as it was decided
delete  what the host keeps goes
======= =======================================================

Each may be repeated, and a host that never heard of the snapshot does it as well. The errands of
one snapshot at one host are done in order; a failure puts these off, for longer each time, and is
in nobody else's way.
"""

import threading
import time
from collections.abc import Callable, Iterable
from concurrent import futures

from oslo_log import log as logging

from hotsnap_nova import exception, rpc
from hotsnap_nova.conductor import actions, restorations
from hotsnap_nova.protocol import coordinator, messages, wire
from hotsnap_nova.protocol.restore import messages as restores

LOG = logging.getLogger(__name__)

ORDER, MESSAGE, DELETE = 'order', 'message', 'delete'
#: What version 1.0 left instead of an order.
_STEPS = 'restore'
_CALL_S = 10.0
_ASK_AGAIN_S = 0.25
#: How long an errand is asked for before others have their turn.
_ATTEMPT_S = 10.0
#: Longer than an attempt with its last call: nobody else does it meanwhile.
_CLAIM_S = 60.0
_BACK_OFF_S = (1.0, 60.0)
#: So often, for a minute or two, a host may be at it before that is told.
_PATIENT_ATTEMPTS = 5
_AT_ONCE = 16
_AT_ONCE_A_HOST = 4


def of(message: messages.Request | restores.Order) -> tuple[str, dict]:
    """(kind, detail) of the errand to tell a host this."""
    return ORDER if isinstance(message, restores.Order) else MESSAGE, wire.encode(message)


def message_of(errand) -> messages.Request | restores.Order:
    """What the host is told by an errand of the first two kinds.

    :raises Bug: it is none
    """
    try:
        if errand.kind == _STEPS:
            return _order_of(errand)
        return wire.decode(errand.detail)
    except (ValueError, LookupError, TypeError, AttributeError) as exc:
        raise exception.Bug(reason=f'no errand is like this: {exc}') from exc


def must_not_be_owed(database, found,
                     is_gone: Callable[[str], bool] = lambda _host: False) -> None:
    """Nothing, where no host has yet to publish its part of a snapshot, or to end a restore of the
    same members that went on without it: it would put back what that one replaced.

    :param is_gone: whether there is no such host any more
    :raises SnapshotBusy:
    """
    _must_not(database, found, {member.member_id for member in found.members}, is_gone)


def must_be_published(database, found) -> None:
    """Nothing, where every host, be it gone, has published its part of a snapshot.

    :raises SnapshotBusy:
    """
    _must_not(database, found, frozenset(), lambda _host: False)


def _must_not(database, found, members, is_gone):
    for errand in database.errands():
        what = _in_the_way(errand, found.id, members)
        if what and not is_gone(errand.host):
            raise exception.SnapshotBusy(
                snapshot=found.name, host=errand.host,
                status=f'busy: host {errand.host} has yet to {what}')


def _in_the_way(errand, snapshot, members):
    """What the host has yet to do before these members can be restored from it, or None."""
    if errand.kind == DELETE:
        return None
    try:
        message = message_of(errand)
    except exception.Bug:    # of another version; whoever else it is about is not to wait for it
        return 'do what this version does not know' if errand.snapshot_id == snapshot else None
    if isinstance(message, restores.Order):
        theirs = {member.id for member in message.share.members}
        return None if members.isdisjoint(theirs) else 'end a restore it missed'
    return 'publish its part' if errand.snapshot_id == snapshot else None


def _order_of(errand):
    detail, caller = errand.detail, errand.detail.get('context') or {}
    called = caller.get('names') or {}
    step = restores.Step.UNDO if detail['steps'] == ['undo'] else restores.Step.RESUME
    return restores.Order(detail['restore_id'], errand.host, step, restores.Share(
        errand.snapshot_id, tuple(messages.Member(each, called.get(each, ''))
                                  for each in detail['members']),
        detail['paused'], restorations.options(caller, is_of_1_0=True)))


class _UnderWay(Exception):
    """The host is at it, and not done yet."""


class Errands:
    """Does what hosts owe; of several coordinators one does each.

    :param database: `db.api`, or one like it
    :param compute: `compute.rpcapi.ComputeApi`
    :param owner: of the claims; unique to this process
    """

    def __init__(self, database, compute, owner: str):
        self._database = database
        self._compute = compute
        self._owner = owner
        self._pool = futures.ThreadPoolExecutor(_AT_ONCE, thread_name_prefix='hotsnap-errand')
        self._at: set[tuple[str, str]] = set()    # (snapshot, host)
        self._workers: dict[str, int] = {}    # by host
        self._news = threading.Condition()
        self._ended = False

    # -- in the background ---------------------------------------------------------------------

    def begin(self, hosts: Iterable[str]) -> None:
        """Have these hosts do what they owe and is due."""
        for host in hosts:
            due = len({each.snapshot_id for each in self._database.errands(host)})
            for _ in range(min(due, _AT_ONCE_A_HOST)):
                self._hire(host)

    def missed(self, host: str, error: exception.HotsnapError) -> None:
        """It does not answer: deletions that wait for it say so."""
        for errand in self._database.errands(host):
            self._tell_of(errand, error)

    def close(self, timeout_s: float) -> None:
        """Return when nothing is asked any more, or the time is over."""
        with self._news:
            self._ended = True
            self._news.wait_for(lambda: not self._workers, timeout_s)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _hire(self, host):
        with self._news:
            if self._ended or self._workers.get(host, 0) >= _AT_ONCE_A_HOST:
                return
            self._workers[host] = self._workers.get(host, 0) + 1
        self._pool.submit(self._work_for, host)

    def _work_for(self, host):
        """Do what it owes to one snapshot, and stand behind all others who wait for a thread."""
        goes_on = False
        try:
            if snapshot := self._take_next(host):
                try:
                    self._do_in_turn(snapshot, host, lambda: self._ended)
                finally:
                    with self._news:
                        self._at.discard((snapshot, host))
                self._pool.submit(self._work_for, host)
                goes_on = True
        except exception.HotsnapError as exc:
            LOG.error('What host %(host)s owes: %(error)s', {'host': host, 'error': exc})
        except Exception:    # the next time may be better
            if not self._ended:
                LOG.exception('What host %s owes cannot be asked of it', host)
        finally:
            if not goes_on:
                self._dismiss(host)

    def _dismiss(self, host):
        with self._news:
            self._workers[host] -= 1
            if not self._workers[host]:
                del self._workers[host]
            self._news.notify_all()

    def _take_next(self, host):
        """A snapshot whose next errand is due and which nobody here is at; those put off last."""
        now, heads = self._database.now(), {}
        for errand in self._database.errands(host):
            heads.setdefault(errand.snapshot_id, errand)
        with self._news:
            due = [each for each in heads.values()
                   if (each.snapshot_id, host) not in self._at and not self._ended
                   and (each.not_before or 0) <= now and (each.claimed_until or 0) <= now]
            if not due:
                return None
            found = min(due, key=lambda each: (each.not_before or 0, each.id)).snapshot_id
            self._at.add((found, host))
            return found

    # -- one after the other -------------------------------------------------------------------

    def run(self, snapshot: str | None = None) -> None:
        """Do what is owed, to one snapshot or to all, and wait for that.

        :raises HotsnapError: the first failure; all else is done
        """
        self._database.hasten_errands(snapshot_id=snapshot)
        owed = dict.fromkeys((each.snapshot_id, each.host)
                             for each in self._database.errands(snapshot_id=snapshot))
        errors = [self._do_in_turn(*each) for each in owed]
        for error in filter(None, errors):
            raise error

    def _do_in_turn(self, snapshot, host, is_over: Callable[[], bool] = lambda: False):
        """Why the first that is not done is not; None where all are, or another is at it."""
        while not is_over():
            errand = next((each for each in self._database.errands(host, snapshot)), None)
            if errand is None or not self._database.claim_errand(errand, self._owner, _CLAIM_S):
                return None
            if error := self._try(errand, is_over):
                return error
        return None

    def _try(self, errand, is_over):
        """Why it is not done; None where it is."""
        about = {'host': errand.host, 'id': errand.snapshot_id, 'kind': errand.kind}
        try:
            self._do(errand, is_over)
        except _UnderWay:
            error = exception.HostUnreachable(
                host=errand.host, reason=f'it has not done yet what it owes, {errand.kind}; if it '
                                         'never does, see whether its store hangs')
            is_late = errand.attempts >= _PATIENT_ATTEMPTS
            self._put_off(errand, str(error) if is_late else None)
            if is_late:
                self._tell_of(errand, error)
            return error
        except Exception as exc:
            error = exc if isinstance(exc, exception.HotsnapError) else exception.Bug(
                reason=f'{type(exc).__name__}: {exc}')
            LOG.warning('Host %(host)s has not done what it owes snapshot %(id)s, %(kind)s: '
                        '%(error)s', about | {'error': error})
            self._put_off(errand, str(error))
            self._tell_of(errand, error)
            return error
        else:
            LOG.info('Host %(host)s has done what it owed snapshot %(id)s: %(kind)s', about)
        self._database.end_errand(errand)
        return None

    def _put_off(self, errand, error):
        first_s, last_s = _BACK_OFF_S
        self._database.put_off_errand(
            errand, self._owner, min(last_s, first_s * 2 ** min(errand.attempts, 16)), error)

    def _tell_of(self, errand, error):
        told = actions.told(error)
        self._database.show_deletion_failed(
            errand.snapshot_id, error_code=told['code'], error_message=told['message'],
            error_member=told['member'], error_host=errand.host)

    # -- what hosts are asked ------------------------------------------------------------------

    def _do(self, errand, is_over):
        """Have the host do it.

        :raises _UnderWay: it is at it
        :raises HotsnapError: it failed, or is away
        """
        if errand.kind == DELETE:
            self._delete(errand)
            return
        message = self._message_of(errand)
        ends = time.monotonic() + _ATTEMPT_S
        while not self._is_done(errand, message):
            if is_over() or time.monotonic() >= ends:
                raise _UnderWay
            time.sleep(_ASK_AGAIN_S)

    def _message_of(self, errand):
        """Where it is deleted next, nothing is published first: version 1.0 left both, and hosts
        that share a store may have deleted it there.
        """
        message = message_of(errand)
        if isinstance(message, messages.Finish) and any(
                each.kind == DELETE for each in self._database.errands(
                    errand.host, errand.snapshot_id)):
            return messages.Discard(message.snapshot, message.epoch, message.host, deleted=True)
        return message

    def _is_done(self, errand, message):
        if isinstance(message, restores.Order):
            answer = self._compute.order(message, _CALL_S)
            if isinstance(answer, restores.OrderWorking) and answer.trouble:
                raise rpc.exception_of({'code': exception.HypervisorError.code,
                                        'message': answer.trouble})
        else:
            answer = self._compute.receive(message, _CALL_S)
        if isinstance(answer, messages.Refused | restores.OrderRefused):
            self._refused(errand, message, answer.cause)
        return isinstance(answer, messages.Finished | messages.Discarded | messages.Refused
                          | restores.OrderDone | restores.OrderRefused)

    def _refused(self, errand, message, cause):
        """It will never do it: it knows nothing of it, or did the contrary."""
        LOG.error('Host %(host)s refuses what it owes snapshot %(id)s: %(cause)s', {
            'host': errand.host, 'id': errand.snapshot_id, 'cause': cause.text or cause.code})
        if isinstance(message, messages.Finish) and cause.code in coordinator.LOST:
            self._database.show_lost(
                errand.snapshot_id, error_code=cause.code, error_message=cause.text,
                error_member=cause.member, error_host=errand.host)

    def _delete(self, errand):
        try:
            self._compute.delete(errand.host, errand.snapshot_id, _ATTEMPT_S)
        except exception.HostUnreachable:
            self._compute.ping(errand.host)    # one that answers is at it
            raise _UnderWay from None
