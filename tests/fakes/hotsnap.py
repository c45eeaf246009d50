# SPDX-License-Identifier: Apache-2.0
"""The hotsnap command with fake guests, for processes of its own; see `run`.

WORLD names the guests' file, SAVE_S says how long a member's save takes, SAVED_BY which file has
to be there before a save begins, and DIE_AT and FAIL_AT at which method of the engine the process
kills itself or fails.
"""

import os
import signal
import sys
import time

from hotsnap_nova import exception
from hotsnap_nova.cmd import shell
from tests.fakes.engine import Engine, World


def open_engine(uri, keep_hours):
    engine = Engine(World(os.environ['WORLD']))
    engine.save_s = float(os.environ.get('SAVE_S', '0'))
    if path := os.environ.get('SAVED_BY'):
        engine.faults['save'] = lambda _about: _wait_for(path)
    if method := os.environ.get('DIE_AT'):
        engine.faults[method] = lambda _about: os.kill(os.getpid(), signal.SIGKILL)
    if method := os.environ.get('FAIL_AT'):
        engine.faults[method] = exception.TargetFailed(
            member='b', device='vda', reason='is full')
    return engine


def _wait_for(path):
    while not os.path.exists(path):
        time.sleep(0.02)


def run(args: list[str], environment: dict[str, str], out: str, err: str) -> None:
    """Be the command: what it prints goes into these files, the process ends with its status."""
    for descriptor, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), descriptor)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)    # whoever runs the tests may ignore it
    os.environ.clear()
    os.environ.update(environment)
    sys.exit(shell.main(args, open_engine=open_engine))
