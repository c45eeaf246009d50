# SPDX-License-Identifier: Apache-2.0
"""A guest as libvirt, its file system and its owner see it.

A disk is an inode: ``own`` is the one of before, ``cut-r1`` the one that restore r1 made. What a
name names is in ``files``; a QEMU writes to the inode that it has opened, whatever becomes of the
names.
"""

import dataclasses
from dataclasses import replace

_frozen = dataclasses.dataclass(frozen=True, slots=True)

RUNNING, PAUSED, OFF = "running", "paused", "off"


class Violation(AssertionError):
    """A promise of the protocol is broken in this world."""


@_frozen
class Guest:
    """The fields from ``ran`` on are the tests' own knowledge; no engine may look at them."""

    name: str
    state: str = RUNNING
    open: str = "own"  # the inode its QEMU has opened; "" without a QEMU
    made_by: str = ""  # the restore that started this very QEMU
    loaded: str = ""  # the same, until somebody lets it run
    files: tuple[tuple[str, str], ...] = (("disk", "own"),)
    written: tuple[str, ...] = ()  # disks of cuts that a guest has run on
    elsewhere: str = ""  # the inode that its QEMU on another host has opened, after an evacuation
    gone: bool = False  # deleted
    stopped: tuple[str, ...] = ()  # on record: restores that found it running, and stopped it
    resumed: tuple[str, ...] = ()  # on record: restores that were about to let it run
    left: tuple[str, ...] = ()  # snapshots that have something in its QEMU
    saved: tuple[str, ...] = ()  # snapshots that have all of it, unpublished
    published: tuple[str, ...] = ()
    lock: str = ""  # what has it: a snapshot or a restore
    guarded: bool = False  # its disk is locked so that no QEMU can open it
    before: tuple[tuple[str, str], ...] = ()  # on record: the disk that a restore replaces
    ran: tuple[str, ...] = ()  # restores that let it run at the cut
    rebooted: tuple[str, ...] = ()  # restores that were undone, which started it anew
    owned: tuple[str, ...] = ()  # restores that were told that its owner needs it
    unrecorded: tuple[str, ...] = ()  # those of them that only the service's memory knows
    harmed: bool = False  # something has happened to it that a restore cannot make good

    def forgotten(self):
        """The same, after the death of the service."""
        owned = tuple(each for each in self.owned if each not in self.unrecorded)
        return replace(self, guarded=False, lock="", owned=owned, unrecorded=())

    @property
    def active(self):
        return self.state != OFF

    @property
    def disk(self):
        return self.named("disk")

    def named(self, name):
        """The inode of that name, or ""."""
        return dict(self.files).get(name, "")

    def with_files(self, **names):
        """``names`` set; None: removed. A dash is written as an underscore."""
        files = dict(self.files)
        for name, inode in names.items():
            files.pop(name.replace("_", "-"), None)
            if inode is not None:
                files[name.replace("_", "-")] = inode
        return replace(self, files=tuple(sorted(files.items())))

    def off(self):
        """Without a QEMU, and so without what snapshots had in it."""
        return replace(self, state=OFF, open="", made_by="", loaded="", left=())

    def booted(self):
        """Started anew, by whomever: what runs on the disk of a cut changes it."""
        return replace(
            self, state=RUNNING, open=self.disk, made_by="", loaded=""
        ).wrote()  # fmt: skip

    def loads(self, restore):
        """Started from the memory of the cut, and left standing there."""
        return replace(
            self, state=PAUSED, open=self.disk, made_by=restore, loaded=restore
        )  # fmt: skip

    def wrote(self):
        if not self.open.startswith("cut"):
            return self
        return replace(self, written=plus(self.written, self.open))


def plus(names, name):
    return tuple(sorted({*names, name}))


def minus(names, name):
    return tuple(each for each in names if each != name)


def check(guest):
    """What no unit of work and nobody's deed may lead to."""
    if guest.gone:
        return
    names = dict(guest.files)
    for restore, inode in guest.before:
        if inode not in names.values():
            raise Violation(f"{guest.name}'s disk of before {restore} has lost its only name")
    for inode in guest.written:
        if inode not in names.values():
            raise Violation(f"what somebody has written to {guest.name}'s disk is lost")
    if "disk" not in names:
        raise Violation(f"{guest.name}'s path has no disk")
    if guest.active and guest.open != names["disk"]:
        raise Violation(f"{guest.name} runs on a disk that is not its own: {guest.open}")
    if guest.elsewhere not in ("", names["disk"]):
        raise Violation(f"{guest.name} runs elsewhere on what is not its disk any more")
    if guest.active and guest.elsewhere:
        raise Violation(f"{guest.name} runs twice")
