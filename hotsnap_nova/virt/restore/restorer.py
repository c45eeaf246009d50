# SPDX-License-Identifier: Apache-2.0
"""The engine's side of a restore, step by step; each step may be repeated, by any process.

What is started has the hardware of the cut, and all else as it is defined now, or as
`definitions` says: see `definition`. Until ``restore_resume``
everything can be undone, but that what was stopped can only be booted again: a
guest cannot be un-stopped, and its disk is as it left it.

Which QEMU is whose, libvirt and a mark know together: one that was loaded from memory and has not
run since stands at a cut, and is ours if this restore was to load it; any other was started by
somebody, or by another restore, and is left alone. Which file is whose, `replacement` knows; what
happened to a member before a loss of power, the marks of `parts`.
"""

import concurrent.futures
import contextlib
import dataclasses
import time
from collections.abc import Callable

from oslo_log import log

from hotsnap_nova import exception
from hotsnap_nova.virt import definitions, guest, records
from hotsnap_nova.virt.checks import obstacles, room
from hotsnap_nova.virt.definition import cut, merging
from hotsnap_nova.virt.restore import clocks, exporting, keeping, parts, telling, trial

LOG = log.getLogger(__name__)

#: How long a QEMU may take to be gone, or to let go of its disks.
_STOPPED_TIMEOUT_S = 30.0
#: How long one member's resumption is tried; all others run meanwhile.
_RESUME_TIMEOUT_S = 10.0
_LOOK_S = 0.1
#: How long, and how often, a member that an undo stopped is started again.
_BOOT_TIMEOUT_S, _BOOT_AGAIN_S = 10.0, 1.0
#: Loading is bound by processor and disk.
_LOADS_AT_ONCE = 2
_STEPS_AT_ONCE = 8

Tell = Callable[[int, int], None]


def _untold(_done: int, _total: int) -> None:
    pass


