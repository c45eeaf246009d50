# SPDX-License-Identifier: Apache-2.0
"""What stands in the way of a member's restore, told before anything is stopped.

Each yields device, cause, remedy. What the snapshot's definition and today's do
not share is named here one by one; libvirt's own comparison comes last.
"""

import os
import tempfile

from hotsnap_nova.virt import domain, guest, records
from hotsnap_nova.virt.disks import media
from hotsnap_nova.virt.memory import saveimage


def of_member(found: guest.Guest | None, member: records.RestoreMember, wanted: str, connection):
    """Yield device, cause, remedy for what would make this member's restore fail.

    :param found: its domain; None: it is to be defined
    :param wanted: the XML that it would be started with
    """
    if found and not found.persistent():
        yield 'guest', 'its domain is transient: nothing is defined to restore to', \
            'define the domain'
        return
    if found and found.has_saved_state():
        yield 'guest', 'it has a managed save image, which would be started instead', \
            'start it, or remove that with virsh managedsave-remove'
    defined = domain.DomainXml(wanted)
    facts = member.facts
    changes = [*_hardware(facts, defined, connection), *_ports(member, defined)]
    yield from changes
    kept = {disk['target'] for disk in facts['disks']}
    now = {disk.target: disk for disk in defined.disks if disk.writable}
    for target in sorted(kept ^ now.keys()):
        change = 'gone' if target in kept else 'new since the snapshot'
        yield target, f'this disk is {change}', 'define the disks of the snapshot'
    for target in sorted(kept & now.keys()):
        if now[target].kind != 'file' or not os.path.isdir(os.path.dirname(now[target].path)):
            yield target, f'{now[target].path or "its source"} is not a file that can be put ' \
                'back', 'define a file-backed disk'
        elif now[target].chained:
            yield target, 'its definition names a backing file, and the restored disk has none', \
                'define it without <backingStore>'
    yield from media.changes(facts.get('media', ()), defined)
    yield from _space(facts, now)
    if not changes:    # which libvirt would tell of, too, and less clearly
        yield from _incompatible(member, wanted, connection)


def _hardware(facts: dict, defined: domain.DomainXml, connection):
    machine = guest.canonical_machine(connection, defined)
    if facts['machine'] != machine:
        yield ('machine', f'it was {facts["machine"]} and is now {machine}',
               'define the machine type of the snapshot')
    for name, unit, before, now in (
            ('vcpus', '', facts.get('vcpus'), defined.vcpus),
            ('memory', ' MiB', facts.get('memory_bytes', 0) >> 20, defined.memory_bytes >> 20)):
        if before and before != now:
            yield (name, f'it had {before}{unit} and has now {now}{unit}',
                   'give it what it had; with Nova, resize it back')
    cpu = defined.cpu
    if cpu is not None and cpu.get('mode') == 'custom' and facts.get('cpu') != defined.cpu_name:
        yield ('cpu', f'it was {facts.get("cpu")} and is now {defined.cpu_name}',
               'give it the CPU model of the snapshot')
    here = guest.qemu_version(connection)
    if _parts(here) < _parts(facts.get('qemu_version', '')):
        yield ('host', f'QEMU {facts["qemu_version"]} took it, and here is {here}',
               'install that QEMU or a newer one')


def _ports(member: records.RestoreMember, defined: domain.DomainXml):
    with open(f'{member.folder}/domain.xml') as archive:
        before = {nic.mac.lower() for nic in domain.DomainXml(archive.read()).nics}
    now = {nic.mac.lower() for nic in defined.nics}
    for mac in sorted(before ^ now):
        change = 'gone' if mac in before else 'new since the snapshot'
        yield mac, f'this NIC is {change}', 'give it the ports of the snapshot'


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split('.') if part.isdigit())


def _space(facts: dict, now: dict):
    for disk in facts['disks']:
        target = now.get(disk['target'])
        if not target or not os.path.isdir(os.path.dirname(target.path)):
            continue
        needed = next((file['size_bytes'] for file in facts.get('files', ())
                       if file['name'] == disk['file']), 0)
        status = os.statvfs(os.path.dirname(target.path))
        if status.f_bavail * status.f_frsize < needed:
            yield (disk['target'], f'{needed >> 20} MiB are needed beside {target.path}',
                   'make room')


def _incompatible(member: records.RestoreMember, wanted: str, connection):
    """libvirt's own comparison of the archive's XML with the domain's.

    It is asked by redefining a save image of our own that has no memory in it,
    for the comparison is not offered otherwise, and must come before anything
    is stopped.
    """
    with open(f'{member.folder}/domain.xml') as archive:
        xml = archive.read()
    with tempfile.NamedTemporaryFile(prefix='hotsnap-', suffix='.save') as probe:
        probe.write(saveimage.header(xml, whole=True))
        probe.flush()
        if reason := guest.incompatible(connection, probe.name, wanted):
            yield 'definition', f'it no longer fits the snapshot: {reason}', \
                'define the domain as it was'
