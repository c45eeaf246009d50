# SPDX-License-Identifier: Apache-2.0
"""Gates on stock QEMU: what keeps a member's post-cut packets from the others.

``hold``: QEMU's filter-buffer on each NIC keeps what the guest sends. It is
added switched off, where it lets everything pass, and switched on inside the
pause. Its ``interval`` is the lease: QEMU's own timer delivers what is held
when it ends, with or without us. That timer runs in guest-virtual time, which
never outruns the host's clock, and starts when the filter is switched on: so a
filter cannot have opened before ``max_hold_ms`` have passed since *before* it
was switched on. After that it counts as open, whatever it does.

``barrier``: the member stays suspended; nothing is added.
"""

import contextlib

from hotsnap_nova.virt import monitor

#: filter-buffer drops without a word beyond this many packets.
BUFFER_PACKETS = 10_000
_PREFIX = 'hotsnap-gate-'


class HoldGate:
    """filter-buffer on each of a guest's NICs.

    :param netdevs: ids of QEMU's network back ends, one a NIC
    """

    keeps_suspended = False

    def __init__(self, qemu: monitor.Monitor, tag: str, netdevs: tuple[str, ...],
                 max_hold_ms: int):
        self._qemu = qemu
        self._interval_us = max_hold_ms * 1000
        self._netdevs = netdevs
        self.filters = tuple(f'{_PREFIX}{tag}-{index}' for index in range(len(netdevs)))

    def prepare(self) -> None:
        for name, netdev in zip(self.filters, self._netdevs, strict=True):
            # queue=rx is what the back end receives from the guest: its egress.
            self._qemu.add_object(qom_type='filter-buffer', id=name, netdev=netdev, queue='rx',
                                  interval=self._interval_us, status='off')

    def close(self) -> None:
        for name in self.filters:
            self._qemu.set_filter(name, True)

    def open(self) -> None:
        """Deliver what is held and let the rest pass; repeating is harmless."""
        for name in self.filters:
            self._qemu.set_filter(name, False)


class BarrierGate:
    """The member stays suspended until the release."""

    keeps_suspended = True
    filters: tuple[str, ...] = ()

    def prepare(self) -> None:
        pass

    def close(self) -> None:
        pass

    def open(self) -> None:
        pass


class NoGate(BarrierGate):
    """Nothing is kept back: the control of our tests."""

    keeps_suspended = False


def make(kind: str, qemu: monitor.Monitor, tag: str, netdevs: tuple[str, ...],
         max_hold_ms: int):
    """The gate called ``kind``."""
    if kind == 'hold':
        return HoldGate(qemu, tag, netdevs, max_hold_ms)
    return {'barrier': BarrierGate, 'none': NoGate}[kind]()


def leftovers(qemu: monitor.Monitor, tag: str | None = None) -> tuple[str, ...]:
    """Our filters in this guest, whatever process added them.

    :param tag: those of one snapshot
    """
    prefix = _PREFIX if tag is None else f'{_PREFIX}{tag}-'
    return tuple(name for name in qemu.objects() if name.startswith(prefix))


def tag_of(name: str) -> str:
    """The snapshot that a filter of ours belongs to."""
    return name.removeprefix(_PREFIX).rsplit('-', 1)[0]


def open_all(qemu: monitor.Monitor, names: tuple[str, ...]) -> None:
    """Deliver what these filters hold; one that is gone holds nothing."""
    for name in names:
        with contextlib.suppress(monitor.MonitorError):
            qemu.set_filter(name, False)


def remove_all(qemu: monitor.Monitor, names: tuple[str, ...]) -> None:
    for name in names:
        with contextlib.suppress(monitor.MonitorError):
            qemu.del_object(name)
