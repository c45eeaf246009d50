# SPDX-License-Identifier: Apache-2.0
"""How much memory processes take, as the kernel counts it."""

import ctypes
import pathlib
import platform

_LIBC = ctypes.CDLL(None)
#: From <asm/unistd.h> and <linux/kcmp.h>; Python has no name for them.
_SYS_KCMP = {'x86_64': 312, 'aarch64': 272}[platform.machine()]
_KCMP_VM = 1


def tree_bytes(pid: int) -> int:
    """Proportional set size of a process and all its descendants, now.

    Pages that several share count once. What has ended meanwhile counts as nothing.
    """
    total = 0
    waiting = [(pid, None)]
    while waiting:
        pid, parent = waiting.pop()
        process = pathlib.Path(f'/proc/{pid}')
        try:
            # A child that is about to become another program lives in its parent's memory.
            if parent is None or not _is_one_memory(pid, parent):
                total += _pss_bytes(process)
            for task in (process / 'task').iterdir():
                waiting += [(int(child), pid)
                            for child in (task / 'children').read_text().split()]
        except OSError:
            continue
    return total


def _is_one_memory(one: int, other: int) -> bool:
    return _LIBC.syscall(_SYS_KCMP, one, other, _KCMP_VM, 0, 0) == 0


def _pss_bytes(process: pathlib.Path) -> int:
    for line in (process / 'smaps_rollup').read_text().splitlines():
        if line.startswith('Pss:'):
            return int(line.split()[1]) * 1024
    return 0
