# SPDX-License-Identifier: Apache-2.0
"""Hosts of other versions are asked what they know; what they say that we do not is told."""

import threading
import uuid

import pytest
from oslo_config import cfg

from hotsnap_nova import exception, rpc
from hotsnap_nova.compute import endpoint, rpcapi
from hotsnap_nova.protocol import messages, wire
from hotsnap_nova.protocol.restore import messages as restores
from tests.fakes import cluster as clusters

SHARE = restores.Share('s1', (messages.Member('a', 'a'),))
WARNING = restores.MemberWarning('a', 'vda', 'it has grown', 'grow it again', 'h1')
ORDER = restores.Order('r1', 'h1', restores.Step.UNDO, SHARE)


class Host:
    """Answers what it is told to."""

    def __init__(self, version='1.3'):
        self._version = version
        self.target = rpc.oslo_messaging.Target(version=version)
        self.answers = {}
        self.heard = []

    @rpc.answers
    def ping(self, _context):
        return {'host': 'h1', 'rpc_version': self._version}

    @rpc.answers
    def receive(self, _context, request):
        self.heard.append(wire.decode(request))
        return self.answers['receive']

    @rpc.answers
    def check_restore(self, _context, task, restore, share):
        return self.answers['check_restore']

    @rpc.answers
    def delete(self, _context, snapshot):
        self.heard.append(snapshot)
        return True

    @rpc.answers
    def verify(self, _context, task, snapshot, **more):
        self.heard.append((snapshot, more))
        return {'done': True, 'result': {'files': 1, 'size_bytes': 2}}


@pytest.fixture
def transport():
    cfg.CONF([], project='hotsnap', default_config_files=[], default_config_dirs=[])
    made = rpc.open_transport(cfg.CONF, exchange=uuid.uuid4().hex)
    yield made
    made.cleanup()


@pytest.fixture
def serve(transport):
    """Serves what it is given, on both topics or some."""
    servers = []

    def serve(host, topics=(rpcapi.TOPIC, rpcapi.URGENT_TOPIC)):
        for topic in topics:
            servers.append(rpc.open_server(transport, topic, 'h1', [host]))
            servers[-1].start()
        return host
    yield serve
    assert rpc.close(servers, 60)


@pytest.mark.parametrize('request_', [ORDER, messages.Release('s1', 1, 'h1')])
def test_an_answer_that_cannot_be_understood_is_logged_and_counts_as_none(
        transport, serve, caplog, request_):
    serve(Host()).answers['receive'] = {'v': 1, 'kind': 'SaidByANewerHost'}
    api = rpcapi.ComputeApi(transport)
    ask = api.order if request_ is ORDER else api.receive

    with pytest.raises(exception.HostUnreachable, match='SaidByANewerHost'):
        ask(request_, 10)

    assert 'h1 cannot be understood' in caplog.text
    assert 'SaidByANewerHost' in caplog.text


def test_an_old_host_is_told_to_be_upgraded_and_asked_nothing(transport, serve):
    old = serve(Host('1.2'))
    api = rpcapi.ComputeApi(transport)

    with pytest.raises(exception.HostTooOld, match='h1.*check_restore'):
        api.check_restore('h1', 'r1', SHARE, 10)
    with pytest.raises(exception.HostTooOld, match='h1'):
        api.order(ORDER, 10)

    assert old.heard == []


def test_an_order_for_a_host_that_hears_of_nothing_urgent_says_that_it_is_too_old(
        transport, serve):
    old = serve(Host('1.1'), [rpcapi.TOPIC])
    api = rpcapi.ComputeApi(transport)
    with pytest.raises(exception.HostUnreachable):    # nobody has asked it yet
        api.order(ORDER, 0.1)
    api.ping('h1')

    with pytest.raises(exception.HostTooOld, match='h1.*no order: upgrade it'):
        api.order(ORDER, 0.1)

    assert old.heard == []


