# SPDX-License-Identifier: Apache-2.0
"""One snapshot, read whole and compared with what was written."""

import threading
from collections.abc import Callable

from hotsnap_nova import exception
from hotsnap_nova.conductor import fanout, restorations, work
from hotsnap_nova.protocol import messages


class Verifying(work.Work):
    """Verifies a snapshot; its row tells how that ended.

    :param found: the row
    :param action: its `last_action`, ended with it
    :param generation: of the row
    """

    def __init__(self, found, database, compute, owner: str, lease_s: float, action: dict,
                 generation: int):
        super().__init__(found.id, database, owner, lease_s)
        self._row = found
        self._compute = compute
        self._action = action
        self._generation = generation
        self._told = False
        self._wish: messages.Cause | None = None
        self._result = None
        self._error: Exception | None = None
        self._reading = threading.Thread(target=self._read, daemon=True,
                                         name=f'hotsnap-verify-{found.id[:8]}')

    def abort(self, cause: messages.Cause) -> None:
        with self._news:
            self._wish = self._wish or cause
            self._news.notify_all()

    def _begin(self):
        self._reading.start()

    def _is_done(self):
        return self._told

    def _do_what_is_due(self):
        if self._wish or self._result or self._error:
            self._tell()
        return True

    def _tell(self):
        """Have the row tell the end, unless it is another's by now; where that fails, later."""
        error = self._error
        if self._wish and not self._result:
            error = exception.Aborted(self._wish.text)
        self._told = self._tell_end(self._generation, self._action, error, self._result)

    def _read(self):
        try:
            self._result = verified(self._row, self._compute, self._must_be_wanted)
        except Exception as exc:
            self._error = exc
        with self._news:
            self._news.notify_all()

    def _must_be_wanted(self, *_done):
        """Asked while hosts read: somebody wants to know."""
        if self._wish or self._leaving:
            raise exception.Aborted(who='its user')


def verified(found, compute, tell: Callable[[int, int], None] | None = None) -> dict:
    """``{'files', 'size_bytes'}`` of what hosts have proved, in all.

    Which members there are, and their digests, is the row's word; a store's where the row, of an
    older version, has not kept it.

    :param found: the row
    :raises SnapshotDamaged, ManifestDamaged: names what is not as it was written
    """
    by_host: dict[str, list[str]] = {}
    for each in found.members:
        by_host.setdefault(each.host, []).append(each.member_id)
    proofs = restorations.proofs(found)
    done = fanout.each(sorted(by_host), lambda host: compute.verify(
        host, found.id, tell, by_host[host],
        {each: proofs[each] for each in by_host[host] if each in proofs}))
    return {key: sum(each[key] for each in done.values()) for key in ('files', 'size_bytes')}
