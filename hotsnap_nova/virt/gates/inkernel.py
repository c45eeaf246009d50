# SPDX-License-Identifier: Apache-2.0
"""A member's part of gates that the host kernel carries, whatever QEMU does with its NICs.

Once armed they call nobody of QEMU's, and are closed by one store; see :mod:`holder`.
"""

import contextlib
import time

from oslo_log import log

from hotsnap_nova import exception
from hotsnap_nova.virt import domain, monitor, records
from hotsnap_nova.virt.gates import bpf, holder, marks, reach, word

LOG = log.getLogger(__name__)


class MarkNotKept(exception.Conflict):
    code = 'mark_not_kept'
    message_format = 'Member %(member)s may have had packets of another that was past its cut ' \
                     'before its own: they wait for %(wait_ms)d ms, and no longer.'


class GateOverflowed(exception.Conflict):
    code = 'gate_overflowed'
    message_format = 'Member %(member)s sent more than can be kept back: %(packets)d packets ' \
                     'were dropped.'


class KernelHoldGate:
    """All that the guest sends is held."""

    keeps_suspended = False
    filters: tuple[str, ...] = ()
    carried_by = records.HOST_KERNEL
    #: Readable when the cut is asked for; this one never asks.
    asks: int | None = None

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
        self.packets = records.Packets()

    def prepare(self) -> None:
        """:raises bpf.GateUnavailable: no gate is there"""
        if reach.elsewhere(self._process):
            raise bpf.GateUnavailable(
                reason=f'QEMU of {self._member} is in another network namespace')
        self._asked = True
        self._word = self._arm()

    def _arm(self) -> word.Word:
        return self._keeper.arm(self._name, self._nics)

    def close(self) -> None:
        self._until_ns = self._word.close_gate(self._max_hold_ms)

    def deliver(self) -> None:
        """After the cut, or its failure: nothing has waited for it."""

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
        self.packets = records.Packets(account.held, account.marked, account.kept)
        LOG.info('%s: the host kernel kept %d packets back, marked %d, and had %d wait for the '
                 'cut', self._member, account.held, account.marked, account.kept)
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


class MarkerGate(KernelHoldGate):
    """What the guest sends straight to a member is marked, all else held.

    And of what it is sent nothing is delivered from another's first mark on until its own cut.

    :param marker: how this snapshot marks
    """

    def __init__(self, *of_hold, marker: marks.Marker):
        super().__init__(*of_hold)
        self._marker = marker
        self._marking: holder.Marking | None = None

    def _arm(self):
        self._marking = self._keeper.arm_marker(self._name, self._nics, self._marker)
        self.asks = self._marking.asks
        return self._marking.outward

    def close(self) -> None:
        """Inside the pause.

        :raises MarkNotKept: the guest may have had a packet from after another's cut
        """
        # The guest stands: what comes from here on it has when it runs again, after the cut.
        inward = self._marking.inward
        if inward.state is not word.State.ARMED and not inward.holds:
            raise MarkNotKept(member=self._member, wait_ms=self._marker.wait_ms)
        super().close()

    def deliver(self) -> None:
        """After the cut, or its failure: what waited for that is delivered. Repeatable.

        From here on marks are taken off and ask for nothing.
        """
        if not self._marking or self._marking.inward.state not in (
                word.State.ARMED, word.State.CLOSED):
            return
        self._marking.inward.release()
        # A holder that died is told of by what it does not answer.
        with contextlib.suppress(exception.HostUnreachable):
            self._keeper.released(self._name)

    def let_go(self, qemu: monitor.Monitor) -> None:
        self.deliver()
        super().let_go(qemu)

    def remove(self) -> None:
        super().remove()
        if self._marking:
            self._marking.close()
            self._marking = self.asks = None
