# SPDX-License-Identifier: Apache-2.0
"""Taking everything of ours out of a guest, from what QEMU itself shows.

The same for a snapshot that ended well, one that failed, and one whose process
died: nothing here needs to know what was done, only what is there. Repeatable.
"""

import contextlib
import socket
import time

from hotsnap_nova import exception
from hotsnap_nova.virt import domain, guest, monitor, records
from hotsnap_nova.virt.disks import freezing
from hotsnap_nova.virt.gates import gate

_MIGRATION_TIMEOUT_S = 20.0


def memory_fd(tag: str) -> str:
    """The name of the descriptor that memory is written to."""
    return f'hs-{tag}-m'


def disks(qemu: monitor.Monitor, member: records.MemberSpec, tag: str) -> None:
    """Take one snapshot's jobs, filters and targets out of a guest."""
    freezing.remove(qemu, tag, member)


def memory(qemu: monitor.Monitor, member: records.MemberSpec, tag: str,
           bandwidth: int | None) -> None:
    """End one snapshot's memory stream and leave migration as it was found.

    Another's, ours or not, stays.

    :param bandwidth: the limit as it was found; None: QEMU's own
    """
    qemu.close_fd(memory_fd(tag))
    claim = qemu.bandwidth_claim()
    if claim != tag and (tag or claim is not None):
        return
    if qemu.background_snapshot():
        deadline = time.monotonic() + _MIGRATION_TIMEOUT_S
        while (status := qemu.migration().get('status')) in monitor.MIGRATING:
            if status != 'cancelling':
                with contextlib.suppress(monitor.MonitorError):
                    qemu.cancel_migration()
            if time.monotonic() > deadline:
                raise exception.HypervisorError(
                    member=member, reason=f'the memory snapshot does not end ({status})')
            time.sleep(0.01)
        qemu.set_background_snapshot(False)
    if claim is not None:
        qemu.set_bandwidth(bandwidth or monitor.STOCK_BANDWIDTH)


def kernel_gates(running: guest.Guest, tag: str) -> None:
    """Take one snapshot's gates out of the host kernel; they have opened by themselves."""
    for device, names in _kernel_gates(running):
        from hotsnap_nova.virt.gates import kernel

        for name in names:
            if gate.tag_of_kernel(name) == tag:
                kernel.remove(device, name)


def _kernel_gates(running):
    """(device, names) of our gates in the host kernel."""
    devices = [nic.target for nic in domain.DomainXml(running.full_xml()).nics
               if _is_here(nic.target)]
    if not devices:
        return
    try:
        from hotsnap_nova.virt.gates import kernel
    except ImportError:
        return    # nobody has made any without it
    for device in devices:
        if names := kernel.leftovers(device):
            yield device, names


def _is_here(device):
    """Whether this network namespace has a device of that name; asked before much is loaded."""
    try:
        return bool(device and socket.if_nametoindex(device))
    except OSError:
        return False


def member(running: guest.Guest, tag: str, *, bandwidth: int | None = None) -> None:
    """Take one snapshot out of one guest; a guest that is gone has nothing left.

    Each part is tried even where another fails. Nobody is resumed here.

    :param tag: '' takes out what bears no snapshot's mark
    :raises exception.HotsnapError: the first failure
    """
    if not running.active():
        return
    qemu = running.monitor
    with contextlib.ExitStack() as steps:
        # Run in reverse: gates, memory, disks, what is in the host kernel; each whatever the
        # others do.
        steps.callback(kernel_gates, running, tag)
        steps.callback(disks, qemu, running.spec, tag)
        steps.callback(memory, qemu, running.spec, tag, bandwidth)
        names = gate.leftovers(qemu, tag)
        steps.callback(gate.remove_all, qemu, names)
        steps.callback(gate.open_all, qemu, names)


def abandoned(running: guest.Guest, tag: str | None = None) -> None:
    """What a fresh process does for a guest that others left behind.

    It must be sure that nobody is at work on the guest. The guest is resumed
    where it carries something of ours and stands without anybody's reason.

    :param tag: a snapshot whose descriptors may be there though no node is
    """
    leftover = survey(running)
    if leftover is None:
        return
    gate.open_all(running.monitor, gate.leftovers(running.monitor))
    if running.state().ours:
        running.monitor.cont()
    for each in sorted({*leftover.snapshot_tag.split(','), tag or ''}):
        member(running, each)


def survey(running: guest.Guest) -> records.Leftover | None:
    """What this guest still carries of ours; None where it is clean."""
    if not running.active():
        return None
    qemu = running.monitor
    what = []
    tags = freezing.leftovers(qemu)
    if tags:
        what.append('disk filters, targets or jobs')
    if gates := gate.leftovers(qemu):
        what.append('gates')
        tags |= {gate.tag_of(name) for name in gates}
    if qemu.background_snapshot():
        what.append('background-snapshot capability')
    if claim := qemu.bandwidth_claim():
        what.append('migration bandwidth')
        tags.add(claim)
    try:
        for _device, names in _kernel_gates(running):
            what.append('gates in the host kernel')
            tags |= {gate.tag_of_kernel(name) for name in names}
    except exception.HotsnapError:    # `member` tries again, after all else, and says so
        if not what:
            raise
    if not what:
        return None
    return records.Leftover(running.uuid, running.name, ','.join(sorted(tags)), tuple(what))
