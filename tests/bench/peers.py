# SPDX-License-Identifier: Apache-2.0
"""The same guest stopped by other means, for comparison in the same run."""

import time

import libvirt

from hotsnap_nova.virt import guest as guests
from tests.lab import Guest

_EVENT_TIMEOUT_S = 30


class Peers:
    """Pauses of one lab guest that are not ours, in ms by QEMU's own clock."""

    def __init__(self, uri: str, member: Guest):
        self._member = member
        self._connection = guests.connect(uri)
        self._guest = guests.Guest(self._connection, member.domain_name)

    def close(self) -> None:
        self._connection.close()

    def stop_and_cont(self) -> float:
        """A bare ``stop`` and ``cont``: what no snapshot can be faster than."""
        return self._paused(self._stop_and_cont)

    def _stop_and_cont(self) -> None:
        self._guest.monitor.stop()
        self._guest.monitor.cont()

    def libvirt_live(self) -> float:
        """libvirt's external memory snapshot with LIVE: pre-copy, then a stop."""
        live = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_LIVE
        return self._paused(lambda: self._libvirt_snapshot(live))

    def libvirt_stopped(self) -> float:
        """libvirt's external memory snapshot of a guest that stands meanwhile."""
        return self._paused(lambda: self._libvirt_snapshot(0))

    def _libvirt_snapshot(self, flags: int) -> None:
        memory = self._member.folder / 'peer.save'
        disks = ''.join(f"<disk name='vd{letter}' snapshot='no'/>"
                        for letter in 'abcd'[:len(self._member.spec.disks)])
        domain = self._member.domain
        snapshot = domain.snapshotCreateXML(
            f"<domainsnapshot><memory snapshot='external' file='{memory}'/>"
            f'<disks>{disks}</disks></domainsnapshot>', flags)
        snapshot.delete(libvirt.VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY)
        memory.unlink()

    def _paused(self, action) -> float:
        with self._guest.watched() as watch:
            action()
            if not watch.wait('RESUME', 1, _EVENT_TIMEOUT_S):
                raise RuntimeError(f'{self._member.domain_name} was never resumed')
            time.sleep(0.1)
            return (watch.last('RESUME') - watch.last('STOP')) * 1e3
