# SPDX-License-Identifier: Apache-2.0
"""What stands in the way of a member's restore, told before anything is stopped.

What the snapshot's definition and today's do not share is named one by one;
libvirt's own comparison comes last. Within, each yields device, cause, remedy, and
what it rules out where that is not the restore.
"""

import contextlib
import os
from collections.abc import Iterator

from hotsnap_nova import exception
from hotsnap_nova.virt import definitions, domain, guest, records
from hotsnap_nova.virt.checks import folders, inside, matching, probe, volumes
from hotsnap_nova.virt.definition import cut, differences, merging
from hotsnap_nova.virt.disks import image, media
from hotsnap_nova.virt.memory import saveimage

#: CPUs that are whatever the host has.
_AS_THE_HOST = ('host-passthrough', 'maximum')


def of_member(found: guest.Guest | None, member: records.RestoreMember, today: str,
              connection, drops: bool = False,
              owned: tuple[definitions.Volume, ...] = ()) -> Iterator[records.Finding]:
    """Yield what would make this member's restore fail, and what it will change.

    :param found: its domain; None: it is to be defined
    :param today: as it is defined today, by libvirt or whoever defines guests
    :param drops: whether internal snapshots and checkpoints of today may go
    :param owned: those of its disks of today that are a volume service's
    """
    for device, cause, remedy in volumes.of_files(domain.DomainXml(today), owned):
        yield records.Finding(member.spec, device, cause, remedy, (records.RESTORE,))
    for device, cause, remedy, *rules_out in _of_member(found, member, today, connection, drops):
        yield records.Finding(member.spec, device, cause, remedy,
                              *rules_out or [(records.RESTORE,)])


def _of_member(found, member, today, connection, drops):
    if found and not found.persistent():
        yield 'guest', 'its domain is transient: nothing is defined to restore to', \
            'define the domain'
        return
    if found and found.has_saved_state():
        yield 'guest', 'it has a managed save image, which would be started instead', \
            'start it, or remove that with virsh managedsave-remove'
    kept = cut.xml(member)
    images = matching.of_disks(member, kept, today, drops)
    yield from images.findings
    unseen = list(_unseen(member, kept, images.now.values(), connection))
    yield from unseen
    if found and not drops and (checkpoints := found.checkpoints()):
        # Their bitmaps are in QEMU alone until it ends.
        yield ('guest', f'libvirt has checkpoints of it ({inside.named(checkpoints)}), whose '
               'dirty bitmaps a restore drops', inside.REMEDY)
    if unseen:
        return    # libvirt could answer nothing
    with probe.made(connection, images.folder) as libvirt:
        try:
            worded = libvirt.worded(kept), libvirt.worded(today)
        except exception.InvalidValue as exc:
            yield 'definition', f'libvirt makes nothing of it: {exc}', 'see what changed'
            return
        changes = list(differences.differences(*worded))
        yield from changes
        yield from _host(member, domain.DomainXml(worded[0]), connection)
        yield from media.changes(member.facts.get('media', ()), domain.DomainXml(today))
        yield from _kept(member)
        # Of other changes libvirt would tell, too, and less clearly.
        if not changes and not images.differ and (
                reason := libvirt.refusal(kept, merging.merged(kept, today))):
            yield 'definition', f'it no longer fits the snapshot: {reason}', \
                'define the domain as it was'


def _unseen(member, kept, disks, connection):
    """What libvirt cannot read of what it is to start from."""
    here = [disk for disk in disks if os.path.isdir(os.path.dirname(disk.path))]
    for device, reason in folders.unseen(connection, here, kept):
        yield device, reason, folders.REMEDY
    memory = f'{member.folder}/memory.save'
    if os.path.exists(memory) and (reason := guest.unread(connection, memory)):
        yield 'memory', f'libvirt cannot read {memory}: {reason}', folders.REMEDY


def _host(member: records.RestoreMember, parsed: domain.DomainXml, connection):
    """Whether this host has what the guest ran on."""
    facts = member.facts
    if reason := guest.unknown_machine(connection, parsed):
        yield ('machine', f'it ran on {parsed.machine}: {reason}',
               'install a QEMU that has it')
    here = guest.qemu_version(connection)
    if _parts(here) < _parts(facts.get('qemu_version', '')):
        yield ('host', f'QEMU {facts["qemu_version"]} took it, and here is {here}',
               'install that QEMU or a newer one')
    mode = '' if parsed.cpu is None else parsed.cpu.get('mode', '')
    if mode not in _AS_THE_HOST:
        if not _as_it_was(facts, connection) and (reason := guest.unfit_host(
                connection, parsed, _cpu_of(member) or parsed.cpu_xml)):
            yield 'cpu', reason, 'restore it on a host that has the CPU it ran on'
    elif parsed.virt_type == 'kvm':
        now = guest.host_cpu(connection)
        for name, before in facts.get('host_cpu', {}).items():
            if before and now.get(name) and before != now[name]:
                yield ('cpu', f'it ran on {mode}, and the {name} of the processor was {before} '
                       f'and is {now[name]} here', 'restore it on the host it ran on, as that was')
    elif here != facts.get('qemu_version', here):
        yield ('cpu', f'it ran on {mode} of QEMU {facts["qemu_version"]}, and here is {here}',
               'install that QEMU')


def _as_it_was(facts, connection):
    """Whether this is the host of then, where the CPU is as it was, whatever libvirt thinks."""
    return bool(facts.get('host_cpu')) and (
        facts['host_cpu'], facts['qemu_version'], facts['libvirt_version']) == (
        guest.host_cpu(connection), guest.qemu_version(connection),
        guest.libvirt_version(connection))


def _cpu_of(member):
    """The CPU as it ran, as the save image has it; '' in those of old."""
    for name in ('memory.save', 'memory.save.zst'):
        with contextlib.suppress(FileNotFoundError):
            return saveimage.cpu_of(saveimage.read_header(f'{member.folder}/{name}').cookie)
    return ''


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split('.') if part.isdigit())


def _kept(member):
    """What the store keeps: images of ours, which have all in themselves."""
    for disk in member.facts['disks']:
        with contextlib.suppress(FileNotFoundError):
            if cause := image.kept_fault(f'{member.folder}/{disk["file"]}'):
                yield disk['target'], cause, image.KEPT_REMEDY
