# SPDX-License-Identifier: Apache-2.0
"""The hotsnap command with fake guests: ``python -m tests.fakes.hotsnap``.

WORLD names the guests' file, SAVE_S says how long a member's save takes, and
DIE_AT and FAIL_AT at which method of the engine the process kills itself or fails.
"""

import os
import signal
import sys

from hotsnap_nova import exception
from hotsnap_nova.cmd import shell
from tests.fakes.engine import Engine, World


def open_engine(uri, keep_hours):
    engine = Engine(World(os.environ['WORLD']))
    engine.save_s = float(os.environ.get('SAVE_S', '0'))
    if method := os.environ.get('DIE_AT'):
        engine.faults[method] = lambda _about: os.kill(os.getpid(), signal.SIGKILL)
    if method := os.environ.get('FAIL_AT'):
        engine.faults[method] = exception.TargetFailed(
            member='b', device='vda', reason='is full')
    return engine


if __name__ == '__main__':
    sys.exit(shell.main(open_engine=open_engine))
