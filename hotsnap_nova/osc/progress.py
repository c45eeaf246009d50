# SPDX-License-Identifier: Apache-2.0
"""What ``--wait`` tells of what is going on, on stderr: results alone go to stdout."""

from hotsnap_nova import terminal

_WORDS = {
    'prepare': 'preparing', 'record': 'taking the cut', 'release': 'opening the gates',
    'save': 'saving', 'finish': 'publishing', 'discard': 'cleaning up', 'check': 'checking',
    'stop': 'stopping the old members', 'start': 'starting, paused', 'resume': 'resuming',
    'undo': 'putting the old disks back', 'verify': 'verifying', 'restore': 'keeping the present',
}


def teller(app, name: str):
    """A ``watch`` for `client.Client`: a line for each news; None where ``-q`` wants none."""
    if app.options.verbose_level == 0:
        return None
    told = []

    def tell(snapshot):
        line = f'{name}: {_said(snapshot)}'
        if line not in told[-1:]:
            told.append(line)
            app.stderr.write(terminal.escaped(line) + '\n')
    return tell


def _said(snapshot):
    said = _WORDS.get(snapshot.phase, snapshot.phase) or snapshot.status
    total_bytes = sum(each.total_bytes for each in snapshot.members)
    if snapshot.phase == 'save' and total_bytes:
        done_bytes = sum(each.done_bytes for each in snapshot.members)
        said += f' {100 * done_bytes // total_bytes}%'
    return said