class Restorer(keeping.Keeper):
    """What `host.Engine` knows of restores.

    :ivar definitions: who says what restored guests are started with
    :ivar effort: how disks are copied
    :ivar reserve_bytes: what is to stay free in the store, and beside disks
    :ivar store_path: the folder of the store; None: it is none
    :ivar tries_loads: whether members are loaded on trial before any is stopped
    :ivar trial_reserve_bytes: of the host's memory, what is to stay free meanwhile
    """

    definitions = definitions.Definitions()
    effort = records.ALL_EFFORT
    reserve_bytes = 0
    store_path: str | None = None
    tries_loads = False
    trial_reserve_bytes = 0
    export = staticmethod(exporting.export)

    def restore_check(self, work: records.RestoreWork) -> records.Verdict:
        """What stands in the way; nothing is touched."""
        findings, defined = [], []
        for member in work.members:
            found = self._found(member)
            wanted = self._wanted(found, member)
            if wanted is None:
                findings.append(records.Finding(
                    member.spec, 'guest', 'its domain is not defined here', 'define it',
                    (records.RESTORE,)))
                continue
            findings += obstacles.of_member(found, member, wanted, self._libvirt(),
                                            work.drops_internal_snapshots,
                                            self.definitions.volumes(member.spec.id))
            defined.append((member, wanted))
        findings += room.beside_disks(defined, self.reserve_bytes)
        return records.Verdict(('restore',), tuple(findings))

    # -- before the decision -------------------------------------------------------------------

    def restore_prepare(self, work: records.RestoreWork,
                        tell: Tell = _untold) -> records.RestoreOutcome:
        """Place the disks and memory of the cut beside the domains'; they run on.

        Then each member is loaded on trial, beside itself, if that is wanted; see `trial`. Its
        notes say which files a swap must find again.

        :param tell: called with (done_bytes, total_bytes); what it raises ends it soon
        :raises Refused: a member would not wake here
        """
        prepared = []
        for member in _ours(work):
            self._define_missing(member)
            xml = self._member(member.spec).xml(live=False)
            prepared.append(parts.Part(work, member, xml, self.files))
        total, done, noted = sum(part.needed_bytes() for part in prepared), 0, {}
        for part in prepared:
            noted[part.spec.id] = part.prepare(
                lambda now_bytes, before=done: tell(min(before + now_bytes, total), total),
                self.effort)
            done += part.needed_bytes()
            tell(done, total)
        warnings = ()
        if self.tries_loads:
            for part in prepared:
                warnings += self._load_on_trial(part, lambda: tell(total, total))
        return records.RestoreOutcome(notes={'members': noted}, warnings=warnings)

    def _load_on_trial(self, part, tell):
        if part.swapped:    # then that was proved, and more
            return ()
        reason = trial.load(
            part, self._merged(part, self._wanted(self._member(part.spec), part.member)),
            self._libvirt, trial.Spare(self.trial_reserve_bytes, self.reserve_bytes), self.files,
            tell)
        if not reason:
            return ()
        LOG.warning('%(member)s is restored without a load on trial: %(reason)s',
                    {'member': part.spec, 'reason': reason})
        return (records.Finding(
            part.spec, 'memory',
            f'it was not loaded on trial before anything was stopped: {reason}',
            'where it does not wake, the restore is undone', ()),)

    def restore_stop(self, work: records.RestoreWork) -> records.RestoreOutcome:
        """Return when every old member here is proved stopped.

        By libvirt's word, and by the locks that any QEMU holds on the disks it runs on.

        :raises HypervisorError: one is not; which, and why
        """
        members = [(part, self._member(part.spec)) for part in self._parts(work)]
        for part, old in members:
            if not (state := old.state()).off:
                part.mark(parts.STOPPED, state.name)
        _together(lambda each: each[1].destroy(), members)
        deadline = time.monotonic() + _STOPPED_TIMEOUT_S
        _together(lambda each: self._prove_stopped(*each, deadline), members)
        return records.RestoreOutcome()

    def _prove_stopped(self, part, old, deadline):
        while True:
            state = old.state()
            open_path = part.in_use() if state.off else ''
            if state.off and not open_path:
                break
            if time.monotonic() > deadline:
                raise exception.HypervisorError(member=part.spec, reason=(
                    f'it is off, and {open_path} is open in a QEMU or a tool of its all the same'
                    if state.off else f'still {state.name} after being stopped'))
            time.sleep(_LOOK_S)
        part.take_owners()
        self.definitions.stopped(old.uuid)

    def restore_start(self, work: records.RestoreWork,
                      tell: Tell = _untold) -> records.RestoreOutcome:
        """Swap the disks and start every member, paused at the cut.

        A member that somebody started since it was stopped stays as it is, on the disk it has.

        :param tell: called with (done, total) members; what it raises ends it soon
        :raises GuestBusy: there is one; which, and which file is what
        """
        with contextlib.ExitStack() as locks:
            loading = []
            for part in self._parts(work):
                found = self._member(part.spec)
                state = found.state()
                if _is_ours(part, state):
                    continue
                if not state.off:
                    raise exception.GuestBusy(
                        member=part.spec, reason='somebody has started it, and it stays so: '
                        f'{part.where()}')
                held = locks.enter_context(_held(part, found))
                loading.append((part, found, held))
            for part, _found, _locks in loading:
                self._require_unwritten(part)
                part.swap()
            self._load_all(loading, tell)
        return records.RestoreOutcome()

    def _load_all(self, loading, tell):
        with concurrent.futures.ThreadPoolExecutor(_LOADS_AT_ONCE) as pool:
            loads = {pool.submit(self._load, part, found, held): found
                     for part, found, held in loading}
            try:
                left = set(loads)
                while left:
                    done, left = concurrent.futures.wait(
                        left, _LOOK_S, concurrent.futures.FIRST_EXCEPTION)
                    for each in done:
                        each.result()
                    tell(len(loads) - len(left), len(loads))
            except BaseException:
                for each in loads:
                    each.cancel()
                for each, found in loads.items():    # which ends a load that is under way
                    while not each.done():
                        with contextlib.suppress(exception.HotsnapError):
                            found.destroy()
                        concurrent.futures.wait([each], _LOOK_S)
                raise

    def _load(self, part, found, held):
        """Start a member at the cut; its disks are there, and locked as long as it takes."""
        self.definitions.starting(found.uuid)
        today = self._wanted(found, part.member)
        xml = self._merged(part, today)
        if today != found.xml(live=False):
            self._define(xml, part.member)
        part.mark(parts.LOADED, part.spec.id)
        found.load(part.memory(), xml)
        held.close()

    @staticmethod
    def _merged(part, today):
        """What it is started with; see `definition`."""
        xml = merging.merged(cut.xml(part.member), today)
        part.require_paths(xml)
        return xml

    @staticmethod
    def _require_unwritten(part):
        if part.swapped and part.written:
            raise exception.GuestChanged(
                member=part.spec, reason='it may have run on the disk of the cut since: '
                f'{part.where()}')

    # -- after it ------------------------------------------------------------------------------

    def restore_resume(self, work: records.RestoreWork) -> records.RestoreOutcome:
        """Let all members run, together; set clocks where an agent answers, else warn of them.

        One that died at the cut is loaded again. One that ran before is its owner's, whatever
        became of it. What cannot be done for a member keeps no other.

        :raises HostUnreachable: libvirt is away, and nothing can be judged; to be tried again
        """
        told, standing, run = telling.Told(), [], []

        def mark(part):
            found = self._member(part.spec)
            if self._stands(part, found):
                part.mark_resumed()
                standing.append((part, found))
            elif part.marked(parts.RESUMED):    # whoever let it run has died, perhaps at once
                run.append(clocks.Running(part.member, found))

        def let_run(each):
            part, found = each
            with told.of(part):
                _let_run(part, found)
                run.append(clocks.Running(part.member, found, time.time_ns()))

        def let_all_run():
            if not work.paused:
                _together(let_run, standing)
            standing.clear()
        told.each(self._parts(work), mark, let_all_run)
        warnings = clocks.STAND if work.paused else clocks.set_all(run)
        return dataclasses.replace(told.outcome(), warnings=warnings)

    def _stands(self, part, found):
        """Whether a member stands at the cut and is to be let run; it is loaded again if it died.

        :raises MemberLeft: it is not as it was at the cut, or not any more
        """
        state, resumed = found.state(), part.marked(parts.RESUMED)
        if _is_ours(part, state):
            return True
        if not resumed and (state.booted or (
                state.name == 'paused' and part.marked(parts.LOADED))):
            raise exception.MemberLeft(
                member=part.spec, reason='somebody has started it from the disk of the cut, or '
                f'let it run and paused it, so that it is not as it was then: {part.where()}')
        if not state.off:
            return False
        if resumed:
            self._require_not_died(part, found)
            return False
        LOG.warning('%s died before it could be resumed: it is loaded again', part.spec)
        with _held(part, found) as held:
            self._require_unwritten(part)
            self._load(part, found, held)
        return True

    def restore_finish(self, work: records.RestoreWork) -> records.RestoreOutcome:
        """Replaced disks stay for ``keep_hours``, all else of the restore goes; no guest is
        touched.

        :returns: as faults, who has died since it was let run, if only with its host
        :raises HostUnreachable: libvirt is away; to be tried again
        """
        told = telling.Told()

        def finish(part):
            part.finish(self.keep_hours)
            self.drop_older(part)
            if part.spec.id not in work.withdrawn:
                self._require_not_died(part, self._found(part.member))
        told.each([self._part(work, member) for member in work.members], finish)
        return told.outcome()

    @staticmethod
    def _require_not_died(part, found):
        if found and found.state().died:
            raise exception.MemberLeft(
                member=part.spec, reason='it was let run, and has died since; it was not '
                'started again')

    def restore_undo(self, work: records.RestoreWork) -> records.RestoreOutcome:
        """Old disks back; what this restore started is ended, what it stopped boots again.

        Its marks stay, until what it returns is on record: see `restore_clear`.

        :returns: as faults, what had to be left as it is, and what booted anew
        """
        told = telling.Told(is_undo=True)
        undoing = [self._part(work, member) for member in work.members]

        def undo(part):
            with told.of(part):
                self._undo(part, part.spec.id in work.withdrawn)
        _together(undo, undoing)
        return told.outcome()

    def restore_clear(self, work: records.RestoreWork) -> records.RestoreOutcome:
        """What an undo had to know goes; no guest is touched."""
        for member in work.members:
            self._part(work, member).end()
        return records.RestoreOutcome()

    def _undo(self, part, withdrawn):
        trial.end(part.spec, self._libvirt)
        part.drop_trial()
        found = self._found(part.member)
        state = found.state() if found else guest.State('gone')
        if _is_ours(part, state) and not withdrawn:
            self._end(found)
            state = found.state()
        was = part.marked(parts.STOPPED)
        if not state.off and part.swapped:
            raise exception.MemberLeft(
                member=part.spec, reason=f'somebody has it {state.name}, and it stays so: '
                f'{part.where()}')
        if part.swapped:
            _until_unused(part)
        with part.undone():
            if found:
                _settle(found)
        if kept_words := part.kept():
            LOG.warning('%(member)s ran on the disk of the cut; what was written is kept: '
                        '%(words)s', {'member': part.spec, 'words': kept_words})
        if not was or withdrawn or state.name == 'gone':
            return
        if state.off and was != 'running':
            raise exception.MemberLeft(
                member=part.spec, reason=f'it was {was} before the restore, and is off now')
        if state.off:
            self._boot(part, found)
        raise exception.MemberRebooted(member=part.spec)

    @staticmethod
    def _end(found):
        try:
            found.destroy()
        except exception.HypervisorError as exc:    # to be tried until it does
            raise exception.HostUnreachable(host='libvirt', reason=str(exc)) from exc

    def _boot(self, part, found):
        deadline = time.monotonic() + _BOOT_TIMEOUT_S
        while True:
            try:
                self.definitions.starting(found.uuid)
                if (today := self._wanted(found, part.member)) != found.xml(live=False):
                    self._define(today, part.member)
                found.boot()
                return
            except exception.HostUnreachable:
                raise
            except Exception as exc:    # of whoever defines guests, too, and it may pass
                if not found.state().off:
                    return
                if time.monotonic() > deadline:
                    raise exception.MemberLeft(
                        member=part.spec, reason='it was stopped for the restore, its disks are '
                        f'as they were, and it does not start again: {exc}') from exc
                LOG.warning('%(member)s is started again: %(error)s',
                            {'member': part.spec, 'error': exc})
            time.sleep(_BOOT_AGAIN_S)

    def restore_touched(self, work: records.RestoreWork) -> bool:
        """Whether anything of this restore is beside any of the members' disks, by names."""
        return any(self._part(work, member).touched for member in work.members)

    # -- inside --------------------------------------------------------------------------------

    def _part(self, work, member):
        if member.spec.id in work.notes.get('members', {}):
            return parts.Part(work, member, None, self.files)
        found = self._found(member)
        return parts.Part(work, member, found and found.xml(live=False), self.files)

    def _parts(self, work):
        """Of members that are not their owner's again."""
        return [self._part(work, member) for member in _ours(work)]

    def _found(self, member):
        with contextlib.suppress(exception.MemberNotFound):
            return self._member(member.spec)
        return None

    def _wanted(self, found, member):
        """The definition of today; None where nobody has any.

        :param found: its domain, or None
        """
        return self.definitions.xml(member.spec.id) or (found and found.xml(live=False))

    def _define_missing(self, member):
        if self._found(member) is None and (wanted := self.definitions.xml(member.spec.id)):
            self._define(wanted, member)

    def _define(self, xml, member):
        guest.define(self._libvirt(), xml, member.spec)


