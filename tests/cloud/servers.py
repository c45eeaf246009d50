# SPDX-License-Identifier: Apache-2.0
"""Server groups of lab guests: made through Nova, watched and judged as the lab's own are."""

import concurrent.futures
import contextlib
import dataclasses
import pathlib
import time

import openstack

from tests.cloud import hosts, images
from tests.cloud.processes import CloudError
from tests.cloud.services import Cloud
from tests.lab import group as lab_group
from tests.lab import guest as lab_guest
from tests.lab import specification

_BUILD_S = 300
_GONE_S = 120
SPEC = specification.GuestSpec(disks=(images.DISK,), memory_mb=images.MEMORY_MB)


class Server(lab_guest.Guest):
    """One server. It is looked up by its UUID, on the host where Nova put it."""

    def __init__(self, cloud: Cloud, server, number: int, spec: specification.GuestSpec,
                 count: int):
        self.id = server.id
        self.name = server.name
        self.host = server.compute_host
        home = hosts.Host(cloud, self.host)
        super().__init__(home, server.instance_name, number, spec,
                         home.folder / 'nova/instances' / server.id, count)
        self._addresses: list[int] = []

    @property
    def pid(self) -> int:
        """QEMU's process, by its number here.

        :raises LabError: the guest does not run
        """
        if (pid := qemu_pid(self.id)) is None:
            raise lab_guest.LabError(f'{self.name} does not run')
        return pid

    def table_addresses(self) -> list[int]:
        """As the lab's; remembered, for Nova empties the console of a guest it starts."""
        for address in super().table_addresses():
            if address not in self._addresses:
                self._addresses.append(address)
        return self._addresses

    def forget_boots(self) -> None:
        self._addresses.clear()


class ServerGroup(lab_group.Group):
    """A server group of Nova and its members, whose order is their number.

    :ivar id: the group's
    """

    def __init__(self, cloud: Cloud, group_id: str, name: str, servers: list[Server]):
        super().__init__(servers)
        self.id = group_id
        self.name = name
        self._cloud = cloud

    def wait_ready(self, timeout_s: float = 240) -> None:
        super().wait_ready(timeout_s)
        for server in self:
            server.table_addresses()

    def forget_boots(self) -> None:
        """They were booted anew: their counters are elsewhere."""
        for server in self:
            server.forget_boots()

    def suspend(self) -> None:
        """Stop all where they are, behind Nova's back; ``resume`` is the domains' own."""
        with concurrent.futures.ThreadPoolExecutor(len(self)) as pool:
            for done in [pool.submit(server.domain.suspend) for server in self]:
                done.result()

    def delete(self) -> None:
        """Delete the servers and the group; return when they are gone."""
        with self._cloud.connect('demo') as connection:
            for server in self:
                connection.compute.delete_server(server.id, ignore_missing=True)
            for server in self:
                lab_guest.wait_for(lambda server=server: not exists(connection, server.id),
                                   _GONE_S, f'{server.name} to be deleted')
            connection.compute.delete_server_group(self.id, ignore_missing=True)


def make_group(cloud: Cloud, name: str, members: int = 3,
               workload: specification.Workload | None = None) -> ServerGroup:
    """A group of so many servers, spread over the hosts as far as they go; they boot now.

    One at a time: the lab's guests of two groups would have the same addresses.

    :raises CloudError: Nova could not build one
    """
    spec = dataclasses.replace(SPEC, workload=workload or SPEC.workload)
    with cloud.connect('demo') as connection:
        compute = connection.compute
        made = compute.create_server_group(name=name, policy='soft-anti-affinity')
        asked = [make_server(connection, f'{name}-{number}', number, members, spec, made.id)
                 for number in range(members)]
        for server in asked:
            wait_until(connection, server, 'ACTIVE')
    with cloud.connect() as connection:
        servers = [Server(cloud, connection.compute.get_server(server.id), number, spec, members)
                   for number, server in enumerate(asked)]
    return ServerGroup(cloud, made.id, name, servers)


@contextlib.contextmanager
def ready_group(cloud: Cloud, name: str, members: int):
    """As `make_group`, whose guests talk; gone with the block."""
    made = make_group(cloud, name, members)
    try:
        made.wait_ready()
        yield made
    finally:
        made.delete()


def make_server(connection, name: str, number: int, count: int, spec: specification.GuestSpec,
                group_id: str):
    """A server that is being built, with the part of guest ``number`` of ``count``."""
    network = connection.network.find_network(images.NETWORK, ignore_missing=False)
    return connection.compute.create_server(
        name=name,
        image_id=connection.image.find_image(images.IMAGE, ignore_missing=False).id,
        flavor_id=connection.compute.find_flavor(images.FLAVOR, ignore_missing=False).id,
        networks=[{'uuid': network.id, 'fixed_ip': f'10.20.0.{number + 1}'}],
        metadata={'lab': ' '.join(specification.workload_arguments(spec, number, count))},
        scheduler_hints={'group': group_id})


def wait_until(connection, server, status: str, timeout_s: float = _BUILD_S):
    """The server, once it has that status and no task.

    :raises CloudError: it is in error, or the time is over
    """
    deadline = time.monotonic() + timeout_s
    while True:
        now = connection.compute.get_server(server.id)
        if now.status == status and now.task_state is None:
            return now
        if now.status == 'ERROR' or time.monotonic() > deadline:
            raise CloudError(f'{described(now)}; waited for {status}')
        time.sleep(0.5)


def described(server) -> str:
    """What Nova says of a server, in one line."""
    fault = (server.fault or {}).get('message')
    return (f'{server.name} is {server.status}, task state {server.task_state}'
            f'{f", fault: {fault}" if fault else ""}')


def qemu_pid(server_id: str) -> int | None:
    """QEMU's process, by its number here; None: the server does not run."""
    for entry in pathlib.Path('/proc').glob('[0-9]*'):
        # Processes come and go.
        with contextlib.suppress(OSError):
            words = (entry / 'cmdline').read_bytes().split(b'\0')
            if b'-uuid' in words and words[words.index(b'-uuid') + 1] == server_id.encode():
                return int(entry.name)
    return None


def exists(connection, server_id: str) -> bool:
    """Whether Nova still knows the server."""
    try:
        connection.compute.get_server(server_id)
    except openstack.exceptions.NotFoundException:
        return False
    return True
