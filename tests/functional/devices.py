# SPDX-License-Identifier: Apache-2.0
"""What there is of ours at guests' devices, and that a snapshot leaves all as it was."""

import contextlib
import os
import pathlib
import signal

from tests.functional.command import Hotsnap, stands_still, until
from tests.functional.witness import Witness


def taps(lab, ours=False):
    """Names of the guests', or of our own."""
    names = [line.split(':')[1].strip() for line in lab.run_inside(
        'ip', '-o', 'link', 'show', 'type', 'tun').splitlines()]
    return [name for name in names if name.startswith('hsg') is ours]


def at_devices(lab):
    """Our programs at the guests'."""
    return [line for name in taps(lab) for way in ('ingress', 'egress')
            for line in lab.run_inside('tc', 'filter', 'show', 'dev', name, way).splitlines()
            if 'hotsnap' in line]


@contextlib.contextmanager
def user_beside(lab, folder):
    """Where the guests' devices are, as a compute host's service is; ends with its processes."""
    made = Hotsnap(lab.uri, folder, enter=lab.enter)
    yield made
    for pid in made.processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def left_as_they_were(lab, guests):
    """After the block nothing is at their devices or in them, and nothing has happened to them."""
    witness = Witness(guests)
    before = lab.run_inside('tc', 'qdisc', 'show')
    yield witness
    assert at_devices(lab) == taps(lab, ours=True) == []
    assert lab.run_inside('tc', 'qdisc', 'show') == before
    assert witness.left() == []
    assert witness.harmed() == []


def killed_between(user, words):
    """Have all of a snapshot's processes killed between two members' cuts; their command lines."""
    with user.start(*words, program=('tests.functional.dying', 'between', 'SIGSTOP')) as running:
        assert until(lambda: stands_still(running.pid), 120)
        ours = {pid: pathlib.Path(f'/proc/{pid}/cmdline').read_bytes()
                for pid in user.processes()}
        for pid in ours:
            os.kill(pid, signal.SIGKILL)
        running.wait(30)
    return tuple(ours.values())


def recover(user):
    recovered = user.run('recover', '-f', 'json')
    assert recovered.status == 0, recovered.errors
