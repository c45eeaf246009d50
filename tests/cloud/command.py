# SPDX-License-Identifier: Apache-2.0
"""``openstack server group snapshot``, typed as a member of the project types it."""

import json
import os
import subprocess

from tests.cloud import files
from tests.cloud.servers import ServerGroup
from tests.cloud.services import Cloud
from tests.rounds.command import CommandFailed

_TIMEOUT_S = 600


class Snapshots:
    """Snapshots of one server group, for ``tests.rounds``."""

    def __init__(self, cloud: Cloud, group: ServerGroup):
        self._cloud = cloud
        self._group = group

    def create(self, name: str, _domains=(), *, gate: str = 'auto', limits=(),
               delays_s=None) -> dict:
        """What the finished snapshot says of itself, and in ``stall_ms`` what members noticed.

        That is the longest silence of a peer in the seconds of the snapshot. Limits are the
        operator's, in nova.conf, and delays no-one's: both are ignored.

        :raises CommandFailed: there is no snapshot
        """
        before = [len(server.statuses()) for server in self._group]
        made = self.run('create', self._group.id, '--name', name, '--gate', gate, '--wait',
                        '-f', 'json')
        silences_us = [status['silence_us']
                       for server, count in zip(self._group, before, strict=True)
                       for status in server.statuses()[count:]]
        return json.loads(made) | {'stall_ms': max(silences_us, default=0) / 1000}

    def restore(self, name: str, paused: bool = False) -> None:
        """Bring the group back, running; then, where asked, suspend it to be looked at.

        :raises CommandFailed: it could not be restored
        """
        self.run('restore', name, '--wait')
        if paused:
            self._group.suspend()

    def show(self, name: str) -> dict:
        return json.loads(self.run('show', name, '-f', 'json'))

    def delete(self, *names: str) -> None:
        self.run('delete', *names, '--wait')

    def run(self, *words: str) -> str:
        """The output of ``openstack server group snapshot <words>``."""
        return openstack(self._cloud, 'server', 'group', 'snapshot', *words)


def openstack(cloud: Cloud, *words: str, user: str = 'demo') -> str:
    """The output of an openstack command.

    :raises CommandFailed: with the command's last line
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith('OS_')}
    # Not in the checkout: what is typed there would find its code before the installed one.
    done = subprocess.run([files.program('openstack'), *words], env=kept | cloud.environment(user),
                          cwd=cloud.settings.folder, capture_output=True, text=True, check=False,
                          timeout=_TIMEOUT_S)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise CommandFailed(words, lines[-1] if lines else f'status {done.returncode}')
    return done.stdout
