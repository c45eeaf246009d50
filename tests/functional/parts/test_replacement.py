# SPDX-License-Identifier: Apache-2.0
"""A disk is replaced, and its predecessor comes back, whatever happens in between.

Once the restore is over it is kept as long as configured, and then dropped.
"""

import os
import pathlib
import socket
import struct
import subprocess
import tempfile
import time

import pytest

from hotsnap_nova import exception
from hotsnap_nova.virt import domain, files, records
from hotsnap_nova.virt.disks import image as disk_image
from hotsnap_nova.virt.restore import exporting, keeping, replacement, restorer


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
    old = image.parent / 'disk.raw.hotsnap-old-r1'
    assert old.read_bytes() == b'\xaa' * (1 << 20)


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
    os.link(image, f'{image}.hotsnap-old-r1')    # the crash comes here

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


@pytest.mark.parametrize('form', ['raw', 'qcow2'])
def test_a_large_disk_is_put_back_at_the_cost_of_what_is_in_it(tmp_path, form):
    source, told = tmp_path / 'of-the-cut.qcow2', []
    subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', source, '1T'], check=True)
    subprocess.run(['qemu-io', '-f', 'qcow2', '-c', 'write -P 1 900G 1M', source], check=True,
                   capture_output=True)
    placed = replacement.Replacement('guest', str(tmp_path / 'disk'), form, 'r1')

    placed.prepare(str(source), told.append)

    assert os.stat(placed.new).st_blocks * 512 < 8 << 20
    assert subprocess.run(['qemu-img', 'compare', '-f', 'qcow2', '-F', form, source, placed.new],
                          capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(('effort', 'options'), [
    (records.Effort(), []), (records.Effort(5 << 20), ['-r', str(5 << 20)]),
    (records.Effort(direct=True), ['-t', 'none', '-T', 'none'])])
def test_a_disk_is_put_back_with_as_much_effort_as_configured(
        image, source, monkeypatch, effort, options):
    asked, popen = [], subprocess.Popen
    monkeypatch.setattr(subprocess, 'Popen', lambda words, **more: (
        asked.append(words), popen(words, **more))[1])
    placed = make(image)

    placed.prepare(source, effort=effort)

    assert asked[0][:3 + len(options)] == ['qemu-img', 'convert', '-q', *options]
    assert pathlib.Path(placed.new).read_bytes()[:1] == b'\xcc'


@pytest.mark.parametrize('form', ['raw', 'qcow2'])
@pytest.mark.parametrize('preallocation', ['falloc', 'off'])
def test_a_disk_is_set_aside_as_its_predecessor_was(tmp_path, form, preallocation):
    source, path = tmp_path / 'cut.qcow2', tmp_path / 'disk'
    for made, *how in ((source, 'qcow2'), (path, form, '-o', f'preallocation={preallocation}')):
        subprocess.run(['qemu-img', 'create', '-q', '-f', *how, made, '64M'], check=True)
    subprocess.run(['qemu-io', '-f', 'qcow2', '-c', 'write -P 1 30M 1M', source], check=True,
                   capture_output=True)
    placed = replacement.Replacement('guest', str(path), form, 'r1')

    placed.prepare(str(source))

    assert (os.stat(placed.new).st_blocks * 512 >= 64 << 20) == (preallocation == 'falloc')
    assert subprocess.run(['qemu-img', 'compare', '-f', 'qcow2', '-F', form, source, placed.new],
                          capture_output=True, check=False).returncode == 0


def test_a_copy_is_private_while_it_is_made(image, source):
    image.unlink()    # nothing to take the mode from
    make(image).prepare(source)

    new = image.parent / 'disk.raw.hotsnap-new-r1'
    assert new.stat().st_mode & 0o777 == 0o600


# -- kept disks expire --------------------------------------------------------------------------

class Restorer(restorer.Restorer):
    """With domains that are their XML, a disk's path each and what else it has."""

    keep_hours = 24.0

    def __init__(self, *domains):
        self._domains = domains

    def _definitions(self):
        for path, more in self._domains:
            form = 'qcow2' if str(path).endswith('.qcow2') else 'raw'
            yield domain.DomainXml(
                f'<domain><devices><disk type="file" device="disk"><driver type="{form}"/>'
                f'<source file="{path}"/>{more}<target dev="vda"/></disk></devices></domain>')


def replace(image, source, restore_id='r1', age_hours=25.0):
    """Do a whole restore of the image, so many hours ago; the kept disk."""
    placed = make(image, restore_id)
    placed.prepare(source)
    placed.swap()
    placed.finish(24)
    kept = image.parent / f'disk.raw.hotsnap-kept-{restore_id}'
    when = time.time() - age_hours * 3600
    os.utime(kept, (when, when))
    return kept


def test_a_disk_kept_for_long_enough_is_dropped_and_a_younger_one_stays(image, source):
    old, young = replace(image, source, 'r1'), replace(image, source, 'r2', age_hours=23)

    assert Restorer((image, '')).drop_expired() == (str(old),)

    assert not old.exists()
    assert young.exists()
    assert image.exists()


def test_the_time_counts_from_the_end_of_the_restore(image, source):
    os.utime(image, (0, 0))    # nothing was written for years
    placed = make(image)
    placed.prepare(source)
    placed.swap()
    placed.finish(24)
    placed.finish(24)

    assert Restorer((image, '')).drop_expired() == ()
    assert (image.parent / 'disk.raw.hotsnap-kept-r1').exists()


@pytest.mark.parametrize('steps', [1, 2])
def test_a_disk_whose_restore_is_not_over_never_expires(image, source, steps):
    os.utime(image, (0, 0))
    placed = make(image)
    placed.prepare(source)
    os.link(image, placed.old) if steps == 1 else placed.swap()

    assert Restorer((image, '')).drop_expired() == ()

    make(image).undo()
    assert image.read_bytes() == b'\xaa' * (1 << 20)


def test_a_disk_that_a_domain_names_never_expires(image, source):
    kept = replace(image, source)

    assert Restorer((image, ''), (kept, '')).drop_expired() == ()
    assert Restorer((image, '<backingStore type="file"><format type="raw"/>'
                            f'<source file="{kept}"/></backingStore>')).drop_expired() == ()
    assert kept.exists()


def test_a_disk_below_a_domains_overlay_never_expires(image, source, tmp_path):
    kept = replace(image, source)
    overlay = tmp_path / 'undo.qcow2'
    subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', kept, overlay],
                   check=True)

    assert Restorer((image, ''), (overlay, '')).drop_expired() == ()
    assert kept.exists()


