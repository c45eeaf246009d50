# SPDX-License-Identifier: Apache-2.0
"""Gates on stock QEMU: what keeps a member's post-cut packets from the others.

``marker``, and ``hold`` where a NIC has vhost or several queues, are carried by the host kernel;
see :mod:`inkernel`. Else QEMU's filter-buffer on each NIC keeps what the guest sends. It is
added switched off, where it lets everything pass, and switched on inside the
pause. Its ``interval`` is the lease: QEMU's own timer delivers what is held
when it ends, with or without us. That timer runs in guest-virtual time, which
never outruns the host's clock, and starts when the filter is switched on: so a
filter cannot have opened before ``max_hold_ms`` have passed since *before* it
was switched on. After that it counts as open, whatever it does.

``barrier``: the member stays suspended; nothing is added.
"""

import contextlib

from hotsnap_nova.virt import domain, monitor, records
from hotsnap_nova.virt.gates import bpf, inkernel, marks

#: filter-buffer drops without a word beyond this many packets.
BUFFER_PACKETS = 10_000
_PREFIX = 'hotsnap-gate-'


class HoldGate:
    """filter-buffer on each of a guest's NICs.

    :param netdevs: ids of QEMU's network back ends, one a NIC
    """

    keeps_suspended = False
    carried_by = records.QEMU
    asks: int | None = None
    packets = records.Packets()

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

    def deliver(self) -> None:
        """After the cut, or its failure: nothing has waited for it."""

    def open(self) -> None:
        """Deliver what is held and let the rest pass; repeating is harmless."""
        for name in self.filters:
            self._qemu.set_filter(name, False)

    def let_go(self, qemu: monitor.Monitor) -> None:
        """Open it, whatever else is wrong.

        :param qemu: the connection that there is now
        """
        open_all(qemu, self.filters)

    def opened_by_itself(self) -> bool:
        """Once it is open: whether the gate knows that it did so before. This one cannot."""
        return False

    def remove(self) -> None:
        """What is not in QEMU; that is swept."""


class BarrierGate:
    """The member stays suspended until the release."""

    keeps_suspended = True
    filters: tuple[str, ...] = ()
    carried_by = ''
    asks: int | None = None
    packets = records.Packets()

    def prepare(self) -> None:
        pass

    def close(self) -> None:
        pass

    def deliver(self) -> None:
        pass

    def open(self) -> None:
        pass

    def let_go(self, _qemu: monitor.Monitor) -> None:
        pass

    def opened_by_itself(self) -> bool:
        return False

    def remove(self) -> None:
        pass


class NoGate(BarrierGate):
    """Nothing is kept back: the control of our tests."""

    keeps_suspended = False


def make(work: records.Work, qemu: monitor.Monitor, member: records.MemberSpec, tag: str,
         parsed: domain.DomainXml, keeper, process: int | None):
    """This member's part of the snapshot's gate.

    :param keeper: gives the :class:`holder.Holder`, which is started where it is needed
    :param process: QEMU's, where it is seen
    :raises bpf.GateUnavailable: nobody has told how to mark
    """
    if work.gate == records.MARKER:
        return inkernel.MarkerGate(keeper(), member, tag, parsed.nics, work.max_hold_ms, process,
                                   marker=_marker(work))
    if work.gate == 'hold' and parsed.passes_qemu:
        return inkernel.KernelHoldGate(keeper(), member, tag, parsed.nics, work.max_hold_ms,
                                       process)
    if work.gate == 'hold':
        return HoldGate(qemu, tag, tuple(nic.netdev for nic in parsed.nics), work.max_hold_ms)
    return {'barrier': BarrierGate, 'none': NoGate}[work.gate]()


def _marker(work):
    try:
        return marks.of(work.marker | {'wait_ms': work.max_hold_ms})
    except (LookupError, TypeError, ValueError) as exc:
        raise bpf.GateUnavailable(
            reason=f'the coordinator has not told how to mark: {exc!r}') from exc


def leftovers(qemu: monitor.Monitor, tag: str | None = None) -> tuple[str, ...]:
    """Our filters in this guest, whatever process added them.

    :param tag: those of one snapshot
    """
    prefix = _PREFIX if tag is None else f'{_PREFIX}{tag}-'
    return tuple(name for name in qemu.objects() if name.startswith(prefix))


def tag_of(name: str) -> str:
    """The snapshot that a filter of ours belongs to."""
    return name.removeprefix(_PREFIX).rsplit('-', 1)[0]


def tag_of_kernel(name: str) -> str:
    """The snapshot that a gate in the host kernel belongs to."""
    return name.partition('.')[0]


def open_all(qemu: monitor.Monitor, names: tuple[str, ...]) -> None:
    """Deliver what these filters hold; one that is gone holds nothing."""
    for name in names:
        with contextlib.suppress(monitor.MonitorError):
            qemu.set_filter(name, False)


def remove_all(qemu: monitor.Monitor, names: tuple[str, ...]) -> None:
    for name in names:
        with contextlib.suppress(monitor.MonitorError):
            qemu.del_object(name)
