# SPDX-License-Identifier: Apache-2.0
"""For pytest: Nova's unit tests, which mean our class where they say LibvirtDriver.

``HOTSNAP_DRIVER=stock`` leaves Nova's in place.
"""

import os

os.environ.setdefault('OS_NOVA_DISABLE_EVENTLET_PATCHING', '1')

import nova.tests.unit  # noqa: F401  sets up what the rest expects
import pytest
from nova import test
from nova.virt import libvirt
from nova.virt.libvirt import driver

from tests.nova.base import keep_put_attributes

_clear_attrs = test.TestCase._clear_attrs


class _Stock:
    _clear_attrs = _clear_attrs


test.TestCase._clear_attrs = keep_put_attributes(_Stock)

if os.environ.get('HOTSNAP_DRIVER') != 'stock':
    from hotsnap_nova.nova.driver import HotSnapLibvirtDriver
    # Tests put stand-ins on the class and take them away again, which makes plain functions of
    # static methods that it only inherits.
    for name, attribute in vars(driver.LibvirtDriver).items():
        if isinstance(attribute, (staticmethod, classmethod)):
            setattr(HotSnapLibvirtDriver, name, attribute)
    driver.LibvirtDriver = libvirt.LibvirtDriver = HotSnapLibvirtDriver


@pytest.fixture(autouse=True)
def _no_participation(monkeypatch):
    """Nova's tests start hosts, and none of them may start ours on this machine."""
    if os.environ.get('HOTSNAP_DRIVER') != 'stock':
        monkeypatch.setattr('hotsnap_nova.nova.participation.Participation.start',
                            lambda *_arguments, **_more: None)
