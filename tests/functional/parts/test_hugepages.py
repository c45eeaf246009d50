# SPDX-License-Identifier: Apache-2.0
"""Memory of a process of ours instead of QEMU's; the calls are the real ones."""

import contextlib
import re
import subprocess
import sys

import pytest

from hotsnap_nova.virt.memory import hugepages

_RANGES = 8
_BYTES = _RANGES << 21
#: Maps memory as QEMU does, writes it, and takes its huge pages apart as QEMU's lifting of
#: the protection does; then waits. Argument: how many ranges it writes whole.
_GUEST = f"""
import ctypes, mmap, sys
size = {_BYTES}
memory = mmap.mmap(-1, size + (2 << 20), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_HUGEPAGE)
start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
first = -start % (2 << 20)
libc = ctypes.CDLL(None, use_errno=True)
for number in range({_RANGES}):
    at = first + (number << 21)
    if number < int(sys.argv[1]):
        memory[at:at + (2 << 20)] = bytes([number + 1]) * (2 << 20)
        for protection in (mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE):
            assert not libc.mprotect(ctypes.c_void_p(start + at), 4096, protection)
    else:
        memory.madvise(mmap.MADV_NOHUGEPAGE, mmap.PAGESIZE * (at // mmap.PAGESIZE), 2 << 20)
        memory[at] = 1
        memory.madvise(mmap.MADV_HUGEPAGE, mmap.PAGESIZE * (at // mmap.PAGESIZE), 2 << 20)
print('ready', flush=True)
sys.stdin.readline()
whole = all(memory[first + (number << 21):first + (number + 1 << 21)]
            == bytes([number + 1]) * (2 << 20) for number in range(int(sys.argv[1])))
print('same' if whole else 'changed', flush=True)
"""


class _Process:
    def __init__(self, written: int):
        self._process = subprocess.Popen(
            [sys.executable, '-c', _GUEST, str(written)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True)
        self.pid = self._process.pid
        assert self._process.stdout.readline() == 'ready\n'

    def huge_bytes(self) -> int:
        return self._sum('smaps', r'AnonHugePages: +(\d+) kB')

    def resident_bytes(self) -> int:
        return self._sum('smaps', r'Rss: +(\d+) kB')

    def verdict(self) -> str:
        print(file=self._process.stdin, flush=True)
        return self._process.stdout.readline().strip()

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def _sum(self, name: str, pattern: str) -> int:
        with open(f'/proc/{self.pid}/{name}') as file:
            return sum(int(size) << 10 for size in re.findall(pattern, file.read()))


@pytest.fixture
def process(request):
    made = _Process(request.param)
    yield made
    made.end()


@pytest.mark.parametrize('process', [_RANGES], indirect=True)
def test_memory_that_was_taken_apart_is_in_huge_pages_again(process):
    before, resident = process.huge_bytes(), process.resident_bytes()

    gathered = hugepages.gather(process.pid, 10.0)

    assert before < _BYTES // 2
    assert gathered >= _BYTES
    assert process.huge_bytes() >= _BYTES
    assert process.resident_bytes() - resident < 2 << 20
    assert process.verdict() == 'same'


@pytest.mark.parametrize('process', [1], indirect=True)
def test_memory_that_is_not_all_there_does_not_grow(process):
    resident = process.resident_bytes()

    hugepages.gather(process.pid, 10.0)

    assert process.resident_bytes() - resident < 2 << 20
    assert process.verdict() == 'same'


@pytest.mark.parametrize('process', [_RANGES], indirect=True)
def test_it_ends_when_its_time_is_over(process):
    before = process.huge_bytes()

    assert hugepages.gather(process.pid, 0.0) == 0
    assert process.huge_bytes() == before


@pytest.mark.parametrize('process', [_RANGES], indirect=True)
def test_a_kernel_that_cannot_is_no_error(process, monkeypatch):
    monkeypatch.setattr(hugepages, '_MADV_COLLAPSE', 12345)

    hugepages.gather(process.pid, 10.0)

    assert process.verdict() == 'same'


def test_a_process_that_is_gone_is_no_error():
    ended = subprocess.Popen(['true'])
    ended.wait()

    assert hugepages.gather(ended.pid, 1.0) == 0


def test_a_guests_process_is_found_by_its_uuid():
    uuid = 'a1e5c9d4-0000-4000-8000-5f0e3c2d1b0a'
    with subprocess.Popen(['sh', '-c', 'echo; read line', 'qemu', '-uuid', uuid],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()    # its arguments are to be seen a moment after it started
        found = hugepages.process_of(uuid)
        process.stdin.close()

    assert found == process.pid
    assert hugepages.process_of(uuid) is None
