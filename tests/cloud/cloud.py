# SPDX-License-Identifier: Apache-2.0
"""A cloud brought up, looked at, and taken down."""

import functools
import pathlib
import shutil
import sys
import time
from collections.abc import Callable

from tests.cloud import (
    broker,
    database,
    glance,
    hosts,
    images,
    keystone,
    network,
    neutron,
    nova,
    ours,
    placement,
    processes,
    settings,
)
from tests.cloud.processes import CloudError
from tests.cloud.services import Cloud
from tests.cloud.steps import Step, run

_READY = 'ready'
_APIS = ('keystone', 'glance', 'placement', 'neutron', 'nova')
_LINKS_GONE_S = 10


def up(folder: pathlib.Path, stock: bool, say: Callable[[str], None]) -> Cloud:
    """A running cloud; one that runs already is left as it is.

    :param stock: with nothing of ours in it
    :raises CloudError: a part does not come up, or another kind of cloud is there
    """
    known = settings.load(folder)
    if known is not None and (folder / _READY).exists():
        cloud = Cloud(known)
        if faults := unhealthy(cloud):
            raise CloudError(f'the cloud in {folder} is ill: {"; ".join(faults)}. '
                             f'Logs: {known.logs}. Remedy: make cloud-down, then again')
        if known.stock != stock or known.checkout != sys.prefix:
            raise CloudError(f'the cloud in {folder} is of {known.checkout}, '
                             f'{"stock" if known.stock else "with ours"}: make cloud-down first')
        say(f'The cloud in {folder} is up.')
        return cloud
    if known is not None:
        say(f'Removing what an earlier run left in {folder} …')
        down(folder)
    made = settings.make(folder, stock)
    say(f'Bringing up a cloud in {folder}, {"stock" if stock else "with hotsnap_nova"} …')
    processes.launch(folder, made.logs, made.control)
    cloud = Cloud(made)
    run(_steps(cloud), say)
    (folder / _READY).touch()
    (folder / 'openrc').write_text(_openrc(cloud, 'demo'))
    (folder / 'openrc-admin').write_text(_openrc(cloud, 'admin'))
    return cloud


def is_up(folder: pathlib.Path, stock: bool = False) -> bool:
    """Whether there is a cloud of this checkout and kind that was brought up to its end."""
    known = settings.load(folder)
    return (known is not None and (folder / _READY).exists()
            and (known.stock, known.checkout) == (stock, sys.prefix))


def running(folder: pathlib.Path, stock: bool = False) -> Cloud:
    """The cloud that is up.

    :raises CloudError: there is none of this kind, or it is ill
    """
    known = settings.load(folder)
    if known is None or known.stock != stock:
        raise CloudError(f'no {"stock cloud" if stock else "cloud with ours"} in {folder}: '
                         'make cloud first')
    cloud = Cloud(known)
    if faults := unhealthy(cloud):
        raise CloudError(f'the cloud in {folder} is ill: {"; ".join(faults)}')
    return cloud


def down(folder: pathlib.Path) -> bool:
    """Remove a cloud: every process, link, mount and file. False where there was none.

    :raises CloudError: something of it stays
    """
    known = settings.load(folder)
    if known is None:
        return False
    processes.end(folder)
    cloud = Cloud(known)
    deadline = time.monotonic() + _LINKS_GONE_S
    # They go with their network namespace, which the kernel ends in its own time.
    while left := network.leftovers(cloud):
        if time.monotonic() > deadline:
            raise CloudError(f'links stay: {", ".join(left)}')
        time.sleep(0.1)
    shutil.rmtree(folder)
    return True


def unhealthy(cloud: Cloud) -> list[str]:
    """What does not run or answer."""
    faults = []
    supervisors = [cloud.processes]
    if not cloud.processes.answers():
        return ['nothing of it runs']
    supervisors += [hosts.processes(cloud, host) for host in cloud.settings.hosts]
    for supervisor in supervisors:
        try:
            faults += [f'{name} ended with {process["ended"]}, see {supervisor.log(name)}'
                       for name, process in supervisor.status().items() if process['ended']]
        except CloudError as exc:
            faults.append(str(exc))
    faults += [f'{api} does not answer, see {cloud.processes.log(f"{api}-api")}'
               for api in _APIS if not cloud.api_answers(api)]
    if not broker.answers(cloud):
        faults.append(f'RabbitMQ does not answer, see {cloud.processes.log("broker")}')
    return faults


def _steps(cloud: Cloud) -> list[Step]:
    def step(name, function, *needs):
        return Step(name, functools.partial(function, cloud), needs)
    steps = [
        step('MariaDB', database.start),
        step('RabbitMQ', broker.start),
        step('wire between the hosts', network.start),
        step('guest image', images.make),
        *(step(f'host {host}', functools.partial(_host, host), 'wire between the hosts')
          for host in cloud.settings.hosts),
        step('Keystone: database', keystone.prepare, 'MariaDB'),
        step('Keystone', keystone.start, 'Keystone: database'),
        step('Glance: database', glance.prepare, 'MariaDB'),
        step('Glance', glance.start, 'Glance: database', 'Keystone'),
        step('Placement: database', placement.prepare, 'MariaDB'),
        step('Placement', placement.start, 'Placement: database', 'Keystone'),
        step('Nova: databases', nova.prepare, 'MariaDB'),
        step('Neutron: database', neutron.prepare, 'MariaDB'),
        step('Neutron', neutron.start, 'Neutron: database', 'Keystone', 'RabbitMQ'),
        step('Nova', nova.start, 'Nova: databases', 'Keystone', 'RabbitMQ', 'Placement'),
        step('compute services', _computes, 'Nova', *(f'host {host}' for host
                                                      in cloud.settings.hosts)),
        step('image, flavor, network', images.upload, 'Nova', 'Glance', 'Neutron', 'guest image'),
    ]
    if not cloud.settings.stock:
        steps += [step('hotsnap: database', ours.prepare, 'Nova: databases'),
                  step('hotsnap: conductor', ours.start, 'hotsnap: database', 'Nova')]
    return steps


def _host(host: str, cloud: Cloud) -> None:
    hosts.start(cloud, host)
    nova.prepare_host(cloud, host)


def _computes(cloud: Cloud) -> None:
    for host in cloud.settings.hosts:
        nova.start_compute(cloud, host)
    nova.wait_for_computes(cloud)


def _openrc(cloud: Cloud, user: str) -> str:
    variables = cloud.environment(user) | {
        'PATH': f'{sys.prefix}/bin:$PATH', 'no_proxy': '127.0.0.1,$no_proxy'}
    return ''.join(f'export {name}="{value}"\n' for name, value in variables.items())
