# SPDX-License-Identifier: Apache-2.0
"""One cloud for all these tests, and one group of servers that talk."""

import os
import pathlib

import pytest

from hotsnap_nova.client import rest
from tests.cloud import cloud, diagnosis, servers, settings
from tests.cloud.command import Snapshots
from tests.lab import enclosure

#: The first wants no cloud yet, the next two no group, the last boots the group anew.
_ORDER = ('test_bringing_up', 'test_servers', 'test_evacuation', 'test_snapshots', 'test_failures',
          'test_restore_failures', 'test_way_out')
#: Short, for there are sockets in it.
_OWN = pathlib.Path('/tmp/hstest')
_PLACE = pytest.StashKey()


@pytest.fixture(scope='session')
def folder():
    """Of the cloud that is up; else of one of these tests' own, with their process's number.

    What an interrupted run has left is there to be looked at until the next.
    """
    folder = settings.default_folder()
    if cloud.is_up(folder) or settings.FOLDER_VARIABLE in os.environ:
        return folder
    for left in _OWN.parent.glob(f'{_OWN.name}*'):
        number = left.name.removeprefix(_OWN.name)
        if number.isdigit() and enclosure.start_time(int(number)) is None:
            cloud.down(left)
    return _OWN.with_name(f'{_OWN.name}{os.getpid()}')


@pytest.fixture(scope='session')
def place(request, folder, capfd_disabled):
    """The cloud that is up; else one that is brought up, and taken down at the end."""
    was_up = cloud.is_up(folder)
    with capfd_disabled():
        made = cloud.up(folder, stock=False, say=print)
    request.config.stash[_PLACE] = made
    yield made
    del request.config.stash[_PLACE]
    if not was_up:
        cloud.down(folder)


@pytest.fixture(scope='session')
def capfd_disabled(request):
    """A context in which what is printed is seen: bringing up a cloud takes a while."""
    return request.config.pluginmanager.getplugin('capturemanager').global_and_fixture_disabled


@pytest.fixture(scope='session')
def group(place):
    """Three servers on two hosts; each test leaves them talking."""
    with servers.ready_group(place, 'e2e', 3) as made:
        yield made


@pytest.fixture(scope='session')
def snapshots(place, group):
    """The group's, by the openstack command."""
    return Snapshots(place, group)


@pytest.fixture
def connection(place):
    """A project member's."""
    with place.connect('demo') as made:
        yield made


@pytest.fixture
def client(connection):
    """A project member's client of ours."""
    return rest.Client(connection.compute, poll_s=0.5)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: _ORDER.index(item.path.stem) if item.path.stem in _ORDER else -1)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """What is to be read first where a test failed."""
    outcome = yield
    report = outcome.get_result()
    place = item.config.stash.get(_PLACE, None)
    if report.failed and place is not None:
        report.sections.append(('the cloud', diagnosis.of(place)))
