# SPDX-License-Identifier: Apache-2.0
"""What the guest's own QEMU has to say, and libvirt of it.

QEMU is asked by commands that fail by design, before they change anything: how they fail
is the answer.
"""

import shutil

import libvirt

from hotsnap_nova.virt import monitor, sweep
from hotsnap_nova.virt.checks import subject

#: What disks are frozen with; distributions may leave any out of what their QEMU may use.
_DRIVERS = ('copy-before-write', 'snapshot-access', 'nbd')


def jobs(asked: subject.Subject):
    qemu = asked.qemu
    leftover = sweep.survey(asked.guest)
    if leftover is not None:
        yield ('guest', f'an earlier snapshot left {", ".join(leftover.what)}, or is at work',
               'wait for it, or run: hotsnap recover')
        return
    if asked.guest.libvirt_job() or qemu.migration().get('status') in monitor.MIGRATING:
        yield 'guest', 'a migration or save is in flight', 'wait for it'
    for job in qemu.jobs():
        yield 'disks', f'block job {job} is in flight', 'wait for it or cancel it'


def blockers(asked: subject.Subject):
    """What QEMU would not migrate, and so not save."""
    for reason in asked.qemu.migration().get('blocked-reasons', ()):
        yield ('guest', f'QEMU cannot save it: {reason.rstrip(".")}',
               'take out, or unmount in the guest, what QEMU names')


def protection(asked: subject.Subject):
    """Whether QEMU can write-protect the guest's memory: its user, its kernel, its memory."""
    if asked.qemu.migration().get('status') in monitor.MIGRATING:
        return
    refusal = asked.qemu.background_snapshot_refusal()
    if 'host kernel' in refusal:
        yield ('memory', 'QEMU may not write-protect memory (userfaultfd)',
               'set vm.unprivileged_userfaultfd=1, or let QEMU\'s user open /dev/userfaultfd; '
               'Linux 5.7 or later')
    elif 'memory configuration' in refusal:
        yield ('memory', 'memory of its kind cannot be write-protected',
               'use anonymous or memfd memory, not files')
    elif refusal:
        yield 'memory', f'QEMU takes no snapshot of it: {refusal}', 'see what QEMU says'


def drivers(asked: subject.Subject):
    """Whether QEMU may use the block drivers that disks are frozen with."""
    node = next((name for name in sorted(asked.qemu.node_names())), None)
    if node is None or not asked.images:
        return
    for driver in _DRIVERS:
        if asked.qemu.forbids_driver(driver, node):
            yield ('host', f'its QEMU may not use the block driver {driver}: it is not in the '
                   'list of drivers that its package was built with',
                   'run guests with a QEMU that may')


def frozen(asked: subject.Subject):
    """Its memory would say so, too: who thaws them is not in the snapshot."""
    if asked.parsed.agent_listens and asked.guest.frozen():
        yield ('guest', 'its agent has frozen its file systems: it would be restored with them '
               'frozen, and nobody to thaw them',
               'wait for the backup that wanted it, or run: virsh domfsthaw')


def programs(_asked: subject.Subject):
    for program in ('qemu-storage-daemon', 'qemu-img'):
        if not shutil.which(program):
            yield 'host', f'{program} is not installed', 'install qemu-utils'


def machine(asked: subject.Subject):
    parsed = asked.parsed
    try:
        asked.connection.getDomainCapabilities(
            parsed.emulator or None, parsed.arch, parsed.machine, parsed.virt_type)
    except libvirt.libvirtError as exc:
        yield ('machine', f'machine type {parsed.machine} cannot be restored here: {exc}',
               'install a QEMU that has it')


RULES = (programs, machine, jobs, blockers, protection, drivers, frozen)
