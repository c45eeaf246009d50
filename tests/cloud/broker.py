# SPDX-License-Identifier: Apache-2.0
"""RabbitMQ: one node, and the epmd it needs."""

import shutil
import socket

from tests.cloud.processes import CloudError
from tests.cloud.services import Cloud
from tests.lab import broker


def start(cloud: Cloud) -> None:
    """A node that serves."""
    epmd = shutil.which('epmd')
    if not epmd:
        raise CloudError('epmd is not installed; erlang-base has it')
    cloud.processes.start('epmd', epmd, '-port', cloud.settings.ports['epmd'],
                          '-address', '127.0.0.1')
    start_node(cloud)


def start_node(cloud: Cloud) -> None:
    """The node alone, with what it kept; also after it was killed."""
    ports = cloud.settings.ports
    folder = cloud.settings.folder / 'broker'
    environment = broker.environment(
        folder, port=ports['broker'], peers_port=ports['broker-peers'], epmd_port=ports['epmd'],
        user='cloud', password=cloud.settings.passwords['broker'])
    cloud.processes.start('broker', broker.SERVER, **environment)
    cloud.processes.wait('broker', 'port closed', lambda: answers(cloud))


def answers(cloud: Cloud) -> bool:
    """Whether its port is open, which it is when the node is ready to serve."""
    try:
        with socket.create_connection(('127.0.0.1', cloud.settings.ports['broker']), 1):
            return True
    except OSError:
        return False
