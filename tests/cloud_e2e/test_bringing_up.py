# SPDX-License-Identifier: Apache-2.0
"""Bringing up a cloud is killed half way, and taking it down leaves nothing.

Where no cloud is up this is done in the very folder in which the others' is brought up afterwards.
"""

import os
import pathlib
import subprocess
import sys
import time

import pytest

from tests.cloud import settings

pytestmark = pytest.mark.timeout(600)
_CHECKOUT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize('step', ['Bringing up', 'MariaDB'])
def test_nothing_is_left_of_a_start_that_was_killed(step, folder):
    if settings.load(folder) is not None:
        folder = folder.with_name(f'{folder.name}k')
    environment = os.environ | {settings.FOLDER_VARIABLE: str(folder)}
    command = [sys.executable, '-m', 'tests.cloud']
    links = _links()
    with subprocess.Popen([*command, 'up'], cwd=_CHECKOUT, env=environment, text=True,
                          stdout=subprocess.PIPE) as start:
        assert any(step in line for line in start.stdout)
        start.kill()
    assert _processes(folder) or step == 'Bringing up'

    down = subprocess.run([*command, 'down'], cwd=_CHECKOUT, env=environment, text=True,
                          capture_output=True, check=False)

    assert down.returncode == 0, down.stderr
    assert not folder.exists()
    _until(lambda: not _processes(folder))
    assert _processes(folder) == []
    assert _mounts(folder) == []
    assert _links() <= links


def _links():
    return {path.name for path in pathlib.Path('/sys/class/net').iterdir()}


def _processes(folder):
    """Command lines of processes that name the folder, or stand in it."""
    found = []
    for process in pathlib.Path('/proc').glob('[0-9]*'):
        try:
            words = (process / 'cmdline').read_text(errors='replace').replace('\0', ' ')
            if str(folder) in words or (process / 'cwd').readlink().is_relative_to(folder):
                found.append(words)
        except OSError:
            continue                     # they come and go
    return found


def _mounts(folder):
    return [line for line in pathlib.Path('/proc/self/mountinfo').read_text().splitlines()
            if str(folder) in line]


def _until(condition, timeout_s=30.0):
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
