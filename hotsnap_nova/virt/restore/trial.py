# SPDX-License-Identifier: Apache-2.0
"""A load on trial: QEMU is given a member's memory before anything is stopped, beside the member.

A second QEMU that no network, port or console leads to is started paused, on overlays over the
disks of the cut, and ended again. So what the QEMU, firmware and libvirt of today refuse is known
while the group runs on. It has nothing that the member has but what both only read: see
`definition.aside`. Its domain is transient, with a name and UUID made from the member's, so that
whoever comes next finds one whose process died; its files are named by `parts`.
"""

import concurrent.futures
import contextlib
import dataclasses
import errno
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable

import libvirt
from oslo_log import log

from hotsnap_nova import exception, unwaited
from hotsnap_nova.virt import domain, files, guest, records
from hotsnap_nova.virt.checks import memory
from hotsnap_nova.virt.definition import aside
from hotsnap_nova.virt.disks import image
from hotsnap_nova.virt.memory import saveimage
from hotsnap_nova.virt.restore import parts

LOG = log.getLogger(__name__)

_LOOK_S = 0.1
#: How long a QEMU that is to end may take to; one that hangs in the kernel does not.
_END_S = 60.0
#: One at a time has what the host has to spare.
_ONE = threading.Lock()
#: How long one may take: so long, and longer the more memory it has.
_PATIENCE_S, _BYTES_S = 120.0, 16 << 20
#: What QEMU has beside its guest's memory.
_BESIDE_BYTES = 128 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT)
_WHAT = 'a load on trial'
#: QEMU's own words libvirt does not hand on.
_REMEDY = ('libvirt\'s log of the domain %s has QEMU\'s words; undo what was changed on the host '
           'since the snapshot: QEMU, firmware, option ROMs. [hotsnap] trial_load = false in this '
           'host\'s nova.conf restores without asking')
#: What a second QEMU may lack where the member itself would not.
_BESIDE = frozenset({libvirt.VIR_ERR_NO_MEMORY, libvirt.VIR_ERR_RESOURCE_BUSY,
                     libvirt.VIR_ERR_HOOK_SCRIPT_FAILED})
_BESIDE_WORDS = tuple(map(os.strerror, (errno.ENOMEM, errno.EBUSY, errno.EPERM)))

Tell = Callable[[], None]


@dataclasses.dataclass(frozen=True)
class Spare:
    """What is to stay free while one is there: of the host's memory, and beside the disks."""

    memory_bytes: int = 0
    disk_bytes: int = 0


class _Untried(Exception):
    """Why, in a sentence's words."""


def load(part: parts.Part, xml: str, connect: Callable, spare: Spare, privileged: files.Files,
         tell: Tell) -> str:
    """Return when a member has woken beside itself, and that is gone again. Repeatable.

    One at a time in a process, so that two are not promised the same memory.

    :param xml: with which it will be started
    :param connect: gives a libvirt connection that works
    :param tell: called now and then; what it raises ends it soon
    :returns: why it was not tried; '' where it was, and went well
    :raises exception.Refused: it does not wake here
    :raises exception.HostUnreachable: libvirt has gone away
    """
    while not _ONE.acquire(timeout=_LOOK_S):
        tell()
    try:
        return _load(part, xml, connect, spare, privileged, tell)
    finally:
        _ONE.release()


def _load(part, xml, connect, spare, privileged, tell):
    end(part.spec, connect)
    part.drop_trial()
    try:
        disks = {target: part.on_trial(f'disk-{target}') for target in part.disks}
        if reason := aside.obstacle(xml, disks):
            return reason
        _require_room(part, xml, spare)
        for target, path in disks.items():
            _lay_over(part.disks[target], path, privileged)
        wanted = aside.of(xml, part.spec.id, disks, _variables(part, xml, privileged))
        path = part.on_trial('memory')
        saveimage.copy(part.memory(), path, wanted, lambda _bytes: tell())
        _wake(part, path, connect, tell,
              _PATIENCE_S + domain.DomainXml(xml).memory_bytes / _BYTES_S)
    except _Untried as exc:
        return str(exc)
    except OSError as exc:
        if exc.errno not in _FULL:
            raise
        return f'there is no room for a copy of its memory: {exc.strerror}'
    finally:
        try:
            end(part.spec, connect)
        finally:
            part.drop_trial()
    return ''


def end(member: records.MemberSpec, connect: Callable) -> None:
    """Have no load on trial of a member, whoever began it; repeatable.

    :raises exception.HostUnreachable: there is one, and it does not end; to be tried again
    """
    try:
        found = guest.Guest(connect(), aside.id_of(member.id), str(member))
    except exception.MemberNotFound:
        return
    try:
        found.destroy()
    except exception.HypervisorError as exc:
        raise exception.HostUnreachable(host='libvirt', reason=str(exc)) from exc


