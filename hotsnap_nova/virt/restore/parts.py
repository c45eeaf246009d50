# SPDX-License-Identifier: Apache-2.0
"""One member's files in one restore: its disks, its memory, and marks that outlive a host.

In the folder of its first disk, named after the member and the restore::

    <member>.hotsnap-memory-<restore>    memory unpacked, while the member may have to be loaded
    <member>.hotsnap-stopped-<restore>   the restore stopped it; inside, what it was: ``running``
    <member>.hotsnap-loaded-<restore>    the restore has loaded it, or was about to
    <member>.hotsnap-ready-<restore>     becomes the next: a disk that is full has room for a name
    <member>.hotsnap-resumed-<restore>   the restore let it run: from then on it is its owner's
    <member>.hotsnap-trial-<what>-<restore>   what its load on trial has, while there is one

A mark is on the disk before what it tells of is done.
"""

import contextlib
import glob
import io
import os
import tempfile
from collections.abc import Callable

from hotsnap_nova import exception
from hotsnap_nova.virt import domain, files, records
from hotsnap_nova.virt.definition import cut
from hotsnap_nova.virt.restore import durable, imagelock, replacement, unpacking

MEMORY, STOPPED, LOADED, READY, RESUMED = 'memory', 'stopped', 'loaded', 'ready', 'resumed'
TRIAL = 'trial'
_MARKS = (STOPPED, LOADED, RESUMED)
#: What a restore that misses it does without, or makes anew.
MADE_AGAIN = (MEMORY, READY)
#: What a restore has of a member in the folder.
FILES = (*_MARKS, *MADE_AGAIN)


