# SPDX-License-Identifier: Apache-2.0
"""One member brought back by plain virsh, and an archive that cannot be misused."""

import hashlib
import pathlib
import subprocess

import pytest

from tests.functional.command import until
from tests.lab import verdict


def virsh(lab, *words):
    return subprocess.run(['virsh', '-q', '-c', lab.uri, *words], capture_output=True,
                          text=True, check=False, timeout=60)


def file_digest(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


@pytest.fixture
def archive(hotsnap, pair):
    """The folder of a snapshot of the pair, by its id."""
    made = hotsnap.create('kept', pair, '-f', 'json')
    assert made.status == 0, made.errors
    return hotsnap.store / made.json['id']


def test_plain_virsh_restores_an_exported_member_at_its_cut(
        hotsnap, shared_lab, archive, pair, tmp_path):
    """Also when the snapshot is no more, and by a QEMU that may read no store of ours."""
    guest = pair[0]
    later = guest.counters()
    out = shared_lab.folder / f'export-{tmp_path.name}'
    exported = hotsnap.run('snapshot', 'export', 'kept', str(out), '-f', 'json')
    assert exported.status == 0, exported.errors
    paths = {row['File']: row['Path'] for row in exported.json
             if row['Member'] == guest.domain_name}
    guest.kill9()
    assert hotsnap.run('snapshot', 'delete', 'kept').status == 0

    restored = virsh(shared_lab, 'restore', paths['memory'], '--xml', paths['xml'], '--paused')

    assert restored.returncode == 0, restored.stderr
    state = guest.counters()
    assert 0 < state.disks[0].acked <= later.disks[0].acked
    assert state.life == later.life
    assert guest.check_disks() == []
    assert verdict.check_health([state]) == []
    guest.domain.resume()
    assert until(lambda: guest.counters().disks[0].acked > state.disks[0].acked + 10)
    assert guest.troubles() == []
    assert guest.counters().disks[0].errors == 0


def test_a_bare_restore_of_the_archive_fails_and_leaves_the_disk_alone(
        shared_lab, archive, pair):
    guest = pair[0]
    guest.kill9()
    disk = guest.folder / 'disk0.qcow2'
    before = file_digest(disk)

    restored = virsh(shared_lab, 'restore', str(archive / guest.uuid / 'memory.save'))

    assert restored.returncode != 0
    assert 'No such file' in restored.stderr
    assert not guest.domain.isActive()
    assert file_digest(disk) == before
