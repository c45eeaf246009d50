# SPDX-License-Identifier: Apache-2.0
"""What a cut does to a guest's memory that somebody should know beforehand."""

import contextlib

from hotsnap_nova.virt import records
from hotsnap_nova.virt.checks import subject
from hotsnap_nova.virt.memory import hugepages

_MEMINFO = '/proc/meminfo'
#: Less is in swap on any host.
_SWAPPED_BYTES = 64 << 20
_WARNS = ()


def swapped(asked: subject.Subject):
    """QEMU reads a byte of each page while the guest stands."""
    swapped_bytes = _status(asked).get('VmSwap', 0)
    if swapped_bytes >= _SWAPPED_BYTES:
        yield ('memory', f'{swapped_bytes >> 20} MiB of it are in swap, and are read back while '
               'the guest stands for its cut', 'give the host more memory, or expect a long pause',
               _WARNS)


def huge_pages(asked: subject.Subject):
    for page in asked.parsed.find_all('./memoryBacking/hugepages/page'):
        if page.get('unit', 'KiB') in ('G', 'GiB') or int(page.get('size', 0)) >= 1 << 20:
            yield ('memory', 'it is in pages of 1 GiB: the guest\'s first write to one waits '
                   'until all of that is saved', 'use pages of 2 MiB', _WARNS)
            return


def growth_bytes(asked: subject.Subject) -> int:
    """By how much its memory grows when it is protected, at the most.

    Private memory does not: what was never touched stays so. Shared memory is first filled. So is
    a file in memory that is mapped privately, where the guest has not written: what it has written
    is the process's own. (As little else as that has is taken for the guest's, too.)
    """
    backing = asked.parsed
    shared = (backing.find_all("./memoryBacking/source[@type='memfd']")
              or backing.find_all("./memoryBacking/access[@mode='shared']"))
    if not shared or backing.find_all('./memoryBacking/hugepages'):
        return 0    # huge pages are set aside for it when it starts
    status = _status(asked)
    if 'RssShmem' not in status:
        return 0
    there = status['RssShmem']
    if backing.find_all("./memoryBacking/access[@mode='private']"):
        there += status.get('RssAnon', 0)
    return max(0, backing.memory_bytes - there)


def shortage(members: list[subject.Subject]):
    """Findings on a host that has not the memory that its guests would grow by."""
    grows = {asked: growth_bytes(asked) for asked in members}
    needed, free = sum(grows.values()), available_bytes()
    if free is None or needed <= free:
        return
    for asked, growth in grows.items():
        if growth:
            yield records.Finding(
                asked.guest.spec, 'memory', f'it is shared, and grows by {growth >> 20} MiB when '
                f'it is protected; the group needs {needed >> 20} MiB, and the host has '
                f'{free >> 20} MiB', 'free memory on the host, or use memory that is not shared')


def available_bytes() -> int | None:
    """Of this host's memory; None: it does not say."""
    return _table(_MEMINFO).get('MemAvailable')


def _status(asked):
    process = hugepages.process_of(asked.guest.uuid)
    return {} if process is None else _table(f'/proc/{process}/status')


def _table(path):
    """Lines of a file of the kernel's, sizes in bytes by name."""
    found = {}
    with contextlib.suppress(OSError), open(path) as lines:
        for line in lines:
            name, _, rest = line.partition(':')
            if rest.endswith(' kB\n'):
                found[name] = int(rest.split()[0]) << 10
    return found


RULES = (swapped, huge_pages)
