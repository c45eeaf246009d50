# SPDX-License-Identifier: Apache-2.0
"""What a coordinator asks of a host.

Version history:

* 1.0  find, check, receive, manifest, delete, verify, export, restore
* 1.1  ping; restore takes ``context``
* 1.2  ping tells ``rpc_version``; receive is served on URGENT_TOPIC, too; restore takes
       ``members``
* 1.3  check_restore; receive takes orders of restores; delete is asked until it is done, as
       verify is; parts and forget. restore is no more: its orders of steps came from conductors
       up to 1.2, which are upgraded before the hosts. Nor is export: a host
       writes where one who sits at it tells it
* 1.4  verify takes ``members`` and ``proofs``, the coordinator's word; an older host goes by its
       store's

A call is sent with the least version that has it, so that an older host answers
it; what only newer hosts know is sent where ``ping`` found them, or as pinned.
"""

import contextlib
import math
import time
import uuid
from collections.abc import Callable, Iterable, Mapping

from oslo_log import log as logging

from hotsnap_nova import exception, rpc
from hotsnap_nova.protocol import messages, wire
from hotsnap_nova.protocol.restore import messages as restores

LOG = logging.getLogger(__name__)

TOPIC = 'hotsnap-compute'
#: For what must not queue behind preparations: gates are closed until it is done.
URGENT_TOPIC = 'hotsnap-compute-urgent'
FIRST_VERSION = '1.0'
_URGENT_VERSION = '1.2'
_RESTORE_VERSION = '1.3'
_DELETE_VERSION = '1.3'
_PARTS_VERSION = '1.3'
_PROOFS_VERSION = '1.4'
_URGENT = (messages.Record, messages.Release, messages.Discard)

_PING_S = 5.0
_SHORT_S = 30.0
_LOST_ANSWERS = 5
#: To a host that answers a deletion only when it has ended.
_OLD_DELETE_S = 600.0
#: A host where many ask answers at once.
_ASK_EVERY_S = 0.25

#: Called now and then with (done_bytes, total_bytes), 0 where not known; may raise to give up.
Tell = Callable[[int, int], None]


