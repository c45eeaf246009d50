# SPDX-License-Identifier: Apache-2.0
"""A host loses its power at any point of a swap: no disk loses its only name, no mark its word.

Points are calls that change names or sync them. Of what was not synced any part may be there.
"""

import itertools
import os

import pytest

from hotsnap_nova.virt import files, records
from hotsnap_nova.virt.restore import parts, replacement
from tests.fakes import power

OWN, CUT = b'\xaa' * 8192, b'\xcc' * 8192
_CALLS = ('link', 'replace', 'unlink', 'fsync')


class Lost(BaseException):
    """There is no power any more."""


class Losses:
    """A folder after each loss of power that there may be, within what is done to it.

    :ivar ended: whether all was done before this loss
    """

    def __init__(self, tmp_path, monkeypatch):
        self._folders = (tmp_path / str(number) for number in itertools.count())
        self._patch = monkeypatch
        self.ended = False

    def within(self, do, *before):
        """The folder after each, where ``before`` was done in peace."""
        for number in itertools.count():
            self.ended = False
            for world in itertools.count():
                folder = next(self._folders)
                worlds = self._lose(folder, do, before, number, world)
                yield folder
                if world + 1 >= worlds:
                    break
            if self.ended:
                return

    def _lose(self, folder, do, before, number, world):
        """Lose power at a call, and leave one of so many worlds; how many there are."""
        folder.mkdir()
        (folder / 'disk.raw').write_bytes(OWN)
        for each in before:
            each(folder)
        with self._patch.context() as patched:
            disk = power.Disk(folder, patched)
            with patched.context() as counted:
                self._count(counted, number)
                try:
                    do(folder)
                    self.ended = True
                except Lost:
                    pass
            worlds = disk.worlds()
            disk.lose_power(worlds[world])
            disk.close()
        return len(worlds)

    @staticmethod
    def _count(patched, number):
        left = itertools.count(number, -1)

        def counted(call):
            def do(*args, **kwargs):
                if next(left) == 0:
                    raise Lost
                return call(*args, **kwargs)
            return do
        for name in _CALLS:
            patched.setattr(os, name, counted(getattr(os, name)))


@pytest.fixture
def losses(tmp_path, monkeypatch):
    return Losses(tmp_path, monkeypatch)


@pytest.fixture(autouse=True)
def converted(monkeypatch):
    """Without qemu-img, a disk of the cut."""
    def convert(self, _source, _tell, _effort):
        with open(self.new, 'wb') as file:
            file.write(CUT)
    monkeypatch.setattr(replacement.Replacement, '_convert', convert)


def placed(folder):
    return replacement.Replacement('guest', str(folder / 'disk.raw'), 'raw', 'r1')


def prepare(folder):
    placed(folder).prepare('')


def swap(folder):
    placed(folder).swap()


def undo(folder):
    placed(folder).undo()


def finish(folder):
    placed(folder).finish(24)


def whole(folder):
    """What is there, by its first word after the restore's own, whose it is."""
    whose = {OWN: 'own', CUT: 'cut'}
    return {name.partition('.hotsnap-')[2].split('-')[0] or 'disk':
            whose.get((folder / name).read_bytes(), 'damaged') for name in os.listdir(folder)}


def test_what_was_prepared_is_whole(losses):
    for folder in losses.within(prepare):
        assert whole(folder)['disk'] == 'own'
        if losses.ended:
            assert whole(folder) == {'disk': 'own', 'new': 'cut'}
        undo(folder)
        assert whole(folder) == {'disk': 'own'}


def test_a_swap_leaves_a_disk_in_the_place_and_the_old_one_a_name(losses):
    for folder in losses.within(swap, prepare):
        found = whole(folder)
        assert found['disk'] in ('own', 'cut')
        assert 'own' in (found['disk'], found.get('old'))
        if losses.ended:
            assert found == {'disk': 'cut', 'old': 'own'}
        swap(folder)
        assert whole(folder) == {'disk': 'cut', 'old': 'own'}


@pytest.mark.parametrize('before', [(prepare,), (prepare, swap)])
def test_after_a_loss_in_a_swap_or_an_undo_an_undo_ends_it(losses, before):
    for do in (swap, undo):
        for folder in losses.within(do, *before):
            assert whole(folder)['disk'] in ('own', 'cut')
            undo(folder)
            assert whole(folder) == {'disk': 'own'}


def half_swap(folder):
    os.link(folder / 'disk.raw', placed(folder).old)


@pytest.mark.parametrize('before', [(prepare,), (prepare, half_swap), (prepare, swap)])
def test_an_undo_that_ended_leaves_nothing(losses, before):
    for folder in losses.within(undo, *before):
        if losses.ended:
            assert whole(folder) == {'disk': 'own'}


def test_an_end_keeps_the_old_disk(losses):
    for folder in losses.within(finish, prepare, swap):
        found = whole(folder)
        assert found['disk'] == 'cut'
        assert 'own' in (found.get('old'), found.get('kept'))
        if losses.ended:
            assert found == {'disk': 'cut', 'kept': 'own'}
        finish(folder)
        assert whole(folder) == {'disk': 'cut', 'kept': 'own'}


# -- marks ----------------------------------------------------------------------------------------

def part(folder):
    return parts.Part(
        records.RestoreWork('s1', 'r1', ()),
        records.RestoreMember(records.MemberSpec('a', 'guest'), '', {}),
        '<domain><devices><disk type="file" device="disk"><driver type="raw"/>'
        f'<source file="{folder}/disk.raw"/><target dev="vda"/></disk></devices></domain>',
        files.Files())


@pytest.mark.parametrize('what', [parts.STOPPED, parts.LOADED, parts.RESUMED])
def test_a_mark_that_was_set_is_there_and_never_half(losses, what):
    for folder in losses.within(lambda folder: part(folder).mark(what, 'running')):
        assert part(folder).marked(what) in (('running',) if losses.ended else ('', 'running'))
        part(folder).end()
        assert os.listdir(folder) == ['disk.raw']


def leave(folder):
    """All that a restore has of a member beside its disks."""
    for what in parts.FILES:
        part(folder).mark(what, 'running')
    with open(part(folder).on_trial('memory'), 'w'):
        pass


def test_what_was_dropped_at_the_end_does_not_come_back(losses):
    """Once the end is on record nobody repeats it."""
    for folder in losses.within(lambda folder: part(folder).end(), leave):
        if losses.ended:
            assert os.listdir(folder) == ['disk.raw']
        part(folder).end()
        assert os.listdir(folder) == ['disk.raw']


def test_an_end_of_a_member_whose_folder_is_gone_is_one(tmp_path):
    part(tmp_path / 'gone').end()
