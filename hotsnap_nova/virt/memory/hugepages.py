# SPDX-License-Identifier: Apache-2.0
"""A guest's memory back in huge pages, before a pause whose length depends on it.

QEMU touches and write-protects all memory inside the pause, one entry of the page
tables at a time: 512 times fewer where huge pages are mapped. A snapshot takes them
apart again, for QEMU lifts the protection page by page; so without this only a guest's
first one is quick. ``MADV_COLLAPSE`` (Linux 6.1) puts a 2 MiB range together on
demand. Here only where the host allows such pages at all and QEMU asked for them, and
only ranges that are in memory whole: the guest's memory does not grow.

It is a help and nothing more: where it is not possible (an older kernel, another user's
process, static huge pages), nothing is done and nobody is told.
"""

import array
import contextlib
import ctypes
import errno
import mmap
import os
import re
import time

_THP = '/sys/kernel/mm/transparent_hugepage/enabled'
_PAGE_BYTES = 4096
_RANGE_BYTES = 2 << 20
_PAGES = _RANGE_BYTES // _PAGE_BYTES
_PAGE_MAP_BYTES = 8
#: From <linux/mman.h> and the system call table, which is one for all architectures
#: since 5.1; neither libc nor Python has a name for them.
_MADV_COLLAPSE = 25
_SYS_PROCESS_MADVISE = 440
#: /proc/<pid>/pagemap: the page is in memory, and nobody else's; its frame, 0 without
#: the privilege.
_OWN = 1 << 63 | 1 << 56
_FRAME = (1 << 55) - 1
#: Ranges of so many bytes are looked at together.
_WINDOW_BYTES = 64 << 20
#: No huge page free now, a page in use, one that came or went meanwhile, or memory of
#: another kind: it is left as it is.
_LEFT = (errno.EAGAIN, errno.ENOMEM, errno.EBUSY, errno.EINVAL)
_HEADING = re.compile(r'([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ (\d+)')


class _Vector(ctypes.Structure):
    _fields_ = (('base', ctypes.c_void_p), ('length', ctypes.c_size_t))


def gather(pid: int, most_s: float) -> int:
    """Put a process's memory into huge pages where that costs none.

    :param most_s: stop after so long, in s; some 0.3 s per GiB are needed
    :returns: how many bytes are in huge pages now that were looked at; 0 where it is
        not possible
    """
    deadline = time.monotonic() + most_s
    if mmap.PAGESIZE != _PAGE_BYTES:
        return 0    # huge pages are of another size there, too
    try:
        with open(_THP) as file:
            if '[never]' in file.read():
                return 0
        pidfd = os.pidfd_open(pid)
    except OSError:
        return 0
    gathered = 0
    try:
        with open(f'/proc/{pid}/pagemap', 'rb', buffering=0) as page_map:
            for start, end in _wanted(pid):
                for base in range(start, end, _WINDOW_BYTES):
                    for address in _whole(page_map, base, min(base + _WINDOW_BYTES, end)):
                        if time.monotonic() > deadline:
                            return gathered
                        _collapse(pidfd, address)
                        gathered += _RANGE_BYTES
    except OSError:
        pass
    finally:
        os.close(pidfd)
    return gathered


def process_of(uuid: str) -> int | None:
    """The QEMU process of a domain; None where there is none to be seen from here."""
    wanted = b'\0-uuid\0' + uuid.encode() + b'\0'
    for name in os.listdir('/proc'):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f'/proc/{name}/cmdline', 'rb') as file:
                if wanted in file.read():
                    return int(name)
    return None


def _wanted(pid: int):
    """Ranges of anonymous memory for which huge pages were asked, cut to whole ones."""
    heading = None
    with open(f'/proc/{pid}/smaps') as file:
        for line in file:
            if found := _HEADING.match(line):
                heading = found
            elif line.startswith('VmFlags:') and 'hg' in line.split() and heading[3] == '0':
                start = -(-int(heading[1], 16) // _RANGE_BYTES) * _RANGE_BYTES
                end = int(heading[2], 16) // _RANGE_BYTES * _RANGE_BYTES
                if start < end:
                    yield start, end


def _whole(page_map, start: int, end: int):
    """Addresses of ranges of which every page is in memory.

    The page of zeros, which is at every address that was only read, is nobody's own.
    """
    page_map.seek(start // _PAGE_BYTES * _PAGE_MAP_BYTES)
    entries = array.array('Q', page_map.read((end - start) // _PAGE_BYTES * _PAGE_MAP_BYTES))
    for first in range(0, len(entries), _PAGES):
        pages = entries[first:first + _PAGES]
        if all(page & _OWN == _OWN and page & _FRAME for page in pages):
            yield start + first * _PAGE_BYTES


def _collapse(pidfd: int, address: int) -> None:
    vector = _Vector(address, _RANGE_BYTES)
    done = _libc.syscall(ctypes.c_long(_SYS_PROCESS_MADVISE), ctypes.c_int(pidfd),
                         ctypes.byref(vector), ctypes.c_size_t(1),
                         ctypes.c_int(_MADV_COLLAPSE), ctypes.c_uint(0))
    if done < 0:
        number = ctypes.get_errno()
        if number not in _LEFT:
            raise OSError(number, os.strerror(number))


_libc = ctypes.CDLL(None, use_errno=True)
