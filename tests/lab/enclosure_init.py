# SPDX-License-Identifier: Apache-2.0
"""First process inside a lab's namespaces; run by enclosure.py, not imported.

Its exit ends everything in the lab, for the kernel kills a PID namespace with
its first process. It exits when the lab's owner does: the other end of the
pipe on descriptor ``alive`` closes, however the owner died.
"""

import os
import pathlib
import select
import signal
import subprocess
import sys

# What libvirt would otherwise share with the system's own.
_PRIVATE = {'run': '/run', 'etc': '/etc/libvirt', 'lib': '/var/lib/libvirt',
            'cache': '/var/cache/libvirt', 'log': '/var/log/libvirt'}


def main(folder: pathlib.Path, alive: int) -> None:
    for name, target in _PRIVATE.items():
        subprocess.run(['mount', '--bind', str(folder / name), target], check=True)
    # The old /sys shows the network devices of the old namespace.
    subprocess.run(['mount', '-t', 'sysfs', 'none', '/sys'], check=True)
    subprocess.run(['ip', 'link', 'set', 'lo', 'up'], check=True)

    wakeup_read, wakeup_write = os.pipe()
    os.set_blocking(wakeup_write, False)
    signal.set_wakeup_fd(wakeup_write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    # Ctrl-C in a terminal is the owner's to handle.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    daemon = _start_daemon(folder)
    while alive not in select.select([alive, wakeup_read], [], [])[0]:
        os.read(wakeup_read, 4096)
        if daemon in _reap():
            # A test may kill it; its guests live on and it finds them again.
            daemon = _start_daemon(folder)


def _start_daemon(folder: pathlib.Path) -> int:
    with open(folder / 'log/libvirtd.err', 'ab') as log:
        return subprocess.Popen(['libvirtd', '--pid-file', '/run/libvirtd.pid'],
                                stdin=subprocess.DEVNULL, stdout=log, stderr=log).pid


def _reap() -> set[int]:
    ended = set()
    while True:
        try:
            pid, _status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if not pid:
            break
        ended.add(pid)
    return ended


if __name__ == '__main__':
    main(pathlib.Path(sys.argv[1]), int(sys.argv[2]))
