# SPDX-License-Identifier: Apache-2.0
"""How much memory processes take, as the kernel counts it."""

import pathlib


def tree_bytes(pid: int) -> int:
    """Proportional set size of a process and all its descendants, now.

    Pages that several share count once. What has ended meanwhile counts as nothing.
    """
    total = 0
    waiting = [pid]
    while waiting:
        process = pathlib.Path(f'/proc/{waiting.pop()}')
        try:
            total += _pss_bytes(process)
            for task in (process / 'task').iterdir():
                waiting += map(int, (task / 'children').read_text().split())
        except OSError:
            continue
    return total


def _pss_bytes(process: pathlib.Path) -> int:
    for line in (process / 'smaps_rollup').read_text().splitlines():
        if line.startswith('Pss:'):
            return int(line.split()[1]) * 1024
    return 0
