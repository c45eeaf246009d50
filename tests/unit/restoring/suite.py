# SPDX-License-Identifier: Apache-2.0
"""What any engine does with a restore: subclass and give it fixture ``rig``.

A rig has guests ``a`` and ``b`` that run on disks of their ``own`` and were snapshotted when these
were others, those of the ``cut``; what it can tell and do is in `tests.unit.restoring.fake.Rig`.
"""

import dataclasses
import json

import pytest

from hotsnap_nova import exception
from hotsnap_nova.virt import records

STEPS = ('prepare', 'stop', 'start', 'resume', 'finish')
BEFORE_DECISION = STEPS[:3]


def do(rig, work, step):
    """Do a step in a process of its own, with notes as they travel; (work, faults)."""
    outcome = getattr(rig.engine, f'restore_{step}')(work)
    if outcome.notes is not None:
        work = dataclasses.replace(work, notes=json.loads(json.dumps(outcome.notes)))
    return work, {fault.member: fault.error for fault in outcome.faults}


def undo(rig, work):
    """Undo all, once what there is to tell is on record; (work, faults)."""
    told = do(rig, work, 'undo')
    assert do(rig, work, 'clear') == (work, {})
    return told


def through(rig, work, last):
    """Do all steps up to this one; the work of the next."""
    for step in STEPS[:STEPS.index(last) + 1]:
        work, faults = do(rig, work, step)
        assert faults == {}
    return work


def whole(rig, name):
    """(state, whose disk is in its place, whose it has open)."""
    return rig.state(name), rig.disk(name), rig.opened(name)


def which_is_which(rig, name):
    """What an error has to say of a member's files."""
    if rig.disk(name) == 'cut':
        return (f'{rig.file(name)} is the disk of the cut and {rig.file(name, "old")} the one of '
                'before')
    return f'{rig.file(name)} is its own disk and {rig.file(name, "new")} that of the cut'


OWN, AT_CUT, OFF = ('running', 'own', 'own'), ('running', 'cut', 'cut'), ('shut off', 'own', '')


#: As a user may name a server.
CALLED = r'is busy: %(member)s \1 (.*'


def called(work, name):
    """Of a member whose user calls it so."""
    (member,) = work.members
    spec = records.MemberSpec(member.spec.id, name)
    return dataclasses.replace(work, members=(dataclasses.replace(member, spec=spec),))


