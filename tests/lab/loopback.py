# SPDX-License-Identifier: Apache-2.0
"""The guests' workload as plain processes here, talking over the loopback.

The same program as in a guest, without QEMU: a quick proof of its chains and
of the verdict. ``pause`` stops a process where it is, as a cut would.
"""

import contextlib
import pathlib
import random
import signal
import subprocess
import time

from tests.lab import counters, image

_DISK_BYTES = 8 << 20


class Processes:
    """``count`` workloads that talk to one another; a context manager."""

    def __init__(self, count: int, folder: pathlib.Path, **workload: int):
        self.folder = folder
        self._arguments = [f'{name}={value}' for name, value in workload.items()]
        self._count = count
        self.processes: list[subprocess.Popen] = []

    def __enter__(self) -> 'Processes':
        for number in range(self._count):
            (self.folder / f'disk{number}').write_bytes(bytes(_DISK_BYTES))
        while not self._start():
            self._stop()                  # a port was taken: others may run
        return self

    def __exit__(self, *_exc) -> None:
        self._stop()

    def counters(self, number: int) -> counters.Counters:
        """One process's counters; exact while it is paused."""
        with open(self.folder / f'table{number}', 'rb') as table:
            return counters.read(table.read(counters.table_bytes(self._count)))

    def disk(self, number: int) -> bytes:
        return (self.folder / f'disk{number}').read_bytes()

    def pause(self, number: int) -> None:
        """Return once none of the process's threads runs."""
        process = self.processes[number]
        process.send_signal(signal.SIGSTOP)
        tasks = pathlib.Path(f'/proc/{process.pid}/task')
        while any((task / 'stat').read_text().rpartition(')')[2].split()[0] != 'T'
                  for task in tasks.iterdir()):
            time.sleep(0.001)

    def resume(self, number: int) -> None:
        self.processes[number].send_signal(signal.SIGCONT)

    def kill(self, number: int) -> None:
        self.processes[number].kill()
        self.processes[number].wait()

    def _start(self) -> bool:
        network, port = random.randrange(1 << 16), random.randrange(20000, 30000)
        net = f'127.{network >> 8}.{network & 255}'
        for number in range(self._count):
            with open(self.folder / f'log{number}', 'w') as log:
                self.processes.append(subprocess.Popen(
                    [image.workload(), f'guest={number}', f'guests={self._count}',
                     f'address4={net}.%d', f'address_udp={net}.%d', 'address6=::1',
                     f'base_port={port}', f'table={self.folder}/table{number}',
                     f'disk={self.folder}/disk{number}', *self._arguments], stdout=log))
        while not all(self._is_ready(number) for number in range(self._count)):
            for number, process in enumerate(self.processes):
                if process.poll() is not None:
                    log = (self.folder / f'log{number}').read_text()
                    if 'bind' in log:
                        return False
                    raise RuntimeError(f'workload {number} ended: {log}')
            time.sleep(0.02)
        return True

    def _is_ready(self, number: int) -> bool:
        with contextlib.suppress(counters.NoTable, FileNotFoundError):
            return self.counters(number).ready
        return False

    def _stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        self.processes.clear()
