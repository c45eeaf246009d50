# SPDX-License-Identifier: Apache-2.0
"""What a guest is made of, as a snapshot must know it."""

from hotsnap_nova import exception
from hotsnap_nova.virt import domain, guest, records
from hotsnap_nova.virt.disks import freezing, media


def writable_disks(running: guest.Guest, parsed: domain.DomainXml) -> tuple[freezing.Disk, ...]:
    """The disks to freeze, with QEMU's names for them.

    :raises exception.Refused: QEMU shows none for one of the XML
    """
    wanted = {disk.alias: disk for disk in parsed.disks if disk.writable}
    rows = freezing.running_disks(
        running.monitor.block_devices(),
        {alias: disk.target for alias, disk in wanted.items()})
    found = []
    for disk in wanted.values():
        row = rows.get(disk.target)
        if row is None:
            raise exception.Refused(
                member=running.spec, device=disk.target,
                cause='QEMU shows no such disk', remedy='restart the guest')
        node = row['inserted']['node-name']
        if len(node) > freezing.MAX_NODE_NAME:
            raise exception.Refused(
                member=running.spec, device=disk.target,
                cause=f'its block node {node} has too long a name', remedy='report it')
        found.append(freezing.Disk(
            target=disk.target, qdev=row['qdev'], node=node, path=disk.path,
            size_bytes=row['inserted']['image']['virtual-size']))
    return tuple(found)


def of_member(running: guest.Guest, parsed: domain.DomainXml,
              frozen: tuple[freezing.Disk, ...]) -> records.MemberFacts:
    """What a restore must find again, and what people want to see.

    :raises exception.Refused: a medium cannot be read
    """
    forms = {disk.target: disk.form for disk in parsed.disks}
    return records.MemberFacts(
        member=running.uuid, name=running.name, machine=parsed.machine,
        cpu=parsed.cpu_name, qemu_version=running.monitor.version(),
        libvirt_version=running.libvirt_version(), memory_bytes=parsed.memory_bytes,
        vcpus=parsed.vcpus,
        disks=tuple({'target': disk.target, 'file': f'{disk.target}.qcow2',
                     'format': forms[disk.target], 'size_bytes': disk.size_bytes,
                     'path': disk.path}
                    for disk in frozen),
        media=tuple(_medium(running, disk) for disk in parsed.disks if disk.medium),
        host_cpu=running.host_cpu())


def _medium(running, disk):
    try:
        return media.describe(disk)
    except OSError as exc:    # since the check
        raise exception.Refused(
            member=running.spec, device=disk.target, cause=media.fault(disk) or str(exc),
            remedy='eject it, or insert it again') from exc
