# SPDX-License-Identifier: Apache-2.0
"""How many messages each guest takes, over time, seen without touching it.

A guest's counters are read from its QEMU's memory by the kernel, so that a
sample neither costs the guest anything nor waits for libvirt.
"""

import contextlib
import pathlib
import re
import threading
import time

from tests.lab import Group, Guest, LabError, counters

_EVERY_S = 0.05
_LOOK_AGAIN_S = 0.3


class Rates:
    """Samples while it is open: ``samples[number]`` is a list of (time, received)."""

    def __init__(self, group: Group):
        self.samples: list[list[tuple[float, int]]] = [[] for _guest in group]
        self._group = group
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> 'Rates':
        self._thread.start()
        return self

    def __exit__(self, *_exc) -> None:
        self._over.set()
        self._thread.join()

    def _sample(self) -> None:
        windows: dict[int, _Window] = {}
        again_at = [0.0] * len(self._group)
        while not self._over.wait(_EVERY_S):
            for guest in self._group:
                now = time.time()
                if guest.number not in windows and now >= again_at[guest.number]:
                    again_at[guest.number] = now + _LOOK_AGAIN_S
                    with contextlib.suppress(LabError, OSError):
                        windows[guest.number] = _Window(guest, len(self._group))
                try:
                    self.samples[guest.number].append(
                        (time.time(), windows[guest.number].received()))
                except KeyError:
                    continue
                except (OSError, counters.NoTable):
                    windows.pop(guest.number).close()    # killed; another may come
        for window in windows.values():
            window.close()


class _Window:
    """A guest's counters, as its QEMU process maps them.

    :raises LabError: not found there
    """

    def __init__(self, guest: Guest, guests: int):
        pid = guest.pid
        self._bytes = counters.table_bytes(guests)
        self._memory = open(f'/proc/{pid}/mem', 'rb', buffering=0)  # noqa: SIM115  see close
        addresses = re.findall(r'LAB table (0x[0-9a-f]+)', guest.console.read_text())
        for start in _mappings(pid, guest.spec.memory_mb << 20):
            for address in reversed(addresses):
                self._at = start + int(address, 16)
                with contextlib.suppress(OSError, counters.NoTable):
                    self.received()
                    return
        self._memory.close()
        raise LabError(f'{guest.domain_name}: no counters in the memory of process {pid}')

    def received(self) -> int:
        self._memory.seek(self._at)
        table = counters.read(self._memory.read(self._bytes))
        return sum(link.received for link in table.links)

    def close(self) -> None:
        self._memory.close()


def _mappings(pid: int, least_bytes: int) -> list[int]:
    """Where large mappings of a process start."""
    found = []
    for line in pathlib.Path(f'/proc/{pid}/maps').read_text().splitlines():
        start, end = (int(each, 16) for each in line.split()[0].split('-'))
        if end - start >= least_bytes:
            found.append(start)
    return found
