# SPDX-License-Identifier: Apache-2.0
"""One lab guest."""

import json
import os
import pathlib
import re
import signal
import time
from xml.etree import ElementTree

import libvirt

from tests.lab import disks, enclosure, specification
from tests.lab.counters import Counters, NoTable, read, table_bytes
from tests.lab.verdict import Finding, check_disk


class LabError(Exception):
    """A guest did not do what the lab expects of it; the message says where to look."""


class Guest:
    """One defined domain of the lab, running or not.

    It stays usable over kill, restore and restart: everything is looked up by
    name when asked.
    """

    def __init__(self, home: enclosure.Enclosure, name: str, number: int,
                 spec: specification.GuestSpec, folder: pathlib.Path, guests: int):
        self.domain_name = name
        self.number = number
        self.spec = spec
        self.folder = folder
        self.console = folder / 'console.log'
        self._home = home
        self._table_bytes = table_bytes(guests)

    @property
    def domain(self) -> libvirt.virDomain:
        return self._home.connection.lookupByName(self.domain_name)

    @property
    def uuid(self) -> str:
        return self.domain.UUIDString()

    @property
    def pid(self) -> int:
        """QEMU's process, by its number outside the lab.

        :raises LabError: the guest does not run
        """
        if (pid := self._home.qemu_pid(self.domain_name)) is None:
            raise LabError(f'{self.domain_name} does not run')
        return pid

    def kill9(self) -> None:
        """Kill QEMU outright and wait until libvirt has noticed."""
        pid = self.pid
        began = enclosure.start_time(pid)
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: enclosure.start_time(pid) != began and not self.domain.isActive(),
                  10, f'{self.domain_name} to be gone')

    @property
    def addresses(self) -> dict[str, tuple[str, ...]]:
        """IP addresses by MAC, as the guest gives them to its NICs; see guest/init."""
        tree = ElementTree.fromstring(self.domain.XMLDesc())
        macs = [mac.get('address') for mac in tree.findall('devices/interface/mac')]
        last = self.number + 1
        found = dict.fromkeys(macs, ())
        found[macs[0]] += (f'10.20.0.{last}',)
        found[macs[:2][-1]] += (f'10.20.1.{last}', f'fd20:1::{last}')
        return found

    @property
    def address_words(self) -> tuple[str, ...]:
        """What the command is told of them, where packets are to be marked."""
        return tuple(word for mac, ips in self.addresses.items() if ips
                     for word in ('--address', f'{mac}={",".join(ips)}'))

    @property
    def disk_images(self) -> list[tuple[pathlib.Path, str]]:
        """Path and format of each disk of the workload, as the domain has them now."""
        tree = ElementTree.fromstring(self.domain.XMLDesc())
        return [(pathlib.Path(disk.find('source').get('file')), disk.find('driver').get('type'))
                for disk in tree.findall('devices/disk')
                if disk.find('target').get('dev').startswith('vd')][:len(self.spec.disks)]

    def check_disks(self) -> list[Finding]:
        """What is wrong between memory and disks; the guest must be paused."""
        state = self.counters()
        findings = []
        images = zip(self.disk_images, self.spec.disks, state.disks, strict=True)
        for index, ((path, image_format), disk, counted) in enumerate(images):
            data = disks.read(path, image_format, counted.slots)
            findings += check_disk(state, index, data)
            if not disks.base_survives(path, image_format, disk, counted.slots):
                findings.append(Finding('lost_base', self.number, f'disk {index}'))
        return findings

    def counters(self) -> Counters:
        """The workload's counters, from the guest's memory; exact while it is paused.

        :raises LabError: no table, or the guest does not run
        """
        domain = self.domain
        # Most recent first: a restored guest may be of an earlier boot.
        for address in reversed(self.table_addresses()):
            try:
                return read(domain.memoryPeek(address, self._table_bytes,
                                              libvirt.VIR_MEMORY_PHYSICAL))
            except NoTable:
                continue
        raise LabError(f'{self.domain_name} shows no counters; see {self.console}')

    def table_addresses(self) -> list[int]:
        """Where the counters are in the guest's memory, by the console; one a boot."""
        return [int(address, 16) for address
                in re.findall(r'LAB table (0x[0-9a-f]+)', self._console_text())]

    def statuses(self) -> list[dict]:
        """The workload's own lines on the console, one a second, oldest first."""
        return [json.loads(line) for line
                in re.findall(r'LAB status (\{[^\n]*\})', self._console_text())]

    def troubles(self) -> list[str]:
        """What the guest complained of on its console."""
        return [line for line in self._console_text().splitlines()
                if re.search(r'LAB fatal|I/O error|Kernel panic|Oops|BUG:|hung task', line)]

    @property
    def boot_s(self) -> float | None:
        """How long the guest took until its workload began, by its own clock; None: not yet."""
        found = re.findall(r'LAB booted after ([\d.]+) s', self._console_text())
        return float(found[-1]) if found else None

    def start_afresh(self) -> None:
        """End the guest where it is and boot it again."""
        domain = self.domain
        domain.destroy()
        domain.create()

    def last_words(self, lines: int = 5) -> str:
        """The end of the console, for people."""
        said = self._console_text().splitlines()[-lines:] or ['(nothing)']
        return '\n'.join([f'{self.domain_name} says:', *(f'    {line}' for line in said)])

    def is_ready(self) -> bool:
        """Whether every link was up and heard from, once.

        :raises LabError: the guest has failed and never will be
        """
        if self.troubles():
            raise LabError(f'{self.domain_name}: {self.troubles()[0]}; see {self.console}')
        return 'LAB ready' in self._console_text()

    def _console_text(self) -> str:
        try:
            return self.console.read_text(errors='replace')
        except FileNotFoundError:
            return ''


def wait_for(condition, timeout_s: float, what: str) -> None:
    """Return once ``condition()`` holds.

    :raises LabError: it did not within the time; says ``what`` was waited for
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f'waited {timeout_s} s in vain for {what}')
        time.sleep(0.1)
