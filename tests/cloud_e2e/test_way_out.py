# SPDX-License-Identifier: Apache-2.0
"""Back to Nova's own driver, our wheel away: nothing of ours is left, and Nova starts servers.

The way is that of doc/operator.md, "Remove".
"""

import concurrent.futures
import signal
import subprocess
import sys

import libvirt
import pytest
from openstack import exceptions

from tests.cloud import files, nova, ours, servers
from tests.functional.witness import Witness

pytestmark = pytest.mark.timeout(1200)
_NOVAS_FILES = {'disk', 'disk.config', 'disk.info', 'console.log', 'kernel', 'ramdisk'}
_KEPT = '.hotsnap-kept-'


def _switch(place, stock, home):
    """nova-api and each nova-compute from this environment, with this configuration."""
    place.processes.stop('nova-api')
    nova.configure_api(place, stock)
    for host in place.settings.hosts:
        nova.configure_host(place, host, stock, home)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        begun = [pool.submit(nova.restart_compute, place, host, signal.SIGTERM, home)
                 for host in place.settings.hosts]
        begun.append(pool.submit(nova.start_api, place, home))
        for each in begun:
            each.result()


@pytest.fixture
def stock(place):
    """A switch to Nova without ours, in an environment that does not have our wheel."""
    home = files.without_ours()
    looked = subprocess.run([files.program('python', home), '-c', 'import hotsnap_nova'],
                            cwd='/', capture_output=True, text=True, check=False)
    assert 'ModuleNotFoundError' in looked.stderr

    def switch():
        place.processes.stop(ours.CONDUCTOR)
        _switch(place, stock=True, home=home)
    yield switch
    _switch(place, stock=False, home=sys.prefix)
    ours.start(place)


def test_nova_goes_on_with_members_of_a_snapshot_when_ours_is_gone(place, group, connection,
                                                                   client, stock):
    witness = Witness(group)
    snapshot = client.create(group.id, name='left-behind').id
    client.wait_while(lambda found: found.status == 'creating', snapshot, 300)

    stock()

    assert witness.left(60) == []
    assert witness.harmed() == []
    with pytest.raises(exceptions.EndpointNotFound, match='no snapshots of server groups'):
        client.get(snapshot)
    compute = connection.compute
    for act, words, then in ((compute.reboot_server, ('HARD',), 'ACTIVE'),
                             (compute.stop_server, (), 'SHUTOFF'),
                             (compute.start_server, (), 'ACTIVE')):
        for server in group:
            act(server.id, *words)
        for server in group:
            servers.wait_until(connection, server, then)
    group.forget_boots()
    group.wait_ready()
    assert witness.errors() == []
    for server in group:
        for flags in (0, libvirt.VIR_DOMAIN_XML_INACTIVE):
            assert 'hotsnap' not in server.domain.XMLDesc(flags)
        assert server.domain.snapshotNum() == 0
        # What a restore replaced is the operator's to keep or remove.
        left = {path.name for path in server.folder.iterdir() if _KEPT not in path.name}
        assert left <= _NOVAS_FILES


def test_and_ours_is_back_where_it_is_wanted_again(group, client):
    assert client.check(group.id).gates
    for found in client.list(name='left-behind'):
        client.delete(found.id)
        client.wait_until_deleted(found.id, 120)
