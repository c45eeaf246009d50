# SPDX-License-Identifier: Apache-2.0
"""The fake engine's side of a restore: as the real one's, and as libvirt and file systems are.

A guest has one disk, which is ``named``. ``files`` says which inode each name beside it is, and
QEMU writes to the inode that it opened, whatever becomes of the names: see `World.misplaced`. A
guest that is off cannot be resumed, and what was started anew does not stand at the cut. One that
is not ``defined`` may run on another host.

What it does `tests.unit.restoring.suite` asks of the real one, too.
"""

import contextlib

from hotsnap_nova import exception
from hotsnap_nova.virt import records

ACTIVE = ('running', 'paused')


def _untold(_done, _total):
    pass


class Restorer:
    """What `tests.fakes.engine.Engine` knows of restores.

    Besides whole steps, ``faults`` knows moments inside them, which get the name of a guest:
    ``stop_member``, ``swap``, ``load``, ``let_run`` (it is on record that it runs), ``boot``.
    ``warns`` has what a step warns of, by its name and by a guest's: device, cause, remedy each.
    """

    def restore_check(self, work):
        self._begin('restore_check', work)
        with self.world.open() as guests:
            here = {guest['id'] for guest in guests.values() if guest['defined']}
        return records.Verdict(('restore',), tuple(
            records.Finding(member.spec, 'guest', 'its domain is not defined here', 'define it')
            for member in work.members if member.spec.id not in here)
            + self._warned('restore_check', work))

    def restore_prepare(self, work, tell=_untold):
        self._begin('restore_prepare', work)
        noted = {}
        for number, member in enumerate(_ours(work)):
            tell(number, len(work.members))
            with self._guests([member.spec]) as (guest,):
                files = guest['files']
                if f'old-{work.restore_id}' not in files:
                    files[f'new-{work.restore_id}'] = make_inode(guest, work.snapshot_id)
                guest['left'] = sorted({*guest['left'], self.tag_of(work.restore_id)})
                noted[member.spec.id] = {'old': files['disk'],
                                         'new': files.get(f'new-{work.restore_id}')}
        tell(len(work.members), len(work.members))
        return records.RestoreOutcome(notes={'disks': noted},
                                      warnings=self._warned('restore_prepare', work))

    def restore_stop(self, work):
        self._begin('restore_stop', work)
        for member in _ours(work):
            self._moment('stop_member', member)
            with self._guests([member.spec]) as (guest,):
                if guest['state'] in ACTIVE:
                    guest['stopped'][work.restore_id] = guest['state']
                guest.update(state='shut off', off_reason='destroyed')
        return records.RestoreOutcome()

    def restore_start(self, work, tell=_untold):
        self._begin('restore_start', work)
        ours = _ours(work)
        for member in ours:
            self._moment('swap', member)
            with self._guests([member.spec]) as (guest,):
                if not _loaded(guest, work):
                    self._swap(member.spec, guest, work)
        for number, member in enumerate(ours):
            tell(number, len(ours))
            self._load(member, work)
        return records.RestoreOutcome(warnings=self._warned('restore_start', work))

    def _swap(self, spec, guest, work):
        files, restore_id = guest['files'], work.restore_id
        if guest['state'] in ACTIVE:
            raise exception.GuestBusy(
                member=spec,
                reason=f'somebody has started it, and it stays so: {_where(guest, work)}')
        noted = work.notes.get('disks', {}).get(guest['id'])
        if f'new-{restore_id}' in files:
            if noted and files['disk'] != noted['old']:
                raise exception.GuestChanged(member=spec, reason='its disk is another')
            files[f'old-{restore_id}'] = files['disk']
            files['disk'] = files.pop(f'new-{restore_id}')
        elif f'old-{restore_id}' not in files:
            raise exception.TargetFailed(member=spec, device='vda',
                                         reason='the disk of the cut is no longer there')
        if guest['inodes'][str(files['disk'])]['written']:
            raise exception.GuestChanged(member=spec,
                                         reason='somebody wrote to the disk of the cut')

    def _load(self, member, work):
        self._moment('load', member)
        with self._guests([member.spec]) as (guest,):
            if guest['named'] != 'disk':
                raise exception.GuestChanged(member=member.spec, reason='its disk is another')
            if guest['state'] not in ACTIVE:
                guest['loading'] = sorted({*guest['loading'], work.restore_id})
                guest.update(state='paused', open=guest['files']['disk'], loaded=True,
                             starts=guest['starts'] + 1)
            elif not _loaded(guest, work):
                raise exception.HypervisorError(
                    member=member.spec, reason='restore: domain is already active')

    def restore_resume(self, work):
        self._begin('restore_resume', work)
        faults, standing = [], []
        for member in _ours(work):
            try:
                if self._stands(member, work):
                    standing.append(member)
            except exception.HotsnapError as exc:
                faults.append(records.RestoreFault(member.spec.id, exc))
        for member in standing:
            with self._guests([member.spec]) as (guest,):
                guest['resumed'] = sorted({*guest['resumed'], work.restore_id})
            self._moment('let_run', member)
            with self._guests([member.spec]) as (guest,):
                if guest['state'] not in ACTIVE:
                    faults.append(_left(member.spec, 'it has died at the cut'))
                elif not work.paused:
                    guest['state'] = 'running'
        return records.RestoreOutcome(tuple(faults),
                                      warnings=self._warned('restore_resume', work))

    def _stands(self, member, work):
        """Whether a member is to be let run: it was loaded from the cut, perhaps just now."""
        with self._guests([member.spec]) as (guest,):
            if guest['state'] in ACTIVE:
                if _loaded(guest, work):
                    return True
                if work.restore_id not in guest['resumed'] and (guest['booted'] or (
                        guest['state'] == 'paused' and work.restore_id in guest['loading'])):
                    raise exception.MemberLeft(
                        member=member.spec, reason='somebody started it anew on the disk of '
                        'the cut, or let it run, so that it is not as it was at the cut')
                return False
            if work.restore_id in guest['resumed']:
                if guest['off_reason'] == 'crashed':
                    raise exception.MemberLeft(member=member.spec,
                                               reason='it died after it was resumed')
                return False
            if guest['inodes'][str(guest['files']['disk'])]['written']:
                raise exception.MemberLeft(
                    member=member.spec, reason='somebody ran it on the disk of the cut')
        self._load(member, work)
        return True

    def restore_finish(self, work):
        self._begin('restore_finish', work)
        faults = []
        specs = {member.spec.id: member.spec for member in work.members}
        for guest in self._there(work):
            died = guest['state'] not in ACTIVE and guest['off_reason'] == 'crashed'
            if died and guest['id'] not in work.withdrawn:
                faults.append(_left(specs[guest['id']], 'it died after it was resumed'))
            files, restore_id = guest['files'], work.restore_id
            files.pop(f'new-{restore_id}', None)
            if old := files.pop(f'old-{restore_id}', None):
                for kept in [name for name in files if name.startswith('kept-')]:
                    del files[kept]
                files[f'kept-{restore_id}'] = old
            self._forget_restore(guest, work)
        return records.RestoreOutcome(tuple(faults))

    def restore_undo(self, work):
        self._begin('restore_undo', work)
        faults = []
        for member in work.members:
            with contextlib.suppress(exception.MemberNotFound):
                fault = self._undo(member, work)
                faults += [fault] if fault else []
        return records.RestoreOutcome(tuple(faults))

    def _undo(self, member, work):
        owned = member.spec.id in work.withdrawn
        with self._part(member, work) as guest:
            files, restore_id = guest['files'], work.restore_id
            if _loaded(guest, work) and not owned:
                guest.update(state='shut off', off_reason='destroyed', open=0)
            swapped = files.get(f'old-{restore_id}', files['disk']) != files['disk']
            if guest['state'] in ACTIVE and swapped:
                return _left(
                    member.spec, f'somebody has it, and it stays so: {_where(guest, work)}')
            if swapped:
                if guest['inodes'][str(files['disk'])]['written']:
                    files[f'kept-{restore_id}'] = files['disk']
                files['disk'] = files.pop(f'old-{restore_id}')
            files.pop(f'new-{restore_id}', None)
            files.pop(f'old-{restore_id}', None)
            ran = guest['stopped'].get(restore_id)
            if not guest['defined']:
                return None
            boots = ran == 'running' and guest['state'] not in ACTIVE and not owned
        if boots:
            try:
                self._moment('boot', member)
            except exception.HotsnapError as exc:
                return records.RestoreFault(member.spec.id, exception.MemberLeft(
                    member=member.spec,
                    reason=f'it was stopped for the restore, and does not start again: {exc}'))
            self.world.boot(self._name(member))
        with self._guests([member.spec]) as (guest,):
            if ran and guest['state'] in ACTIVE and not owned:
                return records.RestoreFault(
                    guest['id'], exception.MemberRebooted(member=member.spec))
            if ran == 'paused' and not owned:
                return _left(member.spec, 'it was paused before the restore, and is now off')
        return None

    def restore_clear(self, work):
        self._begin('restore_clear', work)
        for guest in self._there(work):
            self._forget_restore(guest, work)
        return records.RestoreOutcome()

    def restore_touched(self, work):
        return any(name.endswith(f'-{work.restore_id}') and not name.startswith('kept-')
                   for guest in self._there(work) for name in guest['files']) or any(
            work.restore_id in (*guest['stopped'], *guest['loading'], *guest['resumed'])
            for guest in self._there(work))

    # -- inside --------------------------------------------------------------------------------

    def _warned(self, step, work):
        """What `warns` has of a step, as findings."""
        return tuple(records.Finding(member.spec, *words, ())
                     for member in _ours(work)
                     for words in self.warns.get(step, {}).get(self._name(member), ()))

    def _moment(self, which, member):
        self._begin(which, self._name(member))

    def _name(self, member):
        """The world's, whatever a user calls it."""
        with self.world.open() as guests:
            return next((name for name, guest in guests.items()
                         if guest['id'] == member.spec.id), '')

    def _there(self, work):
        for member in work.members:
            with contextlib.suppress(exception.MemberNotFound), self._part(member, work) as guest:
                yield guest

    @contextlib.contextmanager
    def _part(self, member, work):
        """A guest, were it no longer defined, as long as it is noted where its disk is."""
        with self.world.open() as guests:
            guest = next((each for each in guests.values() if each['id'] == member.spec.id), None)
            if not guest or not (guest['defined'] or guest['id'] in work.notes.get('disks', {})):
                raise exception.MemberNotFound(member=member.spec)
            yield guest

    def _forget_restore(self, guest, work):
        tag = self.tag_of(work.restore_id)
        guest['left'] = [each for each in guest['left'] if each != tag]
        guest['stopped'].pop(work.restore_id, None)
        for what in ('loading', 'resumed'):
            guest[what] = [each for each in guest[what] if each != work.restore_id]


def _ours(work):
    return [member for member in work.members if member.spec.id not in work.withdrawn]


def _loaded(guest, work):
    """Whether a QEMU stands as it was loaded, which libvirt says, and this restore was to load it.
    """
    return guest['loaded'] and (work.restore_id in guest['loading'] or guest['files'].get(
        f'old-{work.restore_id}', guest['files']['disk']) != guest['files']['disk'])


def _where(guest, work):
    """Which file is what, in words."""
    if f'old-{work.restore_id}' in guest['files']:
        return f'disk is the disk of the cut and old-{work.restore_id} the one of before'
    return f'disk is its own disk and new-{work.restore_id} that of the cut'


def _left(spec, reason):
    return records.RestoreFault(spec.id, exception.MemberLeft(member=spec, reason=reason))


def make_inode(guest, content):
    """The number of a new file beside a guest."""
    number = 1 + max(map(int, guest['inodes']))
    guest['inodes'][str(number)] = {'of': content, 'written': False}
    return number
