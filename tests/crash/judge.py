# SPDX-License-Identifier: Apache-2.0
"""What a killed process may leave behind: nothing, and no guest that noticed."""

import collections
import contextlib
import dataclasses
import os
import pathlib
import threading
import time

import libvirt

from hotsnap_nova import exception
from hotsnap_nova.storage import local
from tests.crash.guests import GuestError, Seen

_CENSUS_S = 0.1
#: So long our own are given to take away what they left.
_CLEAN_S = 60.0


def left(site) -> list[str]:
    """What is there of ours and should not be, once all is quiet."""
    ends = time.monotonic() + _CLEAN_S
    while (found := list(_left(site))) and time.monotonic() < ends:
        time.sleep(0.05)
    return found


def _left(site):
    for host in site.hosts.values():
        folders = {'journal': host.state / 'journal', 'lock': host.state / 'locks',
                   'lock of a guest': host.locks,
                   'order': host.state / 'restores',
                   'temporary file': host.temporary}
        for what, folder in folders.items():
            with contextlib.suppress(FileNotFoundError):
                yield from (f'{host.name}: {what} {name}' for name in os.listdir(folder)
                            if (what, name) != ('order', 'ended.json')
                            and not _is_of_privsep(pathlib.Path(folder, name)))
        yield from (f'{host.name}: draft {path}' for path in (host.store / '.drafts').rglob('*')
                    if path.is_file())
        yield from (f'{host.name}: file {path.name}'
                    for path in host.images.rglob('*.hotsnap-*'))
        yield from (f'{host.name}: process {name}' for name in _programs(host)
                    if name != 'guardian')
    yield from site.claims()
    yield from (f'lease of {found.lease_owner}' for found in site.database.list()
                if found.lease_owner)
    for name, engine in site.engines.items():
        for each in engine.survey():
            yield f'{name}: in the QEMU of {each.name}: {", ".join(each.what)}'


def _is_of_privsep(path):
    """Whether it is Nova's: where a privsep daemon's socket was, had its service not been killed.

    oslo.privsep has a folder for it, with Python's own prefix and no other file. What is made
    below the temporary directory by our code has a prefix of ours.
    """
    try:
        return path.name.startswith('tmp') and set(os.listdir(path)) <= {'privsep.sock'}
    except OSError:    # a file, or gone
        return False


def _programs(host):
    """What its services started; one guardian is the living service's own."""
    found = []
    for pid in host.service.children():
        with contextlib.suppress(OSError), open(f'/proc/{pid}/cmdline') as file:
            words = file.read()
            if 'privsep-helper' not in words:    # Nova's
                found.append('guardian' if 'virt.guardian' in words else words.split('\0')[0])
    return found


def stored(site, snapshot: str, is_available: bool) -> list[str]:
    """What is wrong with what the hosts' stores have of it."""
    found = []
    for host in site.hosts.values():
        there = (host.store / snapshot).exists()
        if there != is_available:
            found.append(f'{host.name}: its part is {"there" if there else "not there"}')
        elif there:
            try:
                local.LocalStore(str(host.store)).verify(snapshot)
            except exception.HotsnapError as exc:
                found.append(f'{host.name}: {exc}')
    return found


class Witness:
    """Remembers the guests as they are now, to say later what they suffered.

    :param killed: names of those that were killed by us
    """

    def __init__(self, site):
        self._guests = tuple(site.guests.values())
        self._qemus = _qemus(site)
        self._site = site
        self._memory = {guest.name: guest.memory() for guest in self._guests}

    def harmed(self, killed: set[str]) -> list[str]:
        """What guests suffered that nobody killed; and disks that went back, killed or not."""
        found = []
        now = _qemus(self._site)
        for guest in self._guests:
            before = self._memory[guest.name]
            if guest.name not in killed and now.get(guest.name) != self._qemus[guest.name]:
                found.append(f'{guest.name}: another process, {guest.state}')
            try:
                if guest.name not in killed:
                    guest.counts_on()
                    found += _changes(f'{guest.name}: memory', before, guest.memory())
            except (GuestError, libvirt.libvirtError) as exc:
                found.append(f'{guest.name}: {exc}')
            with contextlib.suppress(GuestError):
                found += _changes(f'{guest.name}: disk', before, guest.on_disk())
        return found


