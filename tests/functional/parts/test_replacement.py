# SPDX-License-Identifier: Apache-2.0
"""A disk is replaced, and its predecessor comes back, whatever happens in between."""

import os
import subprocess

import pytest

from hotsnap_nova import exception
from hotsnap_nova.virt import replacement


@pytest.fixture
def source(tmp_path):
    """A snapshot's disk, whose first sector says so."""
    path = str(tmp_path / 'of-the-cut.qcow2')
    subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', path, '1M'], check=True)
    subprocess.run(['qemu-io', '-f', 'qcow2', '-c', 'write -P 0xcc 0 512', path], check=True,
                   capture_output=True)
    return path


@pytest.fixture
def image(tmp_path):
    folder = tmp_path / 'images'
    folder.mkdir()
    path = folder / 'disk.raw'
    path.write_bytes(b'\xaa' * (1 << 20))
    os.chmod(path, 0o640)
    return path


def make(image, restore_id='r1'):
    return replacement.Replacement('guest', str(image), 'raw', restore_id)


def test_preparing_leaves_the_image_alone(image, source):
    make(image).prepare(source)

    assert image.read_bytes()[:1] == b'\xaa'


def test_swapping_puts_the_cut_in_place_and_keeps_the_old(image, source):
    placed = make(image)
    placed.prepare(source)

    placed.swap()

    assert image.read_bytes()[:2] == b'\xcc\xcc'
    assert image.stat().st_mode & 0o777 == 0o640
    kept = image.parent / 'disk.raw.hotsnap-kept-r1'
    assert kept.read_bytes() == b'\xaa' * (1 << 20)


@pytest.mark.parametrize('steps', [(), ('prepare',), ('prepare', 'swap'),
                                   ('prepare', 'swap', 'swap')])
def test_an_undo_restores_the_old_disk_after_any_step_and_twice(image, source, steps):
    for step in steps:
        placed = make(image)    # each in a fresh process
        placed.prepare(source) if step == 'prepare' else placed.swap()

    make(image).undo()
    make(image).undo()

    assert image.read_bytes() == b'\xaa' * (1 << 20)
    assert os.listdir(image.parent) == ['disk.raw']


def test_an_undo_after_a_crash_between_keeping_and_replacing(image, source):
    make(image).prepare(source)
    os.link(image, f'{image}.hotsnap-kept-r1')    # the crash comes here

    make(image).undo()

    assert image.read_bytes() == b'\xaa' * (1 << 20)
    assert os.listdir(image.parent) == ['disk.raw']


def test_nothing_is_started_on_a_disk_that_was_not_prepared(image):
    with pytest.raises(exception.TargetFailed, match='no longer there'):
        make(image).swap()


def test_a_link_to_the_image_is_followed(image, source, tmp_path):
    link = tmp_path / 'link.raw'
    link.symlink_to(image)
    placed = make(link)
    placed.prepare(source)

    placed.swap()

    assert link.is_symlink()
    assert image.read_bytes()[:2] == b'\xcc\xcc'


@pytest.mark.parametrize(('hours', 'left'), [(24, 1), (0, 0)])
def test_finishing_keeps_the_old_disk_as_long_as_configured(image, source, hours, left):
    placed = make(image)
    placed.prepare(source)
    placed.swap()

    placed.finish(hours)

    assert len(os.listdir(image.parent)) == 1 + left


def test_a_copy_is_private_while_it_is_made(image, source):
    image.unlink()    # nothing to take the mode from
    make(image).prepare(source)

    new = image.parent / 'disk.raw.hotsnap-new-r1'
    assert new.stat().st_mode & 0o777 == 0o600