@pytest.mark.parametrize(('result', 'told'), [
    (None, ()),
    ([wire.encode(WARNING) | {'said_by': 'a newer one'}], (WARNING,))],
    ids=['an older host', 'a newer host'])
def test_a_host_that_can_restore_its_share_says_what_it_warns_of_if_it_can(
        transport, serve, result, told):
    serve(Host()).answers['check_restore'] = {'done': True, 'result': result, 'progress': [0, 0]}

    assert rpcapi.ComputeApi(transport).check_restore('h1', 'r1', SHARE, 10) == told


def test_a_pin_keeps_what_is_newer_from_every_host(transport, serve):
    new = serve(Host())
    api = rpcapi.ComputeApi(transport, pin='1.2')

    with pytest.raises(exception.HostTooOld, match='pinned to version 1.2'):
        api.check_restore('h1', 'r1', SHARE, 10)
    with pytest.raises(exception.HostTooOld, match='pinned to version 1.2'):
        api.order(ORDER, 10)
    with pytest.raises(exception.HostTooOld, match='pinned to version 1.2'):
        api.parts('h1')
    with pytest.raises(exception.HostTooOld, match='pinned to version 1.2'):
        api.forget('h1', 's1')
    assert api.delete('h1', 's1')

    assert new.heard == ['s1']


@pytest.mark.parametrize(('version', 'told'), [
    ('1.3', {}), ('1.4', {'members': ['a', 'b'], 'proofs': {'a': '1:x'}})])
def test_a_host_that_knows_no_proofs_verifies_by_its_own_manifest(transport, serve, version, told):
    host = serve(Host(version))

    found = rpcapi.ComputeApi(transport).verify('h1', 's1', None, ['b', 'a'], {'a': '1:x'})

    assert found == {'files': 1, 'size_bytes': 2}
    assert host.heard == [('s1', told)]


def test_an_old_host_deletes_in_one_call(transport, serve):
    old = serve(Host('1.2'))

    assert rpcapi.ComputeApi(transport).delete('h1', 's1')
    assert old.heard == ['s1']


@pytest.fixture
def cluster(tmp_path):
    with clusters.Cluster(tmp_path, {'h1': 'a'}) as made:
        yield made


def test_a_deletion_may_take_longer_than_a_call(cluster, monkeypatch):
    monkeypatch.setattr(rpcapi, '_SHORT_S', 2.0)    # the host keeps each waiting for 0.5 s
    row = cluster.create()
    store = cluster.hosts['h1'].store
    real, goes_on = store.delete, threading.Event()
    monkeypatch.setattr(store, 'delete', lambda snapshot: goes_on.wait(60) and real(snapshot))
    threading.Timer(4, goes_on.set).start()

    assert cluster.compute.delete('h1', row.id)

    assert store.list() == ()


def test_a_deletion_is_waited_for_no_longer_than_asked(cluster, monkeypatch):
    goes_on = threading.Event()
    monkeypatch.setattr(cluster.hosts['h1'].store, 'delete', lambda _snapshot: goes_on.wait(60))

    with pytest.raises(exception.HostUnreachable, match='longer than 0.5 s'):
        cluster.compute.delete('h1', 's1', timeout_s=0.5)

    goes_on.set()


def test_the_bus_reaches_what_is_meant_for_it_alone(cluster):
    client = rpc.Client(cluster.transport, rpcapi.TOPIC, '1.0')
    manager = cluster.hosts['h1'].manager
    private = [name for kind in (type(manager), endpoint.Endpoint) for name in vars(kind)
               if callable(getattr(kind, name)) and not getattr(
                   getattr(endpoint.Endpoint, name, None), 'exposed', False)]
    assert {'withdraw_all', 'withdraw', 'stop', 'start', 'serve'} <= set(private)

    for name in private:
        with pytest.raises(exception.HotsnapError):
            client.call('h1', name, 10)

    assert cluster.compute.ping('h1')['rpc_version'] == endpoint.VERSION
