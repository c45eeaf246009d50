# SPDX-License-Identifier: Apache-2.0
"""Remove what labs left whose owner was killed, or that kept their logs."""

import json
import os
import pathlib
import shutil
import signal
import time

from tests.lab import enclosure

_TIMEOUT_S = 10


def reap() -> list[pathlib.Path]:
    """The folders removed; processes they name are ended first.

    A process is known by its number and the time it started, never by its
    name. A lab whose owner lives is left alone.
    """
    reaped = []
    for folder in sorted(enclosure.labs_folder().glob(f'{enclosure.PREFIX}*')):
        try:
            owner, *others = json.loads((folder / enclosure.RECORD).read_text())
        except (FileNotFoundError, NotADirectoryError, ValueError):
            continue                     # being made at this moment, or none of ours
        if not _lives(owner):
            for process in others:
                _end(process)
            shutil.rmtree(folder)
            reaped.append(folder)
    return reaped


def _lives(process: dict) -> bool:
    return enclosure.start_time(process['pid']) == process['start']


def _end(process: dict) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    if _lives(process):
        os.kill(process['pid'], signal.SIGKILL)
    while _lives(process) and time.monotonic() < deadline:
        time.sleep(0.01)