def leftover(name: str) -> records.Leftover | None:
    """What a domain of this name is, if it is a load on trial; a process may be at work on it."""
    member = aside.member_of(name)
    return records.Leftover(member, member, '', (_WHAT,)) if member else None


def _require_room(part, xml, spare):
    needed = domain.DomainXml(xml).memory_bytes + _BESIDE_BYTES + spare.memory_bytes
    free = memory.available_bytes()
    if free is None or free < needed:
        raise _Untried(f'the host has {(free or 0) >> 20} MiB of memory to spare, and '
                       f'{needed >> 20} MiB are needed')
    needed = os.path.getsize(part.memory()) + spare.disk_bytes
    if (free := shutil.disk_usage(os.path.dirname(part.on_trial('memory'))).free) < needed:
        raise _Untried(f'{free >> 20} MiB are free beside its disks, and {needed >> 20} MiB are '
                       'needed')


def _lay_over(placed, path, privileged):
    """An overlay, which takes whatever would be written to a disk of the cut."""
    _make('qcow2', path, '', '-F', placed.form, '-b', placed.new)
    _lend(placed, path, privileged)


def _variables(part, xml, privileged):
    """A file for those of the firmware; '' if it has none. What they are is in the memory."""
    found = domain.parsed(xml).find('os/nvram')
    if found is None:
        return ''
    source = found.find('source')
    today = (found.text or '').strip() or ('' if source is None else source.get('file', ''))
    form = found.get('format', 'raw')
    if not today:    # libvirt makes it of the template, as Nova leaves it to
        today, form = found.get('template', ''), found.get('templateFormat', 'raw')
    try:
        size = (os.stat(today).st_size if form == 'raw'
                else image.describe(today, form)['virtual-size'])
    except (OSError, TypeError):
        raise _Untried('the variables of its firmware cannot be read') from None
    path = part.on_trial('nvram')
    _make(form, path, str(size))
    for placed in part.replaced[:1]:
        _lend(placed, path, privileged)
    return path


def _make(form, path, size, *options):
    done = subprocess.run(
        ['qemu-img', 'create', '-q', '-f', form, *options, path, *([size] if size else [])],
        capture_output=True, text=True, check=False, umask=0o077)
    if done.returncode:
        raise _Untried(f'{path} cannot be made: {done.stderr.strip()}')


def _lend(placed, path, privileged):
    """Give a file to whoever may use the disk of the cut."""
    owner, own = os.stat(placed.new), os.stat(path)
    os.chmod(path, owner.st_mode & 0o7777)
    if (owner.st_uid, owner.st_gid) != (own.st_uid, own.st_gid):
        privileged.chown(path, owner.st_uid, owner.st_gid)


def _wake(part, path, connect, tell, patience_s):
    deadline = time.monotonic() + patience_s
    loading = unwaited.begin(lambda: guest.load(connect(), path, part.spec), 'hotsnap-trial')
    try:
        while not concurrent.futures.wait([loading], _LOOK_S).done:
            tell()
            if time.monotonic() > deadline:
                raise _refused(part, f'it has not been loaded after {patience_s:.0f} s')
        loading.result()
    except exception.HypervisorError as exc:
        words = ' '.join(exc.kwargs['reason'].split())
        if _is_of_two(exc.__cause__, words):
            raise _Untried(f'a second QEMU is not to be had: {words}') from exc
        raise _refused(part, words) from exc
    finally:
        _end_loading(part, loading, connect)
    _require_awake(part, connect)


def _end_loading(part, loading, connect):
    deadline = time.monotonic() + _END_S
    while not loading.done():
        with contextlib.suppress(exception.HotsnapError):
            end(part.spec, connect)
        concurrent.futures.wait([loading], _LOOK_S)
        if not loading.done() and time.monotonic() > deadline:
            raise exception.HostUnreachable(host='libvirt', reason=(
                f'the domain {aside.name_of(part.spec.id)} does not end'))


def _is_of_two(error, words):
    """Whether it failed because there was another beside it, and not for what it is."""
    code = error.get_error_code() if isinstance(error, libvirt.libvirtError) else None
    return code in _BESIDE or any(each in words for each in _BESIDE_WORDS)


def _require_awake(part, connect):
    try:
        state = guest.Guest(connect(), aside.id_of(part.spec.id), str(part.spec)).state()
    except exception.MemberNotFound:
        state = guest.State('gone')
    if not state.loaded:
        raise _refused(part, f'it was loaded, and is {state.name}')


def _refused(part, words):
    LOG.warning('%(member)s does not wake on trial: %(words)s',    # what ends it may fail, too
                {'member': part.spec, 'words': words})
    return exception.Refused(
        member=part.spec, device='memory', remedy=_REMEDY % aside.name_of(part.spec.id),
        cause=f'a load on trial did not bring it up here, and nothing was stopped: {words}')
