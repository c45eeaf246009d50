# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C, SIGTERM and the end of a terminal as a question that is asked at safe places."""

import signal

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(Exception):
    """The user wants to stop; everything was cleaned up."""


class Interrupts:
    """While open, signals do nothing but make `come` true.

    A signal's exception in the middle of a step could leave half of it done.
    """

    def __init__(self):
        self.come = False
        self._before = {}

    def __enter__(self):
        for number in SIGNALS:
            # What nohup keeps from us stays so. Not SIGINT: a script's background jobs have it
            # ignored, and whoever sends it by kill wants an end.
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, _number, _frame):
        self.come = True
