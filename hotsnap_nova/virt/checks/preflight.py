# SPDX-License-Identifier: Apache-2.0
"""Whether guests can be snapshotted, told before anything is touched.

Each rule looks at one thing of one guest and yields of each finding device, cause,
remedy, and what it rules out: where it does not say, the snapshot.
"""

import os
import shutil
from collections.abc import Iterator

import libvirt

from hotsnap_nova.virt import domain, guest, monitor, records, sweep
from hotsnap_nova.virt.disks import freezing

#: Room kept free beyond what memory and disks may take.
_HEADROOM_BYTES = 64 << 20

Findings = Iterator[records.Finding]


def check(guests: list[guest.Guest], gate: str, free_bytes: int | None,
          connection) -> records.Verdict:
    """The verdict for these guests together.

    :param gate: the one asked for, or 'auto'
    :param free_bytes: room where the files would go; None: not looked at
    """
    findings: list[records.Finding] = []
    needed_bytes = 0
    for running in guests:
        mine = list(_one(running, connection))
        findings += mine
        if not any(finding.cause.startswith('it is not running') for finding in mine):
            needed_bytes += _needed_bytes(running)
    if free_bytes is not None and free_bytes < needed_bytes + _HEADROOM_BYTES:
        findings.append(records.Finding(
            'the group', 'store', f'{free_bytes >> 20} MiB are free and '
            f'{(needed_bytes + _HEADROOM_BYTES) >> 20} MiB may be needed', 'make room'))
    ruled_out = {name for finding in findings for name in finding.rules_out}
    gates = tuple(name for name in records.GATES if name not in ruled_out)
    if gate == records.NO_GATE:
        gates += (records.NO_GATE,)
    return records.Verdict(gates, tuple(findings))


def _one(running: guest.Guest, connection) -> Findings:
    state = running.state()
    if not state.running:
        yield records.Finding(running.name, 'guest', f'it is not running ({state.name})',
                              'start or resume it')
        return
    parsed = domain.DomainXml(running.full_xml())
    for rule in (_disks, _nics, _memory, _channels, _passthrough, _outside_ram, _cpu,
                 _command_line):
        for told in rule(parsed):
            yield records.Finding(running.name, *told)
    for rule in (_machine, _programs, _jobs):
        for told in rule(running, parsed, connection):
            yield records.Finding(running.name, *told)


# --- rules on the XML ---


def _disks(parsed: domain.DomainXml):
    for disk in parsed.disks:
        device = disk.target or 'disk'
        if disk.device == 'lun':
            yield device, 'it is a SCSI device passed through', 'use a file-backed disk'
        elif disk.encrypted:
            yield device, 'it is encrypted', 'use an unencrypted disk'
        elif not disk.path and disk.kind == 'file':
            continue  # an empty drive
        elif disk.kind != 'file':
            # Read-only media on networks too: they could not be digested.
            kind = {'network': 'network', 'block': 'lvm or block device'}.get(
                disk.kind, disk.kind)
            yield device, f'it is a {kind} disk', 'use a qcow2 or raw file'
        elif disk.writable and disk.shareable:
            yield device, 'it is writable and shared', 'give each guest a disk of its own'
        elif disk.writable and disk.form not in ('qcow2', 'raw'):
            yield device, f'its format is {disk.form}', 'use a qcow2 or raw file'
        elif disk.writable and disk.transient:
            yield device, 'it is transient', 'use an ordinary disk'
        elif disk.device == 'floppy' and disk.writable:
            yield device, 'it is a writable floppy', 'take the medium out'


def _nics(parsed: domain.DomainXml):
    for index, nic in enumerate(parsed.nics):
        device = nic.target or nic.alias or f'net{index}'
        if nic.kind == 'hostdev':
            yield device, 'it is VFIO/SR-IOV passthrough', 'use a virtual NIC'
        elif nic.kind == 'vhostuser':
            yield device, 'vhost-user maps guest memory itself', 'use a tap NIC'
        elif nic.kind == 'vdpa':
            yield device, 'vdpa bypasses QEMU', 'use a tap NIC'
        elif _vhost(parsed, nic):
            yield (device, 'vhost bypasses QEMU\'s packet filters',
                   "set <driver name='qemu'/> and restart the guest, or use gate barrier",
                   ('hold',))
        if nic.queues > 1:
            yield (device, f'it has {nic.queues} queues (multiqueue), which packet filters refuse',
                   'use one queue and restart the guest, or use gate barrier', ('hold',))


def _vhost(parsed: domain.DomainXml, nic: domain.NicXml) -> bool:
    """libvirt takes vhost where it may: KVM, virtio, and nothing said against it."""
    if nic.driver == 'vhost':
        return True
    return (parsed.virt_type == 'kvm' and nic.driver != 'qemu'
            and nic.model.startswith('virtio') and nic.kind in ('bridge', 'network', 'ethernet',
                                                                'direct')
            and os.path.exists('/dev/vhost-net'))


