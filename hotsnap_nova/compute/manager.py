# SPDX-License-Identifier: Apache-2.0
"""One host's guests and store: its parts in snapshots and restores, and their end.

What others may ask over the bus is in `endpoint`; this is for the process that has it.
"""

import threading

from oslo_log import log as logging

from hotsnap_nova import exception
from hotsnap_nova.compute import expiry, locks, owner, participants, remains, restores
from hotsnap_nova.protocol import messages
from hotsnap_nova.protocol.restore import messages as restore_messages
from hotsnap_nova.storage import base

LOG = logging.getLogger(__name__)

_SWEEP_S = 5.0


class ComputeManager:
    """Works with one host's guests and store.

    :param engine: `virt.host.Engine`, or one like it
    :param domain_locks: see `participants.Participants`
    :param guests_owner: likewise
    """

    def __init__(self, host: str, engine, store: base.Store, state_path: str,
                 domain_locks: locks.Locks | None = None,
                 guests_owner: owner.Owner | None = None):
        self.host = host
        self.engine = engine
        self.store = store
        self._participants = participants.Participants(
            host, engine, store, state_path, domain_locks, guests_owner)
        self._restores = restores.Restores(
            host, engine, store, state_path, self._participants.locks,
            self._participants.domain_locks, guests_owner)
        self.remains = remains.Remains(host, state_path, self._participants, self._restores)
        self._expiry = expiry.Expiry(
            lambda: engine.drop_expired(self._restores.on_record()))

    def start(self) -> tuple[str, ...]:
        """Clean up after processes that died; ids of the snapshots they left."""
        # Who was refused a guest is on record, too. A restore that was not has kept what it had to
        # do; a snapshot may have left something in a QEMU, and goes before all other restores.
        self._restores.adopt()
        found = self._participants.start()
        for snapshot in found:
            LOG.warning('Cleaned up after snapshot %s, which a process left', snapshot)
        for restore in self._restores.start():
            LOG.warning('Goes on with restore %s, which a process left', restore)
        for held in (self._participants.locks, self._participants.domain_locks):
            held.sweep()
        # After the guests, and waited for no longer than this: a store may hang.
        sweeping = threading.Thread(target=self._sweep, daemon=True, name='hotsnap-sweep')
        sweeping.start()
        sweeping.join(_SWEEP_S)
        self._expiry.start()
        return found

    def _sweep(self):
        """Remove files that nobody needs."""
        try:
            self._participants.sweep()
            self.store.sweep()
        except exception.HotsnapError as exc:    # the next start may be better
            LOG.error('Files that processes left cannot be removed: %s', exc)
        except Exception:
            LOG.exception('Files that processes left cannot be removed')

    def stop(self) -> None:
        """End; restores stay as they are, and whoever starts next goes on with them."""
        self._expiry.stop()
        self._participants.close(self._restores.close())
        self.engine.close()

    def serve(self, request):
        """The answer to a coordinator's request or order; None where there is none to give."""
        if isinstance(request, restore_messages.Order):
            return self._restores.serve(request)
        return self._participants.serve(request)

    def check_restore(self, restore: str, share: restore_messages.Share
                      ) -> tuple[restore_messages.MemberWarning, ...]:
        """What to know of a share that this host can restore; touches nothing.

        :raises HotsnapError: what stands in the way
        """
        return self._restores.check(restore, share)

    def withdraw(self, member_id: str, why: str) -> None:
        """A guest's owner needs it: snapshots and restores that have it are given up.

        :raises GuestBusy: one does not let go of it in time
        """
        self._restores.withdraw(member_id, self._withdrawn(why))
        self._participants.withdraw(member_id, self._withdrawn(why))

    def holds(self, member_id: str) -> bool:
        """Whether a snapshot or restore is at work on this guest."""
        return self._participants.domain_locks.holds(f'domain-{member_id}')

    def withdraw_all(self, why: str) -> None:
        """This service is about to end; snapshots under way cannot go on without it."""
        self._participants.withdraw_all(self._withdrawn(why))

    def _withdrawn(self, why):
        return messages.Cause('withdrawn', why, self.host)
