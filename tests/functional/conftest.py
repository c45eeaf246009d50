# SPDX-License-Identifier: Apache-2.0
"""A lab and a pair of guests for every test that has no wish of its own."""

import contextlib
import os
import signal

import libvirt
import pytest

from hotsnap_nova.virt import host
from tests.functional.command import Hotsnap
from tests.lab import Lab, LabError


@contextlib.contextmanager
def _lab(session):
    """One whose logs stay where a test failed."""
    failed_before = session.testsfailed
    with Lab() as lab:
        yield lab
        lab.keep_files = session.testsfailed > failed_before


@pytest.fixture(scope='session')
def shared_lab(request):
    """One lab for the run."""
    with _lab(request.session) as lab:
        lab.pairs = []
        yield lab


@pytest.fixture(scope='module')
def lab(request):
    """One for a module whose guests are of its own kind."""
    with _lab(request.session) as lab:
        yield lab


@pytest.fixture
def pair(shared_lab):
    """Two running guests that talk to one another and carry nothing of ours.

    The same from test to test, as long as they are well. Between tests they stand still: others
    need the processors.
    """
    _for_each(shared_lab.pairs[-1:], libvirt.VIR_DOMAIN_PAUSED, libvirt.virDomain.resume)
    if not shared_lab.pairs or not _is_well(shared_lab, shared_lab.pairs[-1]):
        for guest in shared_lab.pairs.pop() if shared_lab.pairs else ():
            with contextlib.suppress(libvirt.libvirtError, LabError):
                guest.domain.destroy()
        shared_lab.pairs.append(shared_lab.start(2, wait=True))
    yield shared_lab.pairs[-1]
    _for_each(shared_lab.pairs[-1:], libvirt.VIR_DOMAIN_RUNNING, libvirt.virDomain.suspend)


@pytest.fixture
def engine(shared_lab):
    """An engine of this process, which knows nothing of any snapshot."""
    engine = host.Engine(shared_lab.uri)
    yield engine
    engine.close()


@pytest.fixture
def hotsnap(shared_lab, tmp_path):
    """The command, with a state folder and store of this test's own."""
    return Hotsnap(shared_lab.uri, tmp_path)


@pytest.fixture
def user(hotsnap):
    """A user whose processes end with the test, whatever became of them."""
    yield hotsnap
    for pid in hotsnap.processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _for_each(pairs, state, act):
    """Do it with each of these guests that is in this state."""
    for guest in (guest for pair in pairs for guest in pair):
        with contextlib.suppress(libvirt.libvirtError):
            if guest.domain.state()[0] == state:
                act(guest.domain)


def _is_well(lab, group):
    engine = host.Engine(lab.uri)
    try:
        return (all(guest.domain.isActive() and guest.domain.state()[0]
                    == libvirt.VIR_DOMAIN_RUNNING for guest in group)
                and not any(guest.troubles() for guest in group)
                and not engine.survey() and not group.wait_messages(5, timeout_s=10))
    except (libvirt.libvirtError, LabError):
        return False
    finally:
        engine.close()