def _ours(work):
    return [member for member in work.members if member.spec.id not in work.withdrawn]


def _is_ours(part, state):
    """Whether it stands at the cut because this restore loaded it."""
    return state.loaded and part.loaded


@contextlib.contextmanager
def _held(part, found):
    """Its disks locked for the block, or until what it gives is closed.

    :raises GuestBusy: somebody has one open
    """
    with contextlib.ExitStack() as held:
        held.enter_context(part.locked())
        try:
            yield held
        except BaseException:
            _settle(found)
            raise


def _settle(found):
    """Return when nobody can be starting a guest from a disk whose name was just changed.

    Whoever tries while such disks are locked fails, and libvirt says as long that it starts.
    """
    deadline = time.monotonic() + _STOPPED_TIMEOUT_S
    with contextlib.suppress(exception.HotsnapError):
        while found.state().starting:
            if time.monotonic() > deadline:
                LOG.warning('%s does not get started, nor does it fail', found.spec)
                return
            time.sleep(_LOOK_S)


def _until_unused(part):
    """Return when nobody has its disks open, or after a while."""
    deadline = time.monotonic() + _STOPPED_TIMEOUT_S
    while part.in_use() and time.monotonic() < deadline:
        time.sleep(_LOOK_S)


def _let_run(part, found):
    deadline = time.monotonic() + _RESUME_TIMEOUT_S
    while True:
        try:
            found.resume()
            return
        except exception.HypervisorError as exc:
            state = found.state()
            if state.running:
                return
            if state.off or time.monotonic() > deadline:
                raise exception.MemberLeft(
                    member=part.spec,
                    reason=f'it is {state.name} at the cut, and does not go on: {exc}') from exc
        time.sleep(_LOOK_S)


def _together(do, members):
    """For each at once; each is done, whatever another raises."""
    with concurrent.futures.ThreadPoolExecutor(_STEPS_AT_ONCE) as pool:
        done = [pool.submit(do, member) for member in members]
        for each in done:
            each.result()
