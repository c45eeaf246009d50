# SPDX-License-Identifier: Apache-2.0
"""We and libvirtd have mounts of our own, as in two containers: it does not see all that we do."""

import subprocess

import pytest

from tests.functional.command import Hotsnap
from tests.functional.witness import Witness


@pytest.fixture
def private(tmp_path):
    """A folder of whoever comes in by ``private.enter`` alone: to all others it is empty."""
    folder = tmp_path / 'private'
    folder.mkdir()
    with subprocess.Popen(
            ['unshare', '--mount', 'sh', '-c', 'mount -t tmpfs none "$0" && echo && exec cat',
             folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        yield folder, ('nsenter', f'--mount=/proc/{holder.pid}/ns/mnt', '--',
                       'env', f'TMPDIR={folder}')
        holder.stdin.close()    # ends it, as our own end does


def test_whoever_has_a_tmp_of_ones_own_takes_and_restores(shared_lab, pair, private, tmp_path):
    _folder, enter = private
    user = Hotsnap(shared_lab.uri, tmp_path, enter=enter)
    witness = Witness(pair)

    made = user.create('one', pair)
    restored = user.run('snapshot', 'restore', 'one')

    assert made.status == 0, made.errors
    assert restored.status == 0, restored.errors
    assert pair.wait_messages(20) == []
    assert witness.errors() == []


def test_a_store_that_libvirtd_does_not_see_is_named_and_the_guests_run_on(
        shared_lab, pair, private):
    folder, enter = private
    user = Hotsnap(shared_lab.uri, folder, enter=enter)
    born = [guest.pid for guest in pair]
    witness = Witness(pair)

    made = user.create('one', pair)
    refused = user.run('snapshot', 'restore', 'one')

    assert made.status == 0, made.errors
    assert refused.status == 1
    assert f'libvirt cannot read {folder}' in refused.errors
    assert refused.errors.count('\n') == 1
    assert [guest.pid for guest in pair] == born
    assert witness.left() == []
    assert witness.harmed() == []
