# SPDX-License-Identifier: Apache-2.0
"""What a coordinator asks of a host.

Version history:

* 1.0  find, check, receive, manifest, delete, verify, export, restore
"""

import time
import uuid
from collections.abc import Callable

from hotsnap_nova import exception, rpc
from hotsnap_nova.protocol import messages, wire

TOPIC = 'hotsnap-compute'
VERSION = '1.0'

_SHORT_S = 30.0
_LOST_ANSWERS = 5

#: Called now and then with (done_bytes, total_bytes), 0 where not known; may raise to give up.
Tell = Callable[[int, int], None]


class ComputeApi:
    """Calls hosts; errors of a host are raised as they were there."""

    def __init__(self, transport, context: dict | None = None):
        self._client = rpc.Client(transport, TOPIC, VERSION, context)

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
        answer = self._client.call(request.host, 'receive', timeout_s,
                                   request=wire.encode(request))
        return None if answer is None else wire.decode(answer)

    def manifest(self, host: str, snapshot: str) -> dict:
        return self._client.call(host, 'manifest', _SHORT_S, snapshot=snapshot)

    def delete(self, host: str, snapshot: str) -> bool:
        """Whether there was anything to delete."""
        return self._client.call(host, 'delete', _SHORT_S, snapshot=snapshot)

    def verify(self, host: str, snapshot: str, tell: Tell | None = None) -> dict:
        """``{'files', 'size_bytes'}``, proved. As long as reading everything takes."""
        return self._ask(host, 'verify', tell, snapshot=snapshot)

    def export(self, host: str, snapshot: str, destination: str) -> dict:
        """Paths by member name and kind, on that host."""
        return self._ask(host, 'export', None, snapshot=snapshot, destination=destination)

    def restore(self, host: str, step: str, snapshot: str, restore_id: str, paused: bool,
                tell: Tell | None = None) -> list[str]:
        """Do a step of a restore (`compute.restores`), and wait for its end.

        :returns: what an undo had to leave as it is, in words for the user
        """
        return self._ask(host, 'restore', tell, step=step, snapshot=snapshot,
                         restore_id=restore_id, paused=paused)

    def _ask(self, host, method, tell, **kwargs):
        """Ask until it is done; a lost answer is asked for again."""
        task, lost = uuid.uuid4().hex, 0
        while True:
            try:
                state = self._client.call(host, method, _SHORT_S, task=task, **kwargs)
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