class Part:
    """See the module's words.

    :param xml: the member's definition; None where it has none. Without it only what was noted
        at the preparation is known
    """

    def __init__(self, work: records.RestoreWork, member: records.RestoreMember,
                 xml: str | None, privileged: files.Files):
        self.member = member
        self.spec = member.spec
        self._restore = work.restore_id
        noted = work.notes.get('members', {}).get(self.spec.id)
        if noted is None:
            noted = _placed(xml, member.facts) if xml else {'folder': None, 'disks': {}}
        self._folder = noted['folder']
        sources = {disk['target']: f'{member.folder}/{disk["file"]}'
                   for disk in member.facts.get('disks', ())}
        self._disks = {
            target: (sources.get(target, ''), replacement.Replacement(
                self.spec, at['path'], at['form'], work.restore_id, privileged,
                at if 'new' in at else None))
            for target, at in noted['disks'].items()}

    @property
    def replaced(self) -> tuple[replacement.Replacement, ...]:
        """Of each disk that the snapshot has and the domain has, too."""
        return tuple(placed for _source, placed in self._disks.values())

    @property
    def disks(self) -> dict[str, replacement.Replacement]:
        """The same by the cut's names for them."""
        return {target: placed for target, (_source, placed) in self._disks.items()}

    # -- the cut's files -----------------------------------------------------------------------

    def needed_bytes(self) -> int:
        """How much `prepare` tells of, about."""
        return sum(os.path.getsize(source) for source in (
            *(source for source, _placed in self._disks.values()), self._packed)
            if os.path.exists(source))

    def prepare(self, tell: Callable[[int], None],
                effort: records.Effort = records.ALL_EFFORT) -> dict:
        """Place the disks and memory of the cut; what there is to be noted of it. Repeatable.

        :param tell: called with how many bytes are done; what it raises ends it
        """
        done = 0
        for source, placed in self._disks.values():
            placed.prepare(source, lambda now_bytes, before=done: tell(before + now_bytes),
                           effort)
            done += os.path.getsize(source)
            tell(done)
        self.memory(lambda _bytes: tell(done), effort)
        if not self.marked(RESUMED):
            self.mark(READY, self._restore)
        return {'folder': self._folder,
                'disks': {target: placed.noted()
                          for target, (_source, placed) in self._disks.items()}}

    def memory(self, tell: Callable[[int], None] = lambda _bytes: None,
               effort: records.Effort = records.ALL_EFFORT) -> str:
        """Where the memory of the cut is, as libvirt wants it. Repeatable."""
        plain = f'{self.member.folder}/memory.save'
        if not os.path.exists(self._packed):
            return plain
        unpacked = self._at(MEMORY)
        if not os.path.exists(unpacked):
            unpacking.unpack(self._packed, unpacked, tell, effort)
        return unpacked

    @property
    def _packed(self):
        return f'{self.member.folder}/memory.save.zst'

    def on_trial(self, what: str) -> str:
        """Where a file of its load on trial is."""
        return self._at(f'{TRIAL}-{what}')

    def drop_trial(self) -> None:
        """Drop all of these; repeatable."""
        for path in self._of_trial():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def _of_trial(self):
        if not self._folder:
            return []
        beginning = os.path.join(self._folder, before(self.spec.id, TRIAL))
        return glob.glob(f'{glob.escape(beginning)}*-{glob.escape(self._restore)}')

    # -- disks ---------------------------------------------------------------------------------

    def require_paths(self, xml: str) -> None:
        """Return where a definition names the disks that are replaced, and nothing else.

        :raises exception.GuestChanged: it does not
        """
        now = {disk.target: os.path.realpath(disk.path) for disk in domain.DomainXml(xml).disks
               if disk.path}
        for target, (_source, placed) in self._disks.items():
            if now.get(target) != placed.path:
                raise exception.GuestChanged(
                    member=self.spec, reason=f'its disk {target} was {placed.path} when the '
                    f'restore was prepared, and is now {now.get(target, "gone")}')

    def take_owners(self) -> None:
        """Each disk of the cut belongs to whoever has its predecessor now, that its guest is off.

        Repeatable.
        """
        for placed in self.replaced:
            placed.take_owner()

    @contextlib.contextmanager
    def locked(self):
        """For the block, nobody can open its old disks or those of the cut; see `replacement`.

        :raises exception.GuestBusy: somebody has one open
        """
        with self._locked('locked'):
            yield

    def swap(self) -> None:
        """The disks of the cut take their places; all are `locked`."""
        for placed in self.replaced:
            placed.swap()

    @contextlib.contextmanager
    def undone(self):
        """The old disks are back; for the block nobody can open those of the cut.

        :raises exception.GuestBusy: somebody has one open; all is as it was
        """
        with self._locked('locked_to_undo'):
            for placed in self.replaced:
                placed.undo()
            yield

    @contextlib.contextmanager
    def _locked(self, how):
        with contextlib.ExitStack() as locks:
            for placed in self.replaced:
                try:
                    locks.enter_context(getattr(placed, how)())
                except imagelock.ImageInUse as exc:
                    raise exception.GuestBusy(
                        member=self.spec, reason=f'{exc} is open in a QEMU or a tool of its; '
                        f'{self.where()}') from exc
            yield

    def in_use(self) -> str:
        """Path of a disk that somebody has open; '' where it is proved that nobody has.

        :raises exception.GuestChanged: one is another than at the preparation
        """
        try:
            for placed in self.replaced:
                placed.prove_unused()
        except imagelock.ImageInUse as exc:
            return str(exc)
        return ''

    @property
    def swapped(self) -> bool:
        """Whether a disk of the cut is in its place."""
        return any(placed.swapped for placed in self.replaced)

    @property
    def written(self) -> bool:
        """Whether somebody has worked on the disks of the cut, or may have."""
        return any(placed.written or not placed.known for placed in self.replaced)

    def where(self) -> str:
        """Which file is what, in words."""
        words = []
        for placed in self.replaced:
            if placed.swapped:
                words.append(f'{placed.path} is the disk of the cut and {placed.old} the one of '
                             'before')
            elif os.path.exists(placed.new):
                words.append(f'{placed.path} is its own disk and {placed.new} that of the cut')
            else:
                words.append(f'{placed.path} is its own disk')
        return ', '.join(words)

    def kept(self) -> str:
        """What somebody wrote to disks of the cut is here, in words, after an undo; or ''."""
        return ', '.join(placed.kept for placed in self.replaced if os.path.exists(placed.kept))

    # -- marks ---------------------------------------------------------------------------------

    def mark(self, what: str, text: str) -> None:
        """Durable on return."""
        durable.write(self._at(what), io.BytesIO(text.encode()))

    def mark_resumed(self) -> None:
        """Durable on return; after the decision, when it must not fail for want of room."""
        try:
            os.rename(self._at(READY), self._at(RESUMED))
        except FileNotFoundError:    # it is marked, or was prepared by a version without it
            self.mark(RESUMED, self._restore)
            return
        durable.sync_folder_of(self._at(RESUMED))

    def marked(self, what: str) -> str:
        """The text of a mark; '' where it was not set."""
        if self._folder:
            with contextlib.suppress(FileNotFoundError), open(self._at(what)) as mark:
                return mark.read()
        return ''

    @property
    def loaded(self) -> bool:
        """Whether this restore has loaded it, or was about to.

        A version that had no such mark had at least swapped its disks.
        """
        return bool(self.marked(LOADED)) or self.swapped

    def end(self) -> None:
        """Drop marks and memory, for good: once the end is on record nobody comes back to them."""
        self.drop_trial()
        if self._folder:
            for what in FILES:
                durable.drop(self._at(what))
            with contextlib.suppress(FileNotFoundError):    # its owner has removed the member
                durable.sync_folder_of(self._at(MEMORY))

    def finish(self, keep_hours: float) -> None:
        """What was replaced is kept aside, see `replacement`."""
        for placed in self.replaced:
            placed.finish(keep_hours)
        self.end()

    @property
    def touched(self) -> bool:
        """Whether anything of the restore is here, by names."""
        return any(placed.touched for placed in self.replaced) or (bool(self._folder) and any(
            os.path.lexists(self._at(what)) for what in FILES)) or bool(self._of_trial())

    def _at(self, what):
        return os.path.join(self._folder, before(self.spec.id, what) + self._restore)


def before(member: str, what: str) -> str:
    """How the name of a member's file begins; a restore's id follows."""
    return f'{member}.hotsnap-{what}-'


def _placed(xml, facts):
    """As what is noted, but for files: where a definition has its disks.

    All its disks, where nothing is known of the cut's.
    """
    disks = [disk for disk in domain.DomainXml(xml).disks if disk.writable and disk.path]
    found = cut.disks(facts, xml) if 'disks' in facts else {disk.target: disk for disk in disks}
    return {'folder': next((os.path.dirname(os.path.realpath(disk.path)) for disk in disks),
                           tempfile.gettempdir()),
            'disks': {target: {'path': disk.path, 'form': disk.form}
                      for target, disk in found.items() if disk.path}}
