# SPDX-License-Identifier: Apache-2.0
"""What is going on, on a terminal; in a pipe nothing."""

import threading

from hotsnap_nova import terminal

#: What people are told of each phase.
WORDS = {
    'prepare': 'preparing', 'record': 'taking the cut', 'release': 'opening the gates',
    'save': 'saving', 'finish': 'publishing', 'discard': 'cleaning up', 'closed': 'done',
    'check': 'checking', 'stop': 'stopping the old members', 'start': 'starting, paused',
    'resume': 'resuming', 'undo': 'putting the old disks back', 'verify': 'verifying',
}


class Silent:
    """Tells nothing."""

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def watch(self, event: dict) -> None:
        """Take note of an event of a `conductor.drive.Watcher`."""


class Bars(Silent):
    """A line for the phase, and one for each member with bytes and rate."""

    def __init__(self, stream):
        from rich import console, progress
        self._rows = {}
        self._mutex = threading.Lock()
        self._bars = progress.Progress(
            progress.TextColumn('{task.description}'), progress.BarColumn(),
            progress.DownloadColumn(), progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(), console=console.Console(file=stream),
            transient=True)

    def __enter__(self):
        self._bars.start()
        return self

    def __exit__(self, *error):
        self._bars.stop()

    def watch(self, event):
        with self._mutex:
            phase = WORDS.get(event.get('phase', ''), event.get('phase', ''))
            for member, (done, total) in event.get('members', {}).items():
                self._row(member, member, done, total)
            if 'bytes' in event:
                self._row('bytes', phase, *event['bytes'])
            elif 'members' not in event:
                self._bars.console.print(phase)

    def _row(self, key, description, done, total):
        if key not in self._rows:
            self._rows[key] = self._bars.add_task(_plain(description))
        self._bars.update(self._rows[key], description=_plain(description), completed=done,
                          total=total or None)


def _plain(description):
    """A member's name as it is, whatever it means to the terminal or to rich."""
    from rich import markup
    return markup.escape(terminal.escaped(description))


def open_progress(stream, quiet: bool = False) -> Silent:
    """What suits the stream."""
    if quiet or not stream.isatty():
        return Silent()
    return Bars(stream)