class Census:
    """Looks, until it is asked, whether a guest runs in two QEMUs at once."""

    def __init__(self, site):
        # What begins with it is a restore's: a load on trial has no disk of a guest's own.
        self._disks = {b'"%s"' % os.fsencode(guest.disk): guest.name
                       for guest in site.guests.values()}
        self._twice: set[str] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def twice(self) -> list[str]:
        """What was seen."""
        self._over.set()
        self._thread.join()
        return [f'{name}: in two QEMUs at once' for name in sorted(self._twice)]

    def _look(self):
        while not self._over.wait(_CENSUS_S):
            found = collections.Counter(self._names())
            self._twice |= {name for name, count in found.items() if count > 1}

    def _names(self):
        for entry in pathlib.Path('/proc').glob('[0-9]*'):
            try:
                words = (entry / 'cmdline').read_bytes()
            except OSError:
                continue
            if b'qemu-system' in words.partition(b'\0')[0]:
                yield from (name for disk, name in self._disks.items() if disk in words)


def seen(site) -> dict[str, Seen]:
    """What each guest's memory holds, or its disk where it is off."""
    return {guest.name: guest.on_disk() if guest.state == 'off' else guest.memory()
            for guest in site.guests.values()}


def marks(some) -> dict[str, str]:
    """Of guests, as they are; '' of one that does not run."""
    found = {}
    for guest in some:
        found[guest.name] = ''
        if guest.state == 'running':
            try:
                found[guest.name] = guest.memory().mark
            except (GuestError, libvirt.libvirtError):    # it is booting
                found[guest.name] = guest.on_disk().mark
    return found


def at_the_cut(site, then: dict[str, Seen], killed: dict[str, str],
               told: str) -> tuple[set[str], list[str]]:
    """(guests that are off, what is wrong), where a group was brought back.

    Off may be who was killed after it had been let run, and whom the user is told of.

    :param then: what they were at the cut
    :param killed: see `cases.Plot.end`
    :param told: to the user
    """
    off, wrong = set(), []
    for guest in site.guests.values():
        cut = then[guest.name]
        if guest.state == 'off':
            off.add(guest.name)
            was_let_run = killed.get(guest.name) == cut.mark
            if not (was_let_run or (guest.name in killed and guest.name in told)):
                wrong.append(f'{guest.name}: off, and nobody is told: {told}')
            wrong += _changes(f'{guest.name}: disk since the cut', cut, guest.on_disk())
        else:
            wrong += _alive(guest, cut, 'since the cut')
    return off, wrong


def as_before(site, before: dict[str, Seen], were_off: set[str], killed: dict[str, str],
              told: str) -> tuple[set[str], list[str]]:
    """(guests that are off and were not, what is wrong), where a restore was undone.

    Who was stopped for it may have booted anew. Off may be who was killed before that, or as it
    booted, of which the user is told.
    """
    off, wrong = set(), []
    for guest in site.guests.values():
        then = before[guest.name]
        now = guest.on_disk()
        if guest.state == 'off':
            if guest.name not in were_off:
                off.add(guest.name)
                was_running = killed.get(guest.name) == then.mark
                if not (was_running or (guest.name in killed and guest.name in told)):
                    wrong.append(f'{guest.name}: off, and ran before')
            wrong += _changes(f'{guest.name}: disk since before', then, now)
            continue
        if guest.name in were_off:
            wrong.append(f'{guest.name}: {guest.state}, and was off before')
        wrong += _alive(guest, then, 'since before', may_have_booted=True)
    return off, wrong


def _alive(guest, then, since, may_have_booted=False):
    try:
        guest.counts_on()
        if may_have_booted and guest.memory().boots == then.boots + 1:
            then = dataclasses.replace(then, boots=then.boots + 1)
        yield from _changes(f'{guest.name}: memory {since}', then, guest.memory())
        yield from _changes(f'{guest.name}: disk {since}', then, guest.on_disk())
    except (GuestError, libvirt.libvirtError) as exc:
        yield f'{guest.name}: {exc}'


def _qemus(site):
    return {name: pid for host in site.hosts.values() for name, pid in host.qemus().items()}


def _changes(what, before, now):
    """A disk may be a tick late."""
    if now.ticks < before.ticks - 1:
        yield f'{what} went back from {before.ticks} to {now.ticks}'
    for name in ('mark', 'failed', 'boots'):
        if getattr(before, name) != getattr(now, name):
            yield f'{what}: {name} was {getattr(before, name)!r}, is {getattr(now, name)!r}'