def test_where_what_is_below_an_image_cannot_be_told_nothing_is_dropped(image, source, tmp_path):
    """Here the header of an overlay does not say what it is over."""
    kept = replace(image, source)
    overlay = tmp_path / 'old.qcow2'
    subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', image, overlay],
                   check=True)
    content = overlay.read_bytes()
    overlay.write_bytes(content.replace(struct.pack('>II', 0xe2792aca, 3), bytes(8), 1))

    assert Restorer((image, ''), (overlay, '')).drop_expired() == ()
    assert kept.exists()
    assert Restorer((image, '')).drop_expired() == (str(kept),)


def test_a_header_that_a_guest_wrote_into_its_raw_disk_is_not_read(image, source, tmp_path,
                                                                   monkeypatch):
    """Nor is the file opened that it names."""
    kept = replace(image, source)
    subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', kept,
                    tmp_path / 'header'], check=True)
    image.write_bytes((tmp_path / 'header').read_bytes())
    asked = []
    monkeypatch.setattr(subprocess, 'run', lambda words, **_more: asked.append(words))

    assert Restorer((image, '')).drop_expired() == (str(kept),)
    assert asked == []


@pytest.mark.parametrize(('more', 'reason'), [
    (('-F', 'raw', '-b', '{secret}'), 'has a backing file'),
    (('-o', 'data_file={secret},data_file_raw=on'), 'has its data in another file'),
])
def test_an_image_in_a_store_that_reads_another_file_is_refused(image, tmp_path, more, reason):
    secret, planted = tmp_path / 'secret', tmp_path / 'planted.qcow2'
    secret.write_bytes(b'S' * (1 << 20))
    subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2',
                    *(word.format(secret=secret) for word in more), planted, '1M'], check=True)

    with pytest.raises(exception.Refused, match=reason):
        make(image).prepare(str(planted))
    with pytest.raises(exception.Refused, match=reason):
        exporting.export(str(tmp_path), {'name': 'guest', 'disks': [
            {'target': 'vda', 'file': planted.name}]}, str(image.parent))

    assert os.listdir(image.parent) == [image.name]


