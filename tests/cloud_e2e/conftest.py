# SPDX-License-Identifier: Apache-2.0
"""One cloud for all these tests, and one group of servers that talk."""

import pytest

from tests.cloud import cloud, servers, settings


@pytest.fixture(scope='session')
def place(capfd_disabled):
    """The cloud that is up; else one that is brought up, and taken down at the end."""
    folder = settings.default_folder()
    was_up = settings.load(folder) is not None
    with capfd_disabled():
        made = cloud.up(folder, stock=False, say=print)
    yield made
    if not was_up:
        cloud.down(folder)


@pytest.fixture(scope='session')
def capfd_disabled(request):
    """A context in which what is printed is seen: bringing up a cloud takes a while."""
    return request.config.pluginmanager.getplugin('capturemanager').global_and_fixture_disabled


@pytest.fixture(scope='session')
def group(place):
    made = servers.make_group(place, 'e2e', 3)
    try:
        made.wait_ready()
        yield made
    finally:
        made.delete()


@pytest.fixture
def nova(place):
    """A project member's connection to the compute service."""
    with place.connect('demo') as connection:
        yield connection.compute
