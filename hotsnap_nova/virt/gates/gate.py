# SPDX-License-Identifier: Apache-2.0
"""Gates on stock QEMU: what keeps a member's post-cut packets from the others.

``hold``, where a NIC has vhost or several queues, is carried by the host kernel; see
:mod:`holder`. Else QEMU's filter-buffer on each NIC keeps what the guest sends. It is
added switched off, where it lets everything pass, and switched on inside the
pause. Its ``interval`` is the lease: QEMU's own timer delivers what is held
when it ends, with or without us. That timer runs in guest-virtual time, which
never outruns the host's clock, and starts when the filter is switched on: so a
filter cannot have opened before ``max_hold_ms`` have passed since *before* it
was switched on. After that it counts as open, whatever it does.

``barrier``: the member stays suspended; nothing is added.
"""

import contextlib
import time

from oslo_log import log

from hotsnap_nova import exception
from hotsnap_nova.virt import domain, monitor, records
from hotsnap_nova.virt.gates import bpf, holder, reach, word

LOG = log.getLogger(__name__)

#: filter-buffer drops without a word beyond this many packets.
BUFFER_PACKETS = 10_000
_PREFIX = 'hotsnap-gate-'


class GateOverflowed(exception.Conflict):
    code = 'gate_overflowed'
    message_format = 'Member %(member)s sent more than can be kept back: %(packets)d packets ' \
                     'were dropped.'


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


class KernelHoldGate:
    """The host kernel's, at each of a guest's NICs, whatever QEMU does with them.

    Once armed it calls nobody of QEMU's, and is closed by one store.
    """

    keeps_suspended = False
    filters: tuple[str, ...] = ()

    def __init__(self, keeper: holder.Holder, member: records.MemberSpec, tag: str,
                 nics: tuple[domain.NicXml, ...], max_hold_ms: int, process: int | None):
        self._keeper = keeper
        self._member = member
        self._name = f'{tag}.{member.id}'
        self._nics = tuple(nic.target for nic in nics)
        self._max_hold_ms = max_hold_ms
        self._process = process
        self._word: word.Word | None = None
        self._asked = False
        #: When the lease ends, by CLOCK_BOOTTIME; None: not closed, or open again.
        self._until_ns: int | None = None
        self._passed = False

    def prepare(self) -> None:
        """:raises bpf.GateUnavailable: no gate is there"""
        if reach.elsewhere(self._process):
            raise bpf.GateUnavailable(
                reason=f'QEMU of {self._member} is in another network namespace')
        self._asked = True
        self._word = self._keeper.arm(self._name, self._nics)

    def close(self) -> None:
        self._until_ns = self._word.close_gate(self._max_hold_ms)

    def open(self) -> None:
        """Have what is held put back; repeating is harmless."""
        if not self._word:
            return
        held = self._word.state is word.State.CLOSED
        if held:
            self._word.release()
        if self._until_ns is not None:
            # Whether a packet came meanwhile is no matter. The host may have slept, which this
            # clock counts and the participant's does not; and it is read after the release.
            late = time.clock_gettime_ns(time.CLOCK_BOOTTIME) >= self._until_ns
            self._passed = late or not held
            self._until_ns = None
        if held:
            # A holder that died is told of by what it does not answer.
            with contextlib.suppress(exception.HostUnreachable):
                self._keeper.released(self._name)

    def let_go(self, _qemu: monitor.Monitor) -> None:
        self.open()

    def opened_by_itself(self) -> bool:
        """Once it is open: whether a packet could have passed before, or nobody can say.

        :raises GateOverflowed: packets were lost
        """
        try:
            account = self._keeper.put_back(self._name)
        except exception.HotsnapError as exc:
            LOG.warning('%s: what was held is lost: %s', self._member, exc)
            return True
        LOG.info('%s: the host kernel kept %d packets back', self._member, account.held)
        if lost := account.overflow + account.lost:
            raise GateOverflowed(member=self._member, packets=lost)
        if account.bypassed:
            LOG.warning('%s: somebody took our program out, or came before it, at %s; what passed '
                        'there is not known', self._member, ', '.join(account.bypassed))
        return self._passed or bool(account.bypassed) or account.lapsed > 0

    def remove(self) -> None:
        """Repeatable; what a dead holder left is swept."""
        if self._asked:    # it may have been armed though the answer did not come in time
            with contextlib.suppress(exception.HotsnapError):
                self._keeper.disarm(self._name)
            self._asked = False
        if self._word:
            self._word.close()
            self._word = None


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
    """
    if work.gate == 'hold' and parsed.passes_qemu:
        return KernelHoldGate(keeper(), member, tag, parsed.nics, work.max_hold_ms, process)
    if work.gate == 'hold':
        return HoldGate(qemu, tag, tuple(nic.netdev for nic in parsed.nics), work.max_hold_ms)
    return {'barrier': BarrierGate, 'none': NoGate}[work.gate]()


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