def test_a_backing_file_that_comes_after_the_look_is_not_read(image, tmp_path, monkeypatch):
    secret, planted = tmp_path / 'secret', tmp_path / 'planted.qcow2'
    secret.write_bytes(b'S' * (1 << 20))
    subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', secret,
                    planted], check=True)
    monkeypatch.setattr(replacement, 'require_alone', lambda *_asked: None)

    placed = make(image)
    placed.prepare(str(planted))

    assert pathlib.Path(placed.new).read_bytes() == bytes(1 << 20)


def test_a_disk_that_is_open_in_qemu_never_expires(image, source):
    kept = replace(image, source)
    with subprocess.Popen(['qemu-io', '-f', 'raw', '-r', kept], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as reader:
        reader.stdin.write(b'read 0 512\n')
        reader.stdin.flush()
        reader.stdout.readline()    # it is open

        assert Restorer((image, '')).drop_expired() == ()

        reader.stdin.close()
    assert Restorer((image, '')).drop_expired() == (str(kept),)


def test_a_disk_that_cannot_be_dropped_keeps_no_other_from_it(image, source, tmp_path):
    other = tmp_path / 'other' / 'disk.raw'
    other.parent.mkdir()
    other.write_bytes(b'\xaa' * (1 << 20))
    (image.parent / 'disk.raw.hotsnap-kept-folder').mkdir()
    os.utime(image.parent / 'disk.raw.hotsnap-kept-folder', (0, 0))
    kept = replace(other, source)

    assert Restorer((image, ''), (other, '')).drop_expired() == (str(kept),)


# -- as a user who is not root, as nova-compute is ----------------------------------------------

NOVA, QEMU = 64001, 64002


class Helper(files.Files):
    """Root, for as long as it is asked."""

    def chown(self, path, uid, gid):
        os.seteuid(0)
        super().chown(path, uid, gid)
        os.seteuid(NOVA)

    def touch(self, path):
        os.seteuid(0)
        super().touch(path)
        os.seteuid(NOVA)


@pytest.fixture
def foreign(source):
    """An image that libvirt gave to QEMU's user, in a folder of Nova's; we are Nova's user."""
    with tempfile.TemporaryDirectory(prefix='hotsnap-') as folder:
        image = pathlib.Path(folder) / 'disk.raw'
        image.write_bytes(b'\xaa' * (1 << 20))
        os.chmod(image, 0o600)
        os.chown(image, QEMU, QEMU)
        of_the_cut = pathlib.Path(folder) / 'of-the-cut.qcow2'
        of_the_cut.write_bytes(pathlib.Path(source).read_bytes())
        os.chown(of_the_cut, NOVA, NOVA)
        os.chown(folder, NOVA, NOVA)
        os.seteuid(NOVA)
        try:
            yield image, str(of_the_cut)
        finally:
            os.seteuid(0)


def seen(path):
    """(owner, mode, first byte), as root sees it."""
    os.seteuid(0)
    try:
        status = path.stat()
        return status.st_uid, status.st_gid, status.st_mode & 0o777, path.read_bytes()[:1]
    finally:
        os.seteuid(NOVA)


def test_a_disk_of_another_user_is_replaced_kept_and_dropped(foreign):
    image, source = foreign
    placed = replacement.Replacement('guest', str(image), 'raw', 'r1', Helper())

    placed.prepare(source)
    placed.swap()
    assert seen(image) == (QEMU, QEMU, 0o600, b'\xcc')
    assert seen(pathlib.Path(placed.old)) == (QEMU, QEMU, 0o600, b'\xaa')
    placed.finish(keep_hours=1)

    (kept,) = image.parent.glob('*.hotsnap-kept-*')
    assert keeping.expire(str(image), 'kept', 0, lambda _path: False, Helper()) == (str(kept),)
    assert sorted(each.name for each in image.parent.iterdir()) == [
        'disk.raw', 'of-the-cut.qcow2']


def test_a_disk_of_another_user_comes_back(foreign):
    image, source = foreign
    placed = replacement.Replacement('guest', str(image), 'raw', 'r1', Helper())
    placed.prepare(source)
    placed.swap()

    placed.undo()

    assert seen(image) == (QEMU, QEMU, 0o600, b'\xaa')


@pytest.mark.parametrize('owner', [NOVA, 0])
def test_what_libvirt_gave_back_when_the_guest_stopped_is_not_qemus_again(foreign, owner):
    image, source = foreign
    placed = replacement.Replacement('guest', str(image), 'raw', 'r1', Helper())
    placed.prepare(source)
    Helper().chown(str(image), owner, owner)

    placed.take_owner()
    placed.swap()
    placed.take_owner()    # as a step that is repeated

    assert seen(image) == (owner, owner, 0o600, b'\xcc')
    assert seen(pathlib.Path(placed.old)) == (owner, owner, 0o600, b'\xaa')


def test_a_disk_that_was_ours_when_we_died_is_given_back(foreign):
    image, source = foreign
    placed = replacement.Replacement('guest', str(image), 'raw', 'r1', Helper())
    placed.prepare(source)
    Helper().chown(str(image), NOVA, -1)
    os.link(image, placed.old)

    placed.swap()

    assert seen(pathlib.Path(placed.old)) == (QEMU, QEMU, 0o600, b'\xaa')


def test_what_cannot_be_read_is_not_taken_for_an_image_with_nothing_below(foreign):
    image, _source = foreign

    with pytest.raises(PermissionError):
        disk_image.chain(str(image), 'qcow2')


@pytest.mark.parametrize('below', [
    'json:{"driver": "qcow2", "file": {"driver": "file", "filename": "/base.qcow2"}}',
    'nbd://localhost/base', 'file:base'])
def test_what_is_below_and_is_no_path_is_not_taken_for_nothing(tmp_path, below):
    image = tmp_path / 'over.qcow2'
    subprocess.run(['qemu-img', 'create', '-q', '-u', '-f', 'qcow2', '-F', 'qcow2', '-b', below,
                    image, '1M'], check=True)

    with pytest.raises(disk_image.ChainUnknown, match='over.qcow2 cannot be told'):
        disk_image.chain(str(image), 'qcow2')


@pytest.mark.parametrize('below', ['file:{}/base:1.qcow2', './base:1.qcow2'])
def test_what_is_below_by_a_path_is_found_whatever_is_in_it(tmp_path, below):
    image = tmp_path / 'over.qcow2'
    base = tmp_path / 'base:1.qcow2'
    for path, *options in ((base,), (image, '-F', 'qcow2', '-b', below.format(tmp_path))):
        subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', *options, path, '1M'],
                       check=True)

    assert disk_image.chain(str(image), 'qcow2') == (str(image), str(base))


def test_what_a_store_keeps_and_is_no_file_is_not_read(tmp_path, source):
    fifo, link, bound = (tmp_path / name for name in ('fifo', 'link', 'socket'))
    os.mkfifo(fifo)
    link.symlink_to(source)

    # Whoever only reads it would get something here; else he would wait, and for ever.
    with open(os.open(fifo, os.O_RDWR), 'wb', buffering=0) as writer, \
            socket.socket(socket.AF_UNIX) as listener:
        writer.write(bytes(200))
        listener.bind(str(bound))
        found = [disk_image.kept_fault(str(path)) for path in (fifo, link, bound, source)]

    assert [fault and fault.split(':')[0].split(' it ')[1] for fault in found] == (
        ['is no file'] * 3 + [''])
