# SPDX-License-Identifier: Apache-2.0
"""What to read first when something went wrong: servers, snapshots, the ends of logs."""

from tests.cloud import cloud as clouds
from tests.cloud import database, nova, ours, servers
from tests.cloud.services import Cloud

_LOG_LINES = 20
_LINE_CHARACTERS = 300
#: Said all the time, of no help.
_NOISE = ('deprecated', 'sync_power_state', 'requestlog', 'impl_rabbit')


def of(cloud: Cloud) -> str:
    """Some screens of text; never raises."""
    parts = []
    for part in (_services, _servers, _snapshots, _logs):
        try:
            parts += part(cloud)
        except Exception as exc:   # there is more to tell
            parts.append(f'{part.__name__.strip("_")}: {type(exc).__name__}: {exc}')
    return '\n'.join(parts)


def _services(cloud):
    return clouds.unhealthy(cloud) or ['all services run and answer']


def _servers(cloud):
    with cloud.connect() as connection:
        for server in connection.compute.servers(all_projects=True):
            yield f'{servers.described(server)}, on {server.compute_host}'


def _snapshots(cloud):
    for name, status, phase, code, message, host in database.query(
            cloud, 'hotsnap', 'SELECT name, status, phase, error_code, error_message, error_host '
            'FROM snapshots ORDER BY created_at DESC LIMIT 5'):
        why = f', {code} on {host}: {message}' if code else ''
        yield f'snapshot {name} is {status} {phase}{why}'


def _logs(cloud):
    for name in (*map(nova.compute, cloud.settings.hosts), ours.CONDUCTOR):
        path = cloud.processes.log(name)
        lines = [line for line in path.read_text(errors='replace').splitlines()
                 if not any(word in line for word in _NOISE)]
        yield f'--- {path}'
        yield from (line[:_LINE_CHARACTERS] for line in lines[-_LOG_LINES:])
