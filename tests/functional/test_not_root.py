# SPDX-License-Identifier: Apache-2.0
"""Who may talk to libvirt may take snapshots, though root it is not.

As nova-compute is, as a rule: user nova, in the group of libvirt's socket. The one capability it
has here is to read this checkout, which root keeps for itself; nothing can be written by it, nor
can a process be looked into. A restore needs more, which Nova's helper gives: test_replacement.
"""

import os
import pathlib
import stat

import pytest

from tests.functional.command import Hotsnap
from tests.functional.witness import Witness

_USER = 65534
_READ = '-all,+dac_read_search'
_ENTER = ('setpriv', f'--reuid={_USER}', f'--regid={_USER}', '--clear-groups',
          f'--inh-caps={_READ}', f'--ambient-caps={_READ}', f'--bounding-set={_READ}')


@pytest.fixture
def nobody(shared_lab, tmp_path):
    """The command of a user with a folder of its own, whom libvirtd listens to."""
    os.chown(tmp_path, _USER, _USER)
    socket = pathlib.Path(shared_lab.uri.partition('socket=')[2])
    before = stat.S_IMODE(socket.stat().st_mode)
    socket.chmod(0o666)
    yield Hotsnap(shared_lab.uri, tmp_path, enter=_ENTER)
    socket.chmod(before)


@pytest.mark.parametrize('gate', ['hold', 'barrier'])
def test_a_user_takes_proves_and_deletes_a_snapshot(nobody, pair, gate):
    witness = Witness(pair)

    made = nobody.create('one', pair, '--gate', gate, '-f', 'json')

    assert made.status == 0, made.errors
    assert (made.json['status'], made.json['gate']) == ('available', gate)
    folder = nobody.store / made.json['id']
    assert {path.stat().st_uid for path in [folder, *folder.rglob('*')]} == {_USER}
    assert nobody.run('snapshot', 'verify', 'one').status == 0
    assert nobody.run('snapshot', 'delete', 'one').status == 0
    assert witness.left() == []
    assert witness.harmed() == []
    assert nobody.drafts() == nobody.journal() == []


def test_a_restore_of_disks_that_are_not_ones_own_fails_before_anything_is_stopped(nobody, pair):
    made = nobody.create('one', pair)
    assert made.status == 0, made.errors
    witness = Witness(pair)

    restored = nobody.run('snapshot', 'restore', 'one')

    assert restored.status == 1
    assert 'Permission denied' in restored.errors
    assert len(restored.errors.strip().splitlines()) == 1
    assert witness.left() == []
    assert witness.harmed() == []
