# SPDX-License-Identifier: Apache-2.0
"""Disks of every kind, frozen with their memory at one instant; snapshots side by side."""

import os

import pytest

from tests.functional.command import Hotsnap, until
from tests.functional.witness import Witness
from tests.lab import Disk, GuestSpec, Lab, disks, verdict

DISKS = (Disk(format='qcow2', backing='raw'), Disk(format='raw', iothread=True),
         Disk(format='qcow2', backing='qcow2', size_mb=256))
WRITTEN_BYTES = 32 << 20     # more than slots and a base image hold together


@pytest.fixture(scope='module')
def many(request):
    """A lab with a guest that has three disks, one of each kind."""
    failed_before = request.session.testsfailed
    with Lab() as lab:
        lab.guest = lab.start([GuestSpec(vcpus=2, disks=DISKS)], wait=True)[0]
        yield lab
        lab.keep_files = request.session.testsfailed > failed_before


@pytest.mark.parametrize('compress', [False, True])
def test_every_disk_agrees_with_memory_in_the_archive_and_after_a_restore(
        compress, many, tmp_path):
    user = Hotsnap(many.uri, tmp_path)
    guest = many.guest
    witness = Witness([guest])

    made = user.create('disks', [guest], *(['--compress'] if compress else []), '-f', 'json')
    assert made.status == 0, made.errors
    assert witness.left() == []
    assert witness.harmed() == []
    restored = user.run('snapshot', 'restore', 'disks', '--paused')

    assert restored.status == 0, restored.errors
    state = guest.counters()
    folder = user.store / made.json['id'] / guest.uuid
    assert min(disk.acked for disk in state.disks) > 0
    for index, disk in enumerate(state.disks):
        kept = disks.read(folder / f'vd{"abc"[index]}.qcow2', 'qcow2', disk.slots)
        assert verdict.check_disk(state, index, kept) == []
    assert guest.check_disks() == []
    assert (folder / 'memory.save.zst').exists() == compress
    guest.domain.resume()
    assert until(lambda: guest.counters().disks[0].acked > state.disks[0].acked + 10)
    assert witness.errors() == []


def test_replaced_disks_expire_at_a_later_command_and_no_sooner(many, tmp_path):
    user = Hotsnap(many.uri, tmp_path)
    guest = many.guest
    assert user.create('replaced', [guest]).status == 0
    assert user.run('snapshot', 'restore', 'replaced').status == 0
    kept = sorted(guest.folder.glob('*.hotsnap-kept-*'))
    assert len(kept) >= len(DISKS)
    os.utime(kept[0], (0, 0))

    recovered = user.run('recover')

    assert recovered.status == 0, recovered.errors
    assert not kept[0].exists()
    assert all(each.exists() for each in kept[1:])
    assert list(guest.folder.glob('*.hotsnap-old-*')) == []
    acked = guest.counters().disks[0].acked
    assert until(lambda: guest.counters().disks[0].acked > acked + 10)


def test_zero_pages_and_holes_cost_no_space(many, tmp_path):
    user = Hotsnap(many.uri, tmp_path)
    guest = many.guest

    made = user.create('small', [guest], '-f', 'json')

    assert made.status == 0, made.errors
    folder = user.store / made.json['id'] / guest.uuid
    for index, disk in enumerate(DISKS):
        image = folder / f'vd{"abc"[index]}.qcow2'
        assert image.stat().st_blocks * 512 < WRITTEN_BYTES
        assert image.stat().st_blocks * 512 < disk.size_mb << 20
    assert (folder / 'memory.save').stat().st_blocks * 512 < guest.spec.memory_mb << 20


def test_five_snapshots_leave_qemu_as_one_did(hotsnap, pair):
    assert hotsnap.create('first', pair).status == 0
    witness = Witness(pair)

    for number in range(5):
        made = hotsnap.create(f'again-{number}', pair)
        assert made.status == 0, made.errors

    assert witness.left() == []
    assert witness.errors() == []


def test_a_guest_in_one_snapshot_is_busy_for_others_and_its_neighbour_is_not(
        user, engine, pair):
    witness = Witness(pair)
    one, two = pair
    # The first has to wait for three commands, which take their time on a busy machine.
    waits = user.creating('one', [one], '--max-pause-ms', '60000', '--max-hold-ms', '60000')

    user.state.mkdir()
    with user.start(*waits, program=(
            'tests.functional.dying', 'prepared', str(user.state))) as running:
        assert until((user.state / 'reached').exists)
        busy = user.create('busy', [one])
        both = user.create('both', pair)
        free = user.create('free', [two])
        (user.state / 'go').touch()
        _, errors = running.communicate(timeout=60)

    for refused in (busy, both):
        assert refused.status == 1
        assert one.domain_name in refused.errors
        assert 'busy' in refused.errors or 'at work' in refused.errors
    assert free.status == 0, free.errors
    assert running.returncode == 0, errors
    assert engine.survey() == ()
    assert witness.left() == []
    assert witness.harmed() == []
