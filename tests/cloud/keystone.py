# SPDX-License-Identifier: Apache-2.0
"""Keystone, and in it the services' users, their endpoints, and the project of the demo."""

from tests.cloud import files
from tests.cloud.services import Cloud

_ENDPOINTS = (('glance', 'image', ''), ('placement', 'placement', ''),
              ('neutron', 'network', ''), ('nova', 'compute', '/v2.1'))


def prepare(cloud: Cloud) -> None:
    """Configuration, database and keys."""
    settings = cloud.settings
    config = files.write_ini(
        settings.etc('keystone') / 'keystone.conf',
        DEFAULT={'use_stderr': True},
        database={'connection': settings.database_url('keystone')},
        token={'provider': 'fernet'},
        fernet_tokens={'key_repository': settings.etc('keystone') / 'tokens'},
        credential={'key_repository': settings.etc('keystone') / 'credentials'},
        cache={'enabled': True, 'backend': 'oslo_cache.dict'})
    for folder in ('tokens', 'credentials'):
        (settings.etc('keystone') / folder).mkdir(mode=0o700)

    def manage(name: str, *words: str) -> None:
        cloud.processes.run(f'keystone-{name}', files.program('keystone-manage'),
                            '--config-file', config, *words)
    manage('db-sync', 'db_sync')
    manage('tokens', 'fernet_setup', '--keystone-user', 'root', '--keystone-group', 'root')
    manage('credentials', 'credential_setup', '--keystone-user', 'root',
           '--keystone-group', 'root')
    manage('bootstrap', 'bootstrap', '--bootstrap-password', settings.passwords['admin'],
           '--bootstrap-region-id', 'RegionOne',
           *(word for kind in ('public', 'internal', 'admin')
             for word in (f'--bootstrap-{kind}-url', settings.keystone_url)))


def start(cloud: Cloud) -> None:
    """The service, and everything in it that others need."""
    cloud.start_api('keystone', 'keystone.wsgi.api:application',
                    OS_KEYSTONE_CONFIG_DIR=str(cloud.settings.etc('keystone')),
                    OS_KEYSTONE_CONFIG_FILES='keystone.conf')
    with cloud.connect() as connection:
        _fill(cloud, connection.identity)


def _fill(cloud: Cloud, identity) -> None:
    passwords = cloud.settings.passwords
    roles = {name: identity.find_role(name) or identity.create_role(name=name)
             for name in ('admin', 'member', 'service')}
    service = identity.create_project(name='service', domain_id='default')
    for name, kind, path in _ENDPOINTS:
        user = identity.create_user(name=name, password=passwords[name], domain_id='default')
        for role in ('admin', 'service'):
            identity.assign_project_role_to_user(service, user, roles[role])
        made = identity.create_service(name=name, type=kind)
        for interface in ('public', 'internal', 'admin'):
            identity.create_endpoint(service_id=made.id, interface=interface,
                                     url=cloud.settings.url(name) + path, region_id='RegionOne')
    project = identity.create_project(name='demo', domain_id='default')
    user = identity.create_user(name='demo', password=passwords['demo'], domain_id='default',
                                default_project_id=project.id)
    identity.assign_project_role_to_user(project, user, roles['member'])
