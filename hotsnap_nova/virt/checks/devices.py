# SPDX-License-Identifier: Apache-2.0
"""Devices that a snapshot cannot take, or that rule a gate out, by the guest's XML.

What QEMU itself cannot save it tells (`running`); here is what it would save
without a word, and what leads around the gates.
"""

from hotsnap_nova.virt.checks import subject
from hotsnap_nova.virt.gates import reach
from hotsnap_nova.virt.memory import hugepages


def disks(asked: subject.Subject):
    for disk in asked.parsed.disks:
        device = disk.target or 'disk'
        if disk.device == 'lun':
            yield device, 'it is a SCSI device passed through', 'use a file-backed disk'
        elif disk.encrypted:
            yield device, 'it is encrypted', 'use an unencrypted disk'
        elif not disk.path and disk.kind == 'file':
            continue  # an empty drive
        elif disk.kind == 'volume':
            yield (device, 'libvirt does not tell a file of its storage pool\'s volume',
                   'start the pool, or use a qcow2 or raw file')
        elif disk.kind != 'file':
            # Read-only media on networks too: they could not be digested.
            kind = {'network': 'network', 'block': 'lvm or block device'}.get(
                disk.kind, disk.kind)
            yield device, f'it is a {kind} disk', 'use a qcow2 or raw file'
        elif disk.device == 'floppy' and not disk.readonly:
            yield device, 'it is a writable floppy', 'take the medium out'
        elif disk.writable and disk.shareable:
            yield device, 'it is writable and shared', 'give each guest a disk of its own'
        elif disk.writable and disk.form not in ('qcow2', 'raw'):
            yield device, f'its format is {disk.form}', 'use a qcow2 or raw file'
        elif disk.writable and disk.transient:
            yield device, 'it is transient', 'use an ordinary disk'


def nics(asked: subject.Subject):
    for index, nic in enumerate(asked.parsed.nics):
        device = nic.target or nic.alias or f'net{index}'
        if nic.kind == 'hostdev':
            yield device, 'it is VFIO/SR-IOV passthrough', 'use a virtual NIC'
        elif nic.kind == 'vhostuser':
            yield device, 'vhost-user maps guest memory itself', 'use a tap NIC'
        elif nic.kind == 'vdpa':
            yield device, 'vdpa bypasses QEMU', 'use a tap NIC'
        else:
            yield from _past_filters(asked, nic, device)


def _past_filters(asked, nic, device):
    """What QEMU's filters cannot hold the host kernel may: all NICs of such a guest."""
    if not asked.parsed.passes_qemu:
        return
    told = reach.missing(nic.target, hugepages.process_of(asked.guest.uuid))
    if not told:
        return
    missing, remedy = told
    found = []
    if asked.parsed.vhost(nic):
        found.append(('vhost bypasses QEMU\'s packet filters', "set <driver name='qemu'/>"))
    if nic.queues > 1:
        found.append((f'it has {nic.queues} queues (multiqueue), which packet filters refuse',
                      'use one queue'))
    if not found:
        found.append(('another NIC of this guest has vhost or several queues, so that the host '
                      'kernel would have to hold for all', 'change that one'))
    for cause, otherwise in found:
        yield (device, f'{cause}, and the host kernel keeps nothing back: {missing}',
               f'{remedy}; or {otherwise} and restart the guest, or use gate barrier',
               ('hold',))


def memory(asked: subject.Subject):
    for index, element in enumerate(asked.parsed.find_all('./devices/memory')):
        model = element.get('model', 'memory')
        if model in ('nvdimm', 'virtio-pmem'):
            yield f'{model}{index}', 'it keeps state outside RAM', 'take it out'
        elif model == 'virtio-mem':
            yield f'{model}{index}', 'its unplugged ranges cannot be write-protected', \
                'use ordinary memory'


def around_nics(asked: subject.Subject):
    for name, what in (('vsock', 'vsock'), ('shmem', 'ivshmem shared memory')):
        for element in asked.parsed.find_all(f'./devices/{name}'):
            yield (element.get('name', name), f'{what} can carry data between guests outside '
                   'their NICs', 'take it out')


def outside_ram(asked: subject.Subject):
    parsed = asked.parsed
    for element in parsed.find_all('./devices/hostdev'):
        alias = element.find('alias')
        yield (alias.get('name') if alias is not None else 'hostdev',
               'it is a host device passed through (VFIO)', 'use a virtual device')
    for element in parsed.find_all('./devices/filesystem'):
        driver = element.find('driver')
        kind = driver.get('type', '9p') if driver is not None else '9p'
        yield 'filesystem', f'{kind} keeps state outside RAM', 'take it out'
    if parsed.find_all('./devices/tpm'):
        yield 'tpm', 'a vTPM keeps state outside RAM', 'take it out'
    if parsed.find_all('./launchSecurity'):
        yield 'memory', 'encrypted memory cannot be saved', 'start it without launchSecurity'


def command_line(asked: subject.Subject):
    if asked.parsed.find_all('./{http://libvirt.org/schemas/domain/qemu/1.0}commandline'):
        yield ('guest', 'qemu:commandline may hide NICs, disks or clocks from us',
               'start it without')


RULES = (disks, nics, memory, around_nics, outside_ram, command_line)
