# SPDX-License-Identifier: Apache-2.0
"""What the services of a cloud have in common."""

import os
import sys

import openstack
import requests

from tests.cloud.processes import Supervisor
from tests.cloud.settings import Settings

_UNHEALTHY = 500
#: Nova uploads images in parts of 1 MiB. That, with its length before it, is more than uWSGI takes
#: by default, and the image is killed.
_CHUNK_BYTES = 8 << 20


class Cloud:
    """What every part is handed: the settings, and the supervisor of all its processes."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.processes = Supervisor(settings.control, settings.folder, settings.logs)

    def start_api(self, service: str, application: str, home: str = sys.prefix,
                  **environment: str) -> None:
        """Serve a WSGI application on the service's port; return when it answers.

        :param home: the Python environment it runs in
        """
        port = self.settings.ports[service]
        # One process each: Keystone's cache is a process's own, two would serve a stale catalog.
        self.processes.start(
            f'{service}-api', os.path.join(sys.prefix, 'base/bin/uwsgi'), '--home', home,
            '--http-socket', f'127.0.0.1:{port}', '--module', application,
            '--master', '--processes', 1, '--threads', 4, '--enable-threads', '--need-app',
            '--die-on-term', '--lazy-apps', '--buffer-size', 65535,
            '--chunked-input-limit', _CHUNK_BYTES, '--disable-logging',
            '--add-header', 'Connection: close', **environment)
        self.wait_for_api(service)

    def wait_for_api(self, service: str) -> None:
        """
        :raises CloudError: it has ended, or does not answer
        """
        self.processes.wait(f'{service}-api', 'no good answer', lambda: self.api_answers(service))

    def api_answers(self, service: str) -> bool:
        """Whether the service answers without a failure of its own."""
        try:
            return _plain_get(self.settings.url(service) + '/') < _UNHEALTHY
        except requests.RequestException:
            return False

    def credentials(self, user: str) -> dict[str, str]:
        """What a service's section has to authenticate with."""
        return {'auth_type': 'password', 'auth_url': self.settings.keystone_url,
                'username': user, 'password': self.settings.passwords[user],
                'project_name': 'service', 'user_domain_id': 'default',
                'project_domain_id': 'default', 'region_name': 'RegionOne'}

    def token_check(self, user: str) -> dict[str, str]:
        """The section keystone_authtoken."""
        return self.credentials(user) | {'www_authenticate_uri': self.settings.keystone_url}

    def environment(self, user: str) -> dict[str, str]:
        """What the openstack command needs to know of ``admin`` or ``demo``."""
        return {
            'OS_AUTH_URL': self.settings.keystone_url, 'OS_USERNAME': user,
            'OS_PASSWORD': self.settings.passwords[user], 'OS_PROJECT_NAME': user,
            'OS_USER_DOMAIN_ID': 'default', 'OS_PROJECT_DOMAIN_ID': 'default',
            'OS_IDENTITY_API_VERSION': '3', 'OS_REGION_NAME': 'RegionOne',
            'no_proxy': '127.0.0.1'}

    def connect(self, user: str = 'admin') -> openstack.connection.Connection:
        """The SDK's connection of ``admin`` or of ``demo``, a member of the project demo."""
        return openstack.connect(
            load_yaml_config=False, load_envvars=False, region_name='RegionOne',
            auth={'auth_url': self.settings.keystone_url, 'username': user,
                  'password': self.settings.passwords[user], 'project_name': user,
                  'user_domain_id': 'default', 'project_domain_id': 'default'})


def _plain_get(url: str) -> int:
    with requests.Session() as session:
        session.trust_env = False        # no proxies
        return session.get(url, timeout=10).status_code