def _memory(parsed: domain.DomainXml):
    source = parsed.root.find('./memoryBacking/source')
    if (source is not None and source.get('type') == 'file'
            and parsed.root.find('./memoryBacking/hugepages') is None):
        yield ('memory', 'file-backed memory cannot be write-protected',
               'use anonymous or memfd memory', ())
    for index, element in enumerate(parsed.find_all('./devices/memory')):
        model = element.get('model', 'memory')
        if model in ('nvdimm', 'virtio-pmem'):
            yield f'{model}{index}', 'it keeps state outside RAM', 'take it out'
        elif model == 'virtio-mem':
            yield f'{model}{index}', 'its unplugged ranges cannot be write-protected', \
                'use ordinary memory'
    if not os.path.exists('/dev/userfaultfd') and not os.path.exists(
            '/proc/sys/vm/unprivileged_userfaultfd'):
        yield 'memory', 'the host kernel has no userfaultfd', \
            'run a kernel with CONFIG_USERFAULTFD'


def _channels(parsed: domain.DomainXml):
    for name, what in (('vsock', 'vsock'), ('shmem', 'ivshmem shared memory')):
        for element in parsed.find_all(f'./devices/{name}'):
            yield (element.get('name', name), f'{what} can carry data between guests outside '
                   'their NICs', 'take it out', ())
    for kind in ('serial', 'console', 'parallel', 'channel'):
        for element in parsed.find_all(f'./devices/{kind}'):
            if element.get('type') in ('tcp', 'udp'):
                yield kind, f'a {element.get("type")} {kind} may lead to another guest', \
                    'use a pty, a file or a local socket'


def _passthrough(parsed: domain.DomainXml):
    for element in parsed.find_all('./devices/hostdev'):
        alias = element.find('alias')
        yield (alias.get('name') if alias is not None else 'hostdev',
               'it is a host device passed through (VFIO)', 'use a virtual device', ())


def _outside_ram(parsed: domain.DomainXml):
    for element in parsed.find_all('./devices/filesystem'):
        driver = element.find('driver')
        kind = driver.get('type', '9p') if driver is not None else '9p'
        yield 'filesystem', f'{kind} keeps state outside RAM', 'take it out'
    if parsed.find_all('./devices/tpm'):
        yield 'tpm', 'a vTPM keeps state outside RAM', 'take it out'
    if parsed.find_all('./launchSecurity'):
        yield 'memory', 'encrypted memory cannot be saved', 'start it without launchSecurity'


def _cpu(parsed: domain.DomainXml):
    cpu = parsed.cpu
    if cpu is None:
        return
    if cpu.get('mode') == 'host-passthrough' and cpu.get('migratable') == 'off':
        yield 'cpu', 'host-passthrough with migratable=off cannot be restored', \
            'set migratable=on'
    for feature in cpu.findall('feature'):
        if feature.get('name') == 'invtsc' and feature.get('policy') in ('require', 'force'):
            yield 'cpu', 'a guest with invtsc cannot be restored', 'take the feature out'


def _command_line(parsed: domain.DomainXml):
    if parsed.find_all('./{http://libvirt.org/schemas/domain/qemu/1.0}commandline'):
        yield ('guest', 'qemu:commandline may hide NICs, disks or clocks from us',
               'start it without', ())


# --- rules that ask libvirt or QEMU; they read only ---


def _programs(_running, _parsed, _connection):
    for program in ('qemu-storage-daemon', 'qemu-img'):
        if not shutil.which(program):
            yield 'host', f'{program} is not installed', 'install qemu-utils'


def _machine(_running, parsed: domain.DomainXml, connection):
    try:
        connection.getDomainCapabilities(parsed.emulator or None, parsed.arch, parsed.machine,
                                         parsed.virt_type)
    except libvirt.libvirtError as exc:
        yield ('machine', f'machine type {parsed.machine} cannot be restored here: {exc}',
               'install a QEMU that has it', ())


def _jobs(running: guest.Guest, _parsed, _connection):
    qemu = running.monitor
    leftover = sweep.survey(running)
    if leftover is not None:
        yield ('guest', f'an earlier snapshot left {", ".join(leftover.what)}, or is at work',
               'wait for it, or run: hotsnap recover', ())
        return
    if running.libvirt_job() or qemu.migration().get('status') in monitor.MIGRATING:
        yield 'guest', 'a migration or save is in flight', 'wait for it'
    for job in qemu.jobs():
        yield 'disks', f'block job {job} is in flight', 'wait for it or cancel it'


# --- space ---


def _needed_bytes(running: guest.Guest) -> int:
    """What memory and disks may take at most: all of memory, all that is allocated."""
    parsed = domain.DomainXml(running.full_xml())
    rows = freezing.running_disks(
        running.monitor.block_devices(),
        {disk.alias: disk.target for disk in parsed.disks if disk.writable})
    total = parsed.memory_bytes
    for row in rows.values():
        image = row['inserted']['image']
        allocated = 0
        while image:
            allocated += image.get('actual-size', image['virtual-size'])
            image = image.get('backing-image')
        total += min(allocated, row['inserted']['image']['virtual-size'])
    return total