class RestoreSuite:

    # -- all goes well -------------------------------------------------------------------------

    def test_preparing_touches_no_guest(self, rig):
        work = rig.work('a', 'b')
        assert not rig.engine.restore_touched(work)

        work = through(rig, work, 'prepare')

        assert [whole(rig, name) for name in 'ab'] == [OWN] * 2
        assert rig.beside('a')['new'] == 'cut'
        assert rig.engine.restore_touched(work)

    def test_started_members_stand_at_the_cut_and_resumed_ones_run(self, rig):
        work = through(rig, rig.work('a', 'b'), 'start')
        assert [whole(rig, name) for name in 'ab'] == [('paused', 'cut', 'cut')] * 2

        work, faults = do(rig, work, 'resume')

        assert faults == {}
        assert [whole(rig, name) for name in 'ab'] == [AT_CUT] * 2

    def test_members_that_shall_stand_stand(self, rig):
        through(rig, rig.work('a', paused=True), 'finish')

        assert whole(rig, 'a') == ('paused', 'cut', 'cut')

    def test_at_the_end_the_replaced_disk_alone_is_left(self, rig):
        work = through(rig, rig.work('a'), 'finish')

        assert rig.beside('a') == {'kept': 'own'}
        assert not rig.engine.restore_touched(work)

    def test_one_replaced_disk_is_kept(self, rig):
        through(rig, rig.work('a', restore_id='r1'), 'finish')
        through(rig, rig.work('a', restore_id='r2'), 'finish')

        assert list(rig.beside('a')) == ['kept']
        assert whole(rig, 'a') == AT_CUT

    def test_what_is_off_is_restored_too(self, rig):
        rig.stop('a')

        through(rig, rig.work('a'), 'resume')

        assert whole(rig, 'a') == AT_CUT

    # -- repeats -------------------------------------------------------------------------------

    @pytest.mark.parametrize('step', STEPS)
    def test_a_repeated_step_changes_nothing(self, rig, step):
        work = through(rig, rig.work('a'), step)
        before = whole(rig, 'a'), rig.beside('a'), rig.starts('a')

        _, faults = do(rig, work, step)

        assert faults == {}
        assert (whole(rig, 'a'), rig.beside('a'), rig.starts('a')) == before

    @pytest.mark.parametrize('step', ['resume', 'finish'])
    @pytest.mark.parametrize('by_its_owner', ['pause', 'stop'])
    def test_what_its_owner_did_since_it_ran_is_left_alone(self, rig, step, by_its_owner):
        work = through(rig, rig.work('a'), step)
        getattr(rig, by_its_owner)('a')
        before = rig.state('a'), rig.starts('a')

        for again in STEPS[STEPS.index('resume'):]:
            do(rig, work, again)

        assert (rig.state('a'), rig.starts('a')) == before

    @pytest.mark.parametrize('by_its_owner', ['pause', 'stop'])
    @pytest.mark.parametrize('step', ['resume', 'finish'])
    def test_what_its_owner_did_since_it_ran_is_no_fault(self, rig, by_its_owner, step):
        work = through(rig, rig.work('a'), 'resume')
        getattr(rig, by_its_owner)('a')

        assert do(rig, work, step)[1] == {}

    # -- members that die ----------------------------------------------------------------------

    def test_what_died_at_the_cut_is_loaded_again(self, rig):
        work = through(rig, rig.work('a', 'b'), 'start')
        rig.kill('a')

        _, faults = do(rig, work, 'resume')

        assert faults == {}
        assert [whole(rig, name) for name in 'ab'] == [AT_CUT] * 2

    @pytest.mark.parametrize('step', ['resume', 'finish'])
    def test_what_died_after_it_ran_is_named_and_not_started(self, rig, step):
        work = through(rig, rig.work('a', 'b'), 'resume')
        rig.kill('a')

        _, faults = do(rig, work, step)

        assert list(faults) == [rig.id('a')]
        assert isinstance(faults[rig.id('a')], exception.MemberLeft)
        assert [rig.state(name) for name in 'ab'] == ['shut off', 'running']

    def test_what_cannot_be_loaded_again_is_named_and_stays_off(self, rig):
        work = through(rig, rig.work('a', 'b'), 'start')
        rig.kill('a')
        rig.lose_memory('a')

        _, faults = do(rig, work, 'resume')

        assert list(faults) == [rig.id('a')]
        assert rig.state('a') == 'shut off'
        assert whole(rig, 'b') == AT_CUT

    def test_what_was_deleted_at_the_cut_keeps_no_other(self, rig):
        work = through(rig, rig.work('a', 'b'), 'start')
        rig.delete('a')

        work, faults = do(rig, work, 'resume')
        do(rig, work, 'finish')

        assert list(faults) == [rig.id('a')]
        assert whole(rig, 'b') == AT_CUT

    # -- undo ----------------------------------------------------------------------------------

    @pytest.mark.parametrize('last', [None, *BEFORE_DECISION])
    def test_after_an_undo_all_is_as_before_and_what_ran_was_booted(self, rig, last):
        work = through(rig, rig.work('a'), last) if last else rig.work('a')

        _, faults = undo(rig, work)

        assert whole(rig, 'a') == OWN
        assert rig.beside('a') == {}
        assert set(map(type, faults.values())) == (
            {exception.MemberRebooted} if last in ('stop', 'start') else set())
        assert not rig.engine.restore_touched(work)

    def test_a_repeated_undo_changes_nothing(self, rig):
        work = through(rig, rig.work('a'), 'start')
        undo(rig, work)
        rig.stop('a')    # by its owner

        _, faults = undo(rig, work)

        assert faults == {}
        assert whole(rig, 'a') == OFF

    @pytest.mark.parametrize('last', ['stop', 'start'])
    def test_an_undo_tells_the_same_until_it_is_cleared(self, rig, last):
        work = through(rig, rig.work('a'), last)
        _, first = do(rig, work, 'undo')
        before = whole(rig, 'a'), rig.starts('a')

        _, faults = do(rig, work, 'undo')

        assert {each: type(fault) for each, fault in faults.items()} == {
            each: type(fault) for each, fault in first.items()} != {}
        assert (whole(rig, 'a'), rig.starts('a')) == before

    def test_what_was_off_stays_off_after_an_undo(self, rig):
        rig.stop('a')
        work = through(rig, rig.work('a'), 'start')

        _, faults = undo(rig, work)

        assert faults == {}
        assert whole(rig, 'a') == OFF

    def test_what_was_paused_is_off_after_an_undo_and_named(self, rig):
        rig.pause('a')
        work = through(rig, rig.work('a'), 'start')

        _, faults = undo(rig, work)

        assert isinstance(faults[rig.id('a')], exception.MemberLeft)
        assert 'paused' in str(faults[rig.id('a')])
        assert whole(rig, 'a') == OFF

    def test_what_another_restore_left_standing_stands_after_an_undo(self, rig):
        through(rig, rig.work('a', paused=True), 'finish')
        before = rig.state('a'), rig.opened('a'), rig.starts('a')
        work = through(rig, rig.work('a', restore_id='r2'), 'prepare')

        _, faults = undo(rig, work)

        assert faults == {}
        assert (rig.state('a'), rig.opened('a'), rig.starts('a')) == before
        assert before[:2] == ('paused', 'cut')

    def test_what_was_paused_since_it_was_loaded_is_named_by_a_resumption(self, rig):
        work = through(rig, rig.work('a'), 'start')
        rig.go_on('a')
        rig.pause('a')

        _, faults = do(rig, work, 'resume')

        assert isinstance(faults[rig.id('a')], exception.MemberLeft)
        assert rig.state('a') == 'paused'

    def test_what_died_at_the_cut_is_booted_by_an_undo(self, rig):
        work = through(rig, rig.work('a'), 'start')
        rig.kill('a')

        undo(rig, work)

        assert whole(rig, 'a') == OWN

    def test_what_is_no_longer_defined_has_its_old_disk_back_after_an_undo(self, rig):
        work = through(rig, rig.work('a'), 'start')
        rig.undefine('a')

        _, faults = undo(rig, work)

        assert faults == {}
        assert (rig.disk('a'), rig.beside('a')) == ('own', {})

    def test_what_was_deleted_keeps_no_other_from_its_undo(self, rig):
        work = through(rig, rig.work('a', 'b'), 'start')
        rig.delete('a')

        undo(rig, work)

        assert whole(rig, 'b') == OWN

    # -- what somebody starts meanwhile --------------------------------------------------------

    def test_what_was_started_before_the_swap_keeps_its_disk(self, rig):
        work = through(rig, rig.work('a', 'b'), 'stop')
        rig.boot('a')

        with pytest.raises(exception.Conflict) as told:
            do(rig, work, 'start')

        assert which_is_which(rig, 'a') in str(told.value)
        assert whole(rig, 'a') == OWN
        _, faults = undo(rig, work)
        assert whole(rig, 'a') == OWN
        assert rig.beside('a') == {}
        assert rig.id('a') in faults

    def test_what_was_started_on_the_disk_of_the_cut_is_left_so_by_an_undo(self, rig):
        work = through(rig, rig.work('a'), 'start')
        rig.kill('a')
        rig.boot('a')

        _, faults = undo(rig, work)

        assert isinstance(faults[rig.id('a')], exception.MemberLeft)
        assert which_is_which(rig, 'a') in str(faults[rig.id('a')])
        assert whole(rig, 'a') == AT_CUT
        assert rig.beside('a')['old'] == 'own'

    def test_what_was_started_between_swap_and_loading_keeps_the_disk_it_has(self, rig):
        work = through(rig, rig.work('a'), 'stop')
        rig.lose_memory('a')
        with pytest.raises(exception.HotsnapError):
            do(rig, work, 'start')
        rig.boot('a')

        with pytest.raises(exception.Conflict) as told:
            do(rig, work, 'start')

        assert which_is_which(rig, 'a') in str(told.value)
        assert whole(rig, 'a') == AT_CUT

    # -- words ---------------------------------------------------------------------------------

    def test_an_error_calls_a_member_as_its_user_does_and_carries_its_id(self, rig):
        work = through(rig, called(rig.work('a'), CALLED), 'stop')
        rig.boot('a')

        with pytest.raises(exception.GuestBusy) as told:
            do(rig, work, 'start')

        assert str(told.value).startswith(f'Member {CALLED} is busy: ')
        assert told.value.kwargs['member'] == rig.id('a')

    def test_a_fault_calls_a_member_as_its_user_does_and_carries_its_id(self, rig):
        work = through(rig, called(rig.work('a'), CALLED), 'stop')

        _, faults = undo(rig, work)

        (fault,) = faults.values()
        assert str(fault).startswith(f'Member {CALLED} had been stopped')
        assert fault.kwargs['member'] == rig.id('a')

    # -- what is no longer what it was ---------------------------------------------------------

    @pytest.mark.parametrize('step', ['stop', 'start'])
    def test_a_step_before_the_decision_fails_without_a_member(self, rig, step):
        work = through(rig, rig.work('a'), STEPS[STEPS.index(step) - 1])
        rig.undefine('a')

        with pytest.raises(exception.MemberNotFound):
            do(rig, work, step)

        _, faults = undo(rig, work)
        assert faults == {}
        assert (rig.disk('a'), rig.beside('a')) == ('own', {})

    def test_another_file_in_the_place_of_its_disk_is_never_swapped(self, rig):
        work = through(rig, rig.work('a'), 'stop')
        rig.replace('a')

        with pytest.raises(exception.GuestChanged):
            do(rig, work, 'start')

        assert (rig.state('a'), rig.disk('a')) == ('shut off', 'other')
        undo(rig, work)
        assert (rig.disk('a'), rig.beside('a')) == ('other', {})

    def test_a_member_that_has_another_disk_now_is_not_started_at_the_cut(self, rig):
        work = through(rig, rig.work('a'), 'stop')
        rig.redefine('a')

        with pytest.raises(exception.GuestChanged):
            do(rig, work, 'start')

        assert rig.state('a') == 'shut off'
        _, faults = undo(rig, work)
        assert (rig.disk('a'), rig.beside('a')) == ('own', {})
        assert (rig.state('a'), rig.opened('a')) == ('running', 'other')
        assert isinstance(faults[rig.id('a')], exception.MemberRebooted)

    # -- members that another host has, on a disk that both see --------------------------------

    def test_a_disk_that_another_host_runs_is_not_swapped(self, rig):
        work = through(rig, rig.work('a'), 'stop')
        rig.evacuate('a')

        with pytest.raises(exception.HotsnapError):
            do(rig, work, 'start')

        assert (rig.disk('a'), rig.opened('a')) == ('own', 'own')
        _, faults = undo(rig, work)
        assert faults == {}
        assert (rig.disk('a'), rig.opened('a'), rig.beside('a')) == ('own', 'own', {})

    def test_an_undo_takes_no_disk_from_another_host(self, rig):
        work = through(rig, rig.work('a', 'b'), 'start')
        rig.evacuate('a')

        _, faults = undo(rig, work)

        assert which_is_which(rig, 'a') in str(faults[rig.id('a')])
        assert (rig.disk('a'), rig.opened('a'), rig.beside('a')['old']) == ('cut', 'cut', 'own')
        assert whole(rig, 'b') == OWN

    def test_what_another_host_runs_keeps_nobody_after_the_decision(self, rig):
        work = through(rig, rig.work('a', 'b'), 'start')
        rig.evacuate('a')

        work, faults = do(rig, work, 'resume')
        do(rig, work, 'finish')

        assert list(faults) == [rig.id('a')]
        assert (rig.disk('a'), rig.opened('a'), rig.beside('a')) == ('cut', 'cut', {'kept': 'own'})
        assert whole(rig, 'b') == AT_CUT

    def test_what_was_started_on_the_disk_of_the_cut_is_named_by_a_resumption(self, rig):
        work = through(rig, rig.work('a', 'b'), 'start')
        rig.kill('a')
        rig.boot('a')
        starts = rig.starts('a')

        _, faults = do(rig, work, 'resume')

        assert list(faults) == [rig.id('a')]
        assert rig.starts('a') == starts
        assert [whole(rig, name) for name in 'ab'] == [AT_CUT] * 2

    def test_what_wrote_to_the_disk_of_the_cut_is_never_joined_to_the_memory(self, rig):
        work = through(rig, rig.work('a', 'b'), 'start')
        rig.kill('a')
        rig.boot('a')
        rig.stop('a')

        _, faults = do(rig, work, 'resume')

        assert list(faults) == [rig.id('a')]
        assert [rig.state(name) for name in 'ab'] == ['shut off', 'running']

    def test_what_was_written_to_a_disk_of_the_cut_is_kept_by_an_undo(self, rig):
        work = through(rig, rig.work('a'), 'start')
        rig.kill('a')
        rig.boot('a')
        rig.stop('a')

        undo(rig, work)

        assert rig.disk('a') == 'own'
        assert rig.beside('a') == {'kept': 'cut'}

    def test_what_its_owner_let_go_on_is_not_taken_back(self, rig):
        work = through(rig, rig.work('a'), 'start')
        rig.go_on('a')

        _, faults = undo(rig, work)

        assert isinstance(faults[rig.id('a')], exception.MemberLeft)
        assert whole(rig, 'a') == AT_CUT

    # -- members that are their owner's again --------------------------------------------------

    @pytest.mark.parametrize('last', [None, *BEFORE_DECISION])
    def test_a_withdrawn_member_is_not_touched_by_any_later_step(self, rig, last):
        work = through(rig, rig.work('a', 'b'), last) if last else rig.work('a', 'b')
        before = rig.state('a'), rig.opened('a'), rig.starts('a')
        work = dataclasses.replace(work, withdrawn=(rig.id('a'),))

        for step in STEPS[STEPS.index(last) + 1 if last else 0:]:
            work, faults = do(rig, work, step)
            assert faults == {}

        assert (rig.state('a'), rig.opened('a'), rig.starts('a')) == before
        assert whole(rig, 'b') == AT_CUT

    @pytest.mark.parametrize('last', BEFORE_DECISION)
    def test_an_undo_puts_no_disk_under_a_withdrawn_member_that_runs(self, rig, last):
        work = through(rig, rig.work('a', 'b'), last)
        before = rig.state('a'), rig.opened('a'), rig.starts('a')
        work = dataclasses.replace(work, withdrawn=(rig.id('a'),))

        undo(rig, work)

        assert (rig.state('a'), rig.opened('a'), rig.starts('a')) == before
        assert rig.opened('a') in ('', rig.disk('a'))
        assert whole(rig, 'b') == OWN
