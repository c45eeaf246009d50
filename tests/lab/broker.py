# SPDX-License-Identifier: Apache-2.0
"""Debian's RabbitMQ on private ports, in a private folder: how to start it."""

import os
import pathlib

SERVER = '/usr/lib/rabbitmq/bin/rabbitmq-server'


def environment(folder: pathlib.Path, *, port: int, peers_port: int, epmd_port: int, user: str,
                password: str) -> dict[str, str]:
    """Variables for ``SERVER``, whose files go to the folder; made ready, nothing started.

    epmd must listen on its port before.
    """
    for name in ('home', 'mnesia', 'log'):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / 'rabbitmq.conf').write_text(
        f'listeners.tcp.1 = 127.0.0.1:{port}\ndefault_user = {user}\n'
        f'default_pass = {password}\ndisk_free_limit.absolute = 50MB\n')
    (folder / 'plugins').write_text('[].\n')
    return {
        'HOME': f'{folder}/home',
        'RABBITMQ_NODENAME': f'hotsnap{port}@localhost',
        'RABBITMQ_MNESIA_BASE': f'{folder}/mnesia',
        'RABBITMQ_LOG_BASE': f'{folder}/log',
        'RABBITMQ_PID_FILE': f'{folder}/pid',
        'RABBITMQ_CONFIG_FILE': f'{folder}/rabbitmq.conf',
        'RABBITMQ_CONF_ENV_FILE': os.devnull,
        'RABBITMQ_ENABLED_PLUGINS_FILE': f'{folder}/plugins',
        'RABBITMQ_DIST_PORT': str(peers_port),
        'ERL_EPMD_ADDRESS': '127.0.0.1', 'ERL_EPMD_PORT': str(epmd_port),
        'RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS':
            '-kernel inet_dist_use_interface {127,0,0,1} '
            '+sbwt none +sbwtdcpu none +sbwtdio none +S 2:2'}
