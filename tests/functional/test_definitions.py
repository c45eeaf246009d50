# SPDX-License-Identifier: Apache-2.0
"""A restored guest wakes with the hardware of the cut, whatever became of its definition."""

import xml.etree.ElementTree as ET

import pytest

from hotsnap_nova.virt.memory import saveimage
from tests.functional.command import Hotsnap

#: A CPU of which this QEMU, without KVM, has not all: what runs is not what was asked for.
CPU = "<cpu mode='custom' match='exact' check='none'><model>Skylake-Client</model></cpu>"


@pytest.fixture(scope='module')
def guest(shared_lab):
    """A guest whose definition a test may change; it is put back by its snapshot."""
    (guest,) = shared_lab.start(1, wait=True, machine='q35', cpu_xml=CPU)
    return guest


@pytest.fixture(scope='module')
def user(shared_lab, guest, tmp_path_factory):
    """Somebody who has a snapshot of the guest."""
    hotsnap = Hotsnap(shared_lab.uri, tmp_path_factory.mktemp('definitions'))
    made = hotsnap.create('cut', [guest])
    assert made.status == 0, made.errors
    return hotsnap


def header(user, guest):
    (path,) = user.store.glob(f'*/{guest.uuid}/memory.save')
    return saveimage.read_header(str(path))


def test_a_save_image_has_the_cookie_that_libvirts_own_has(user, guest, tmp_path):
    path = f'{tmp_path}/libvirts.save'

    guest.domain.save(path)

    libvirts = saveimage.read_header(path).cookie
    guest.domain.connect().restore(path)
    assert "policy='disable'" in libvirts
    assert (ET.canonicalize(header(user, guest).cookie, strip_text=True)
            == ET.canonicalize(libvirts, strip_text=True))
