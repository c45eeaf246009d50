# SPDX-License-Identifier: Apache-2.0
"""A lab: a private libvirtd and the guests started in it."""

import atexit
import dataclasses
import sys

import libvirt

from tests.lab import disks, enclosure, image, specification
from tests.lab.group import Group
from tests.lab.guest import Guest


class Lab:
    """Starts, watches and reaps guests; a context manager.

    Everything in it ends with it, and with this process however that ends. On
    an error inside ``with`` its logs are kept and their place printed.
    """

    def __init__(self, hosts: int = 1):
        """A lab that runs no guests yet.

        :param hosts: how many libvirtds, each as on a machine of its own, on one network
        """
        self.keep_files = False           # set it where a failure is seen elsewhere
        self._boot = image.image()
        self.groups: list[Group] = []
        self._hosts: list[enclosure.Enclosure] = []
        atexit.register(self.close)
        try:
            for _host in range(hosts):
                self._hosts.append(enclosure.Enclosure(*self._hosts[:1]))
        except BaseException:
            self.close()
            raise
        self._home = self._hosts[0]
        self.uri = self._home.uri
        self.uris = tuple(host.uri for host in self._hosts)
        self.id = self._home.id
        self.folder = self._home.folder

    @property
    def connection(self) -> libvirt.virConnect:
        """A connection that works, whatever became of libvirtd since."""
        return self._home.connection

    def kill9_libvirtd(self) -> None:
        """Kill libvirtd outright and return when its successor answers; guests run on."""
        self._home.kill9_daemon()

    def __enter__(self) -> 'Lab':
        return self

    def __exit__(self, kind, _exc, _traceback) -> None:
        if kind is not None and not issubclass(kind, (KeyboardInterrupt, SystemExit)):
            self.keep_files = True
        self.close()

    def start(self, members: int | list[specification.GuestSpec], *, wait: bool = False,
              **changes) -> Group:
        """A group of guests that boot now, on a network of their own.

        :param members: how many, or what each is made of
        :param wait: return only when all talk to all
        :param changes: fields of GuestSpec to set for every member
        """
        if isinstance(members, int):
            members = [specification.GuestSpec()] * members
        specs = [dataclasses.replace(spec, **changes) for spec in members]
        bridge = f'br{len(self.groups)}'
        self._home.run_inside('ip', 'link', 'add', bridge, 'type', 'bridge')
        self._home.run_inside('ip', 'link', 'set', bridge, 'up')
        group = Group([self._define(number, spec, len(specs), bridge)
                       for number, spec in enumerate(specs)])
        self.groups.append(group)
        for guest in group:
            guest.domain.create()
        if wait:
            group.wait_ready()
        return group

    @property
    def enter(self) -> tuple[str, ...]:
        """Words before a command that is to see the guests' devices, as on a compute host."""
        return ('nsenter', f'--net=/proc/{self._home.init_pid}/ns/net', '--')

    def run_inside(self, *command: str) -> str:
        """The output of a command run where the guests' network and processes are."""
        return self._home.run_inside(*command)

    def pid_of(self, name: str) -> int | None:
        """The process of any domain's QEMU."""
        return self._home.qemu_pid(name)

    def close(self) -> None:
        """End everything; safe to repeat. With ``keep_files`` its folder stays, and is printed."""
        atexit.unregister(self.close)
        while self._hosts:
            host = self._hosts.pop()
            host.close(self.keep_files)
            if self.keep_files:
                print(f'lab logs kept in {host.folder}', file=sys.stderr)

    def _define(self, number: int, spec: specification.GuestSpec, count: int,
                bridge: str) -> Guest:
        home = self._hosts[spec.host]
        name = f'{self.id}-{len(self.groups)}-{number}'
        folder = home.folder / 'guests' / name
        folder.mkdir()
        paths = [disks.make(folder, index, disk) for index, disk in enumerate(spec.disks)]
        guest = Guest(home, name, number, spec, folder, count)
        home.connection.defineXML(specification.domain_xml(
            name, spec, self._boot, specification.kernel_arguments(spec, number, count), paths,
            guest.console, bridge, f'52:54:00:{len(self.groups):02x}:{number:02x}'))
        return guest
