# SPDX-License-Identifier: Apache-2.0
"""The engine's side of a restore, step by step; each step may be repeated.

What is started has the hardware of the cut, and all else as it is defined now, or as
`definitions` says: see `definition`. Until ``restore_resume``
everything can be undone, but that members which were stopped stay stopped: a
guest cannot be un-stopped, and its disk is as it left it.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import os
import tempfile
import time
from collections.abc import Callable

import libvirt
import zstandard
from oslo_log import log

from hotsnap_nova import exception
from hotsnap_nova.virt import definitions, domain, files, guest, records
from hotsnap_nova.virt.checks import obstacles
from hotsnap_nova.virt.definition import cut, merging
from hotsnap_nova.virt.memory import saveimage
from hotsnap_nova.virt.restore import replacement

LOG = log.getLogger(__name__)

_STOPPED_TIMEOUT_S = 30.0


def _untold(_done: int, _total: int) -> None:
    pass


class Restorer:
    """What `host.Engine` knows of restores.

    :ivar keep_hours: how long replaced disks are kept
    :ivar definitions: who says what restored guests are started with
    :ivar files: who does what only root may do with disks
    """

    keep_hours = 24.0
    definitions = definitions.Definitions()
    files = files.Files()

    def restore_check(self, work: records.RestoreWork) -> records.Verdict:
        """What stands in the way; nothing is touched."""
        findings = []
        for member in work.members:
            try:
                found = self._guest(member.spec.id)
            except exception.MemberNotFound:
                found = None
            wanted = self._wanted(found, member)
            if wanted is None:
                findings.append(records.Finding(
                    member.spec.name, 'guest', 'its domain is not defined here', 'define it',
                    (records.RESTORE,)))
                continue
            findings += obstacles.of_member(found, member, wanted, self._libvirt())
        return records.Verdict(('restore',), tuple(findings))

    def still_there(self, work: records.RestoreWork) -> records.RestoreWork:
        """The work without members that were deleted meanwhile: the others need not wait."""
        there = []
        for member in work.members:
            try:
                self._guest(member.spec.id)
            except exception.MemberNotFound:
                LOG.warning('%s was deleted while it was being restored', member.spec.name)
            else:
                there.append(member)
        return dataclasses.replace(work, members=tuple(there))

    def restore_prepare(self, work: records.RestoreWork,
                        tell: Callable[[int, int], None] = _untold) -> records.RestoreOutcome:
        """Place the disks and memory of the cut beside the domains'; they run on."""
        for number, member in enumerate(work.members):
            tell(number, len(work.members))
            self._define_missing(member)
            for source, placed in self._replacements(work, member):
                placed.prepare(source)
            packed = f'{member.folder}/memory.save.zst'
            if os.path.exists(packed):
                self._drop_memory(work, member)
                _unpack(packed, self._unpacked_path(work, member))
        return records.RestoreOutcome()

    def restore_stop(self, work: records.RestoreWork) -> records.RestoreOutcome:
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
            self.definitions.stopped(old.uuid)
        return records.RestoreOutcome()

    def restore_start(self, work: records.RestoreWork,
                      tell: Callable[[int, int], None] = _untold) -> records.RestoreOutcome:
        """Swap the disks and start every member, paused at the cut."""
        for member in work.members:
            for _source, placed in self._replacements(work, member):
                placed.swap()
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            starting = [pool.submit(self._start, work, member) for member in work.members]
            for number, started in enumerate(starting, 1):
                started.result()
                tell(number, len(starting))
        return records.RestoreOutcome()

    def _start(self, work: records.RestoreWork, member: records.RestoreMember) -> None:
        found = self._guest(member.spec.id)
        if found.state().name == 'paused':
            return
        self.definitions.starting(member.spec.id)
        today = self._wanted(found, member)
        xml = merging.merged(cut.xml(member), today)
        if today != found.xml(live=False):
            self._define(xml, member)
        path = f'{member.folder}/memory.save'
        if not os.path.exists(path):
            path = self._unpacked_path(work, member)
        try:
            self._libvirt().restoreFlags(path, xml, libvirt.VIR_DOMAIN_SAVE_PAUSED)
        except libvirt.libvirtError as exc:
            raise exception.HypervisorError(
                member=found.name, reason=f'restore: {exc}') from exc

    def _wanted(self, found, member):
        """The definition of today; None where nobody has any.

        :param found: its domain, or None
        """
        return self.definitions.xml(member.spec.id) or (found and found.xml(live=False))

    def _define_missing(self, member):
        try:
            self._guest(member.spec.id)
        except exception.MemberNotFound:
            if wanted := self.definitions.xml(member.spec.id):
                self._define(wanted, member)

    def _define(self, xml, member):
        try:
            self._libvirt().defineXML(xml)
        except libvirt.libvirtError as exc:
            raise exception.HypervisorError(
                member=member.spec.name, reason=f'definition: {exc}') from exc

    def restore_resume(self, work: records.RestoreWork) -> records.RestoreOutcome:
        """Let all members run, together; set clocks where an agent answers."""
        guests = [self._guest(member.spec.id) for member in self.still_there(work).members]
        with concurrent.futures.ThreadPoolExecutor(max(1, len(guests))) as pool:
            list(pool.map(_resume, guests))
            for found in guests:
                if domain.DomainXml(found.full_xml()).agent:
                    pool.submit(found.set_clock, int(time.time()))
        return records.RestoreOutcome()

    def restore_finish(self, work: records.RestoreWork) -> records.RestoreOutcome:
        """Remove temporary files; replaced disks stay for ``keep_hours``."""
        for member in self.still_there(work).members:
            for _source, placed in self._replacements(work, member):
                placed.finish(self.keep_hours)
            self._drop_memory(work, member)
        return records.RestoreOutcome()

    def restore_undo(self, work: records.RestoreWork) -> records.RestoreOutcome:
        """Old disks back; members that this restore started are stopped."""
        faults = []
        for member in work.members:
            with contextlib.suppress(exception.MemberNotFound):
                replaced = [placed for _source, placed in self._replacements(work, member)]
                if any(placed.swapped for placed in replaced):
                    found = self._guest(member.spec.id)
                    if found.state().running:
                        # We had not resumed anybody: somebody else did, and has
                        # worked on the disk of the cut since. The old one stays
                        # aside.
                        faults.append(records.RestoreFault(found.uuid, exception.MemberLeft(
                            member=found.name, reason='it runs on the disk of the cut; the old '
                            f'one is {", ".join(placed.old for placed in replaced)}')))
                        continue
                    found.destroy()
                for placed in replaced:
                    placed.undo()
            self._drop_memory(work, member)
        return records.RestoreOutcome(tuple(faults))

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
                dropped += replacement.expire(image, self.keep_hours, lambda kept: kept in used(),
                                              self.files)
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
        current = cut.disks(member.facts, found.xml(live=False))
        pairs = []
        for disk in member.facts['disks']:
            if target := current.get(disk['target']):
                pairs.append((f'{member.folder}/{disk["file"]}', replacement.Replacement(
                    found.name, target.path, target.form, work.restore_id,
                    self.files)))
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


def _resume(found: guest.Guest) -> None:
    if not found.state().running:
        found.resume()


def _unpack(packed: str, path: str) -> None:
    with open(packed, 'rb') as source, \
            open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), 'wb') as plain:
        zstandard.ZstdDecompressor().copy_stream(source, plain)
