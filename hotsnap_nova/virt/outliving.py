# SPDX-License-Identifier: Apache-2.0
"""How a process of ours is started that outlives the service by design.

It has a session of its own, and where systemd runs the host a scope of its own, out of reach of a
unit's ``KillMode``. It runs no code but that of this package's interpreter and of this package:
neither the folder that a command was typed in nor an inherited PYTHONPATH has a say. The
process itself ignores the signals with which services and sessions are ended.
"""

import functools
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys

#: Where this package lies; it need not be installed.
_PACKAGES = str(pathlib.Path(__file__).resolve().parents[2])


def start(module: str, *arguments: str, purpose: str, stdin: socket.socket,
          stdout: int | socket.socket) -> subprocess.Popen:
    """Run a module of ours.

    :param purpose: what systemd shows
    """
    return subprocess.Popen(
        [*scope(purpose), sys.executable, '-P', '-m', module, *arguments],
        stdin=stdin, stdout=stdout, start_new_session=True, bufsize=0, cwd='/',
        env=environment())


def environment() -> dict[str, str]:
    """In which a process of this interpreter finds this package, and no other."""
    return os.environ | {'PYTHONPATH': _PACKAGES}


def ignore_the_end_of_others() -> None:
    """In the process itself: signals meant for whoever started it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


@functools.cache
def scope(purpose: str) -> tuple[str, ...]:
    """What to begin a command with for a systemd scope of its own; nothing where there is none."""
    runner = shutil.which('systemd-run')
    if not runner or not os.path.isdir('/run/systemd/system'):
        return ()
    words = (runner, '--scope', '--quiet', '--collect', f'--description=hotsnap {purpose}',
             *(() if os.geteuid() == 0 else ('--user',)), '--')
    try:    # in a container, or without a bus, there is no manager to ask
        subprocess.run([*words, 'true'], check=True, capture_output=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ()
    return words