class ComputeApi:
    """Calls hosts; errors of a host are raised as they were there.

    :param transport: or a function that gives a host's own
    :param pin: the newest version to speak; None: each host is asked for its own
    """

    def __init__(self, transport, context: dict | None = None, pin: str | None = None):
        self._client = rpc.Client(transport, TOPIC, FIRST_VERSION, context)
        self._urgent_client = rpc.Client(transport, URGENT_TOPIC, FIRST_VERSION, context)
        self._pin = pin
        self._versions: dict[str, str] = {}

    def ping(self, host: str) -> dict:
        """``{'host', 'version', 'rpc_version', 'started_at'}`` of a host that lives.

        ``started_at`` is in seconds since 1970. One too old to say has no version and no start.

        :raises HostUnreachable:
        """
        told = {'host': host, 'version': '', 'rpc_version': FIRST_VERSION, 'started_at': None}
        if self._pin == FIRST_VERSION:
            self._client.call(host, 'find', _PING_S, names=[])
        else:
            with contextlib.suppress(exception.HostTooOld):    # it lives
                told |= {'rpc_version': '1.1'} | self._client.call(
                    host, 'ping', _PING_S, version='1.1')
        if self._pin:
            told['rpc_version'] = min(self._pin, told['rpc_version'], key=_number)
        self._versions[host] = told['rpc_version']
        return told

    def find(self, host: str, names: list[str]) -> list[dict]:
        """``{'id', 'name'}`` of each guest, running or not, by name or id.

        :raises MemberNotFound:
        """
        return self._client.call(host, 'find', _SHORT_S, names=names)

    def check(self, host: str, members: list[dict], gate: str) -> dict:
        """``{'gates', 'findings'}``: what stands in the way of a snapshot."""
        return self._client.call(host, 'check', _SHORT_S, members=members, gate=gate)

    def receive(self, request: messages.Request, timeout_s: float) -> messages.Answer | None:
        """The answer to a message of the protocol.

        :raises HostUnreachable: lost, on the way there or back
        """
        host, client = request.host, self._client
        if isinstance(request, messages.Prepare):
            self._knows(host, _URGENT_VERSION)    # later there is no time to ask
        elif isinstance(request, _URGENT) and self._knew(host, _URGENT_VERSION):
            client = self._urgent_client
        try:
            answer = client.call(host, 'receive', timeout_s, request=wire.encode(request))
        except exception.HostUnreachable:
            if client is self._urgent_client:
                # It may be of an older version again: the repeat goes where all of them listen.
                self._versions.pop(host, None)
            raise
        return _decoded(host, answer)

    def check_restore(self, host: str, restore: str, share: restores.Share,
                      timeout_s: float) -> tuple[restores.MemberWarning, ...]:
        """What to know of a share that the host can restore; it touches nothing.

        Older hosts have nothing to say then.

        :raises HostUnreachable: it has not answered in time
        :raises HostTooOld: it knows no restore of this kind
        :raises HotsnapError: what stands in the way
        """
        self._must_speak(host, _RESTORE_VERSION, 'check_restore')
        told = self._ask(host, 'check_restore', None, timeout_s, version=_RESTORE_VERSION,
                         restore=restore, share=wire.encode(share))
        return tuple(_decoded(host, each) for each in told or ())

    def order(self, order: restores.Order, timeout_s: float) -> restores.OrderAnswer | None:
        """The answer to an order, which is carried out in the background: ask again.

        :raises HostUnreachable: lost, on the way there or back
        :raises HostTooOld: it knows no restore of this kind; nothing was done
        """
        host = order.host
        self._must_speak(host, _RESTORE_VERSION, 'order')
        try:
            answer = self._urgent_client.call(host, 'receive', timeout_s,
                                              version=_RESTORE_VERSION, request=wire.encode(order))
        except exception.HostUnreachable as exc:
            # One of before 1.2, as it said when it was asked last, does not listen there at all.
            if host in self._versions and not self._knew(host, _URGENT_VERSION):
                raise exception.HostTooOld(host=host, method='order') from exc
            raise
        return _decoded(host, answer)

    def manifest(self, host: str, snapshot: str) -> dict:
        return self._client.call(host, 'manifest', _SHORT_S, snapshot=snapshot)

    def delete(self, host: str, snapshot: str, timeout_s: float | None = None) -> bool:
        """Whether there was anything to delete.

        :param timeout_s: None: as long as it takes
        :raises HostUnreachable: it was not done in time; the host may still be at it
        """
        if not self._is_pinned_below(_DELETE_VERSION):
            with contextlib.suppress(exception.HostTooOld):
                return self._ask(host, 'delete', None, timeout_s, version=_DELETE_VERSION,
                                 snapshot=snapshot)
        return self._client.call(host, 'delete', timeout_s or _OLD_DELETE_S, snapshot=snapshot)

    def verify(self, host: str, snapshot: str, tell: Tell | None = None,
               members: Iterable[str] = (), proofs: Mapping[str, str] | None = None) -> dict:
        """``{'files', 'size_bytes'}``, proved. As long as reading everything takes.

        :param members: ids of those that the host must have kept; none: those that its store names
        :param proofs: `measurements.proof` by member's id, of what the store says of them
        """
        if members and not self._is_pinned_below(_PROOFS_VERSION):
            with contextlib.suppress(exception.HostTooOld):
                return self._ask(host, 'verify', tell, version=_PROOFS_VERSION, snapshot=snapshot,
                                 members=sorted(members), proofs=dict(proofs or {}))
        return self._ask(host, 'verify', tell, snapshot=snapshot)

    def parts(self, host: str) -> list[dict]:
        """What the host has of snapshots and restores: see `compute.remains.Remains.list`.

        :raises HostTooOld: it cannot say
        """
        self._must_speak(host, _PARTS_VERSION, 'parts')
        return self._client.call(host, 'parts', _SHORT_S, version=_PARTS_VERSION)

    def forget(self, host: str, part: str) -> bool:
        """Whether this snapshot or restore, which no coordinator knows, has ended on the host.

        False: the host is at it, and is to be asked again. See `compute.remains.Remains.end`.

        :raises SnapshotNotFound: it has no such part
        :raises SnapshotBusy: the part is decided, and comes to another end
        :raises HostTooOld: it has no such method
        """
        self._must_speak(host, _PARTS_VERSION, 'forget')
        return self._client.call(host, 'forget', _SHORT_S, version=_PARTS_VERSION, part=part)

    def _must_speak(self, host, version, method):
        """For what an older host must never be asked.

        :raises HostTooOld: calls are pinned to an older version
        """
        if self._is_pinned_below(version):
            raise exception.HostTooOld(host=host, method=(
                f'{method}, for calls are pinned to version {self._pin} (compute_rpc_version)'))

    def _is_pinned_below(self, version):
        return self._pin is not None and _number(self._pin) < _number(version)

    def _knows(self, host, version):
        if host not in self._versions:
            self.ping(host)
        return self._knew(host, version)

    def _knew(self, host, version):
        """Whether it did when it was asked last; no if it never was."""
        return _number(self._versions.get(host, FIRST_VERSION)) >= _number(version)

    def _ask(self, host, method, tell, timeout_s=None, **kwargs):
        """Ask until it is done, or the time is over; a lost answer is asked for again."""
        task, lost = uuid.uuid4().hex, 0
        ends = time.monotonic() + (math.inf if timeout_s is None else timeout_s)
        while True:
            asked_at = time.monotonic()
            if asked_at >= ends:
                raise exception.HostUnreachable(
                    host=host, reason=f'{method} took longer than {timeout_s:g} s')
            try:
                state = self._client.call(host, method, min(_SHORT_S, ends - asked_at), task=task,
                                          **kwargs)
            except exception.HostUnreachable:
                lost += 1
                if lost >= _LOST_ANSWERS:
                    raise
                time.sleep(1)
                continue
            lost = 0
            if state['done']:
                return state['result']
            if tell:
                tell(*state['progress'])
            time.sleep(max(0.0, asked_at + _ASK_EVERY_S - time.monotonic()))


def _decoded(host, answer):
    """The answer of a host, which may be of a version that says things we do not know.

    :raises HostUnreachable: it cannot be understood
    """
    try:
        return None if answer is None else wire.decode(answer)
    except ValueError as exc:
        LOG.error('The answer of host %(host)s cannot be understood: %(error)s',
                  {'host': host, 'error': exc})
        raise exception.HostUnreachable(
            host=host, reason=f'its answer cannot be understood: {exc}') from exc


def _number(version):
    return tuple(int(part) for part in version.split('.'))
