# SPDX-License-Identifier: Apache-2.0
"""The engine's side of a restore, step by step; each step may be repeated.

The domain that is started is the one that is defined now, with its own paths;
nothing of the archive's XML is used but to compare. Until ``restore_resume``
everything can be undone, but that members which were stopped stay stopped: a
guest cannot be un-stopped, and its disk is as it left it.
"""

import concurrent.futures
import contextlib
import functools
import os
import tempfile
import time

import libvirt
import zstandard
from oslo_log import log

from hotsnap_nova import exception
from hotsnap_nova.virt import domain, guest, media, records, replacement, saveimage

LOG = log.getLogger(__name__)

_STOPPED_TIMEOUT_S = 30.0


class Restorer:
    """What `host.Engine` knows of restores.

    :ivar keep_hours: how long replaced disks are kept
    """

    keep_hours = 24.0

    def restore_check(self, work: records.RestoreWork) -> records.Verdict:
        """What stands in the way; nothing is touched."""
        findings = []
        for member in work.members:
            try:
                found = self._guest(member.spec.id)
            except exception.MemberNotFound:
                findings.append(records.Finding(
                    member.spec.name, 'guest', 'its domain is not defined here', 'define it'))
                continue
            findings += [records.Finding(found.name, *rest)
                         for rest in _obstacles(found, member)]
        return records.Verdict(('restore',), tuple(findings))

    def restore_prepare(self, work: records.RestoreWork) -> None:
        """Place the disks and memory of the cut beside the domains'; they run on."""
        for member in work.members:
            for source, placed in self._replacements(work, member):
                placed.prepare(source)
            packed = f'{member.folder}/memory.save.zst'
            if os.path.exists(packed):
                self._drop_memory(work, member)
                _unpack(packed, self._unpacked_path(work, member))

    def restore_stop(self, work: records.RestoreWork) -> None:
        """Return when every old member here is proved stopped."""
        guests = [self._guest(member.spec.id) for member in work.members]
        for old in guests:
            old.destroy()
        deadline = time.monotonic() + _STOPPED_TIMEOUT_S
        for old in guests:
            while old.state().name not in ('shut off', 'crashed'):
                if time.monotonic() > deadline:
                    raise exception.HypervisorError(
                        member=old.name, reason=f'still {old.state().name} after being stopped')
                time.sleep(0.02)

    def restore_start(self, work: records.RestoreWork) -> None:
        """Swap the disks and start every member, paused at the cut."""
        for member in work.members:
            for _source, placed in self._replacements(work, member):
                placed.swap()
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            for started in [pool.submit(self._start, work, member) for member in work.members]:
                started.result()

    def _start(self, work: records.RestoreWork, member: records.RestoreMember) -> None:
        found = self._guest(member.spec.id)
        if found.state().name == 'paused':
            return
        xml = found.xml(live=False)
        path = f'{member.folder}/memory.save'
        if not os.path.exists(path):
            path = self._unpacked_path(work, member)
        try:
            self._libvirt().restoreFlags(path, xml, libvirt.VIR_DOMAIN_SAVE_PAUSED)
        except libvirt.libvirtError as exc:
            raise exception.HypervisorError(
                member=found.name, reason=f'restore: {exc}') from exc

    def restore_resume(self, work: records.RestoreWork) -> None:
        """Let all members run, together; set clocks where an agent answers."""
        guests = [self._guest(member.spec.id) for member in work.members]
        with concurrent.futures.ThreadPoolExecutor(max(1, len(guests))) as pool:
            list(pool.map(_resume, guests))
            for found in guests:
                if domain.DomainXml(found.full_xml()).agent:
                    pool.submit(found.set_clock, int(time.time()))

    def restore_finish(self, work: records.RestoreWork) -> None:
        """Remove temporary files; replaced disks stay for ``keep_hours``."""
        for member in work.members:
            for _source, placed in self._replacements(work, member):
                placed.finish(self.keep_hours)
            self._drop_memory(work, member)

    def restore_undo(self, work: records.RestoreWork) -> tuple[str, ...]:
        """Old disks back; members that this restore started are stopped.

        :returns: what was left as it is, and why, in words for the user
        """
        kept = []
        for member in work.members:
            with contextlib.suppress(exception.MemberNotFound):
                replaced = [placed for _source, placed in self._replacements(work, member)]
                if any(placed.swapped for placed in replaced):
                    found = self._guest(member.spec.id)
                    if found.state().running:
                        # We had not resumed anybody: somebody else did, and has
                        # worked on the disk of the cut since. The old one stays
                        # aside.
                        kept += [f'{found.name} runs on the disk of the cut; the old one is '
                                 f'{placed.old}' for placed in replaced if placed.swapped]
                        continue
                    found.destroy()
                for placed in replaced:
                    placed.undo()
            self._drop_memory(work, member)
        for each in kept:
            LOG.warning('Not undone: %s', each)
        return tuple(kept)

    def drop_expired(self) -> tuple[str, ...]:
        """Drop disks that restores replaced more than ``keep_hours`` ago.

        They are looked for beside the disks of every domain defined here; what
        is a disk of one, or below one, stays.

        :returns: paths of what was dropped
        """
        definitions = tuple(self._definitions())

        @functools.cache
        def used():    # asked for only where something is due
            return {below for definition in definitions for path in definition.files
                    for below in replacement.chain(path)}
        dropped = ()
        for image in sorted({os.path.realpath(disk.path) for definition in definitions
                             for disk in definition.disks
                             if disk.writable and disk.kind == 'file' and disk.path}):
            try:
                dropped += replacement.expire(image, self.keep_hours, lambda kept: kept in used())
            except OSError as exc:
                LOG.warning('Disks kept beside %(image)s cannot be dropped: %(error)s',
                            {'image': image, 'error': exc})
        return dropped

    def _definitions(self):
        """Of every domain, as it runs and as it would start."""
        for each in self._libvirt().listAllDomains():
            # It may go away, or be busy ending, while we ask.
            with contextlib.suppress(exception.HotsnapError):
                found = self._guest(each.UUIDString())
                yield domain.DomainXml(found.full_xml())
                yield domain.DomainXml(found.xml(live=False))

    def _replacements(self, work, member):
        """(source, replacement) of each disk the snapshot has and the domain still has."""
        found = self._guest(member.spec.id)
        current = {disk.target: disk for disk in
                   domain.DomainXml(found.xml(live=False)).disks}
        pairs = []
        for disk in member.facts['disks']:
            if target := current.get(disk['target']):
                pairs.append((f'{member.folder}/{disk["file"]}', replacement.Replacement(
                    found.name, target.path, target.form, work.restore_id)))
        return pairs

    def _unpacked_path(self, work, member) -> str:
        """Where compressed memory lies unpacked: beside the first disk."""
        disks = domain.DomainXml(self._guest(member.spec.id).xml(live=False)).disks
        folder = next((os.path.dirname(os.path.realpath(disk.path)) for disk in disks
                       if disk.writable and disk.path), tempfile.gettempdir())
        return os.path.join(folder, f'{member.spec.id}.hotsnap-memory-{work.restore_id}')

    def _drop_memory(self, work, member) -> None:
        with contextlib.suppress(FileNotFoundError, exception.MemberNotFound):
            os.unlink(self._unpacked_path(work, member))

    def export(self, folder: str, facts: dict, destination: str) -> dict:
        """Overlays and an XML for plain ``virsh restore --xml``.

        The archive's own files are only read; the overlays need it as long as
        they are used.

        :returns: paths: ``xml``, ``memory``, and one ``disk-<target>`` each
        """
        os.makedirs(destination, mode=0o700, exist_ok=True)
        paths = {}
        sources = {}
        for disk in facts['disks']:
            overlay = f'{destination}/{facts["name"]}-{disk["target"]}.qcow2'
            replacement.overlay(facts['name'], f'{folder}/{disk["file"]}', overlay)
            paths[f'disk-{disk["target"]}'] = overlay
            sources[disk['target']] = (overlay, 'qcow2')
        packed = f'{folder}/memory.save.zst'
        if os.path.exists(packed):
            paths['memory'] = f'{destination}/{facts["name"]}.save'
            _unpack(packed, paths['memory'])
        else:
            paths['memory'] = f'{folder}/memory.save'
        with open(f'{folder}/domain.xml') as archive:
            xml = saveimage.with_sources(archive.read(), sources)
        paths['xml'] = f'{destination}/{facts["name"]}.xml'
        with open(os.open(paths['xml'], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 'w') \
                as file:
            file.write(xml)
        return paths


def _obstacles(found: guest.Guest, member: records.RestoreMember):
    """Yield device, cause, remedy for what would make this member's restore fail."""
    if not found.persistent():
        yield 'guest', 'its domain is transient: nothing is defined to restore to', \
            'define the domain'
        return
    if found.has_saved_state():
        yield 'guest', 'it has a managed save image, which would be started instead', \
            'start it, or remove that with virsh managedsave-remove'
    defined = domain.DomainXml(found.xml(live=False))
    facts = member.facts
    if facts['machine'] != defined.machine:
        yield ('machine', f'it was {facts["machine"]} and is now {defined.machine}',
               'define the machine type of the snapshot')
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
    yield from _incompatible(found, member)


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


def _incompatible(found: guest.Guest, member: records.RestoreMember):
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
        if reason := found.incompatible_with(probe.name):
            yield 'definition', f'it no longer fits the snapshot: {reason}', \
                'define the domain as it was'


def _resume(found: guest.Guest) -> None:
    if not found.state().running:
        found.resume()


def _unpack(packed: str, path: str) -> None:
    with open(packed, 'rb') as source, \
            open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), 'wb') as plain:
        zstandard.ZstdDecompressor().copy_stream(source, plain)
