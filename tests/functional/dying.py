# SPDX-License-Identifier: Apache-2.0
"""The hotsnap command, which sends itself a signal, or waits, at one step of a snapshot.

``python -m tests.functional.dying STEP SIGNAL <hotsnap's words>``; see ``STEPS``. For a
folder in SIGNAL's place one thread waits there: it makes ``reached`` and goes on with ``go``.
"""

import os
import pathlib
import signal
import sys
import time

from hotsnap_nova.cmd import shell
from hotsnap_nova.virt import host, member
from hotsnap_nova.virt.disks import freezing, targets

STEPS = {
    # a storage daemon has been started, and nobody has heard of it yet
    'daemon': (targets.StorageDaemon, '__init__', 'after'),
    # all members are prepared, none is stopped
    'prepared': (host.Engine, 'record', 'before'),
    # the first member stands, memory and gate and filters have begun
    'paused': (freezing.FrozenDisks, 'freeze', 'after'),
    # the first member is past its cut, the second before
    'between': (member.Member, 'cut', 'after'),
    # all are past their cuts, gates are closed, the decision to release is made
    'held': (host.Engine, 'release', 'before'),
    # gates are open, memory is on its way, disks begin to be
    'saving': (freezing.FrozenDisks, 'start_copy', 'after'),
}


def die_at(step: str, signal_name: str) -> None:
    """Have this process signalled once, at ``step``."""
    owner, name, when = STEPS[step]
    original = getattr(owner, name)
    done = []

    def signalled():
        if done:
            return
        done.append(True)
        if not signal_name.startswith('/'):
            os.kill(os.getpid(), getattr(signal, signal_name))
            return
        folder = pathlib.Path(signal_name)
        (folder / 'reached').touch()
        while not (folder / 'go').exists():
            time.sleep(0.02)

    def wrapped(*arguments, **options):
        if when == 'before':
            signalled()
        answer = original(*arguments, **options)
        if when == 'after':
            signalled()
        return answer
    setattr(owner, name, wrapped)


if __name__ == '__main__':
    if sys.argv[2].startswith('/'):
        # What is waited for here is what a target answers; a busy machine takes longer
        # than guests should, and the filter would give up before it is heard.
        freezing.CBW_TIMEOUT_S = 20
    die_at(sys.argv[1], sys.argv[2])
    sys.exit(shell.main(sys.argv[3:]))
