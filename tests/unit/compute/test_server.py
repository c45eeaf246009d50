# SPDX-License-Identifier: Apache-2.0
"""What is urgent is answered whatever a host is at, also by hosts of other versions."""

import threading
import time
import uuid

import pytest
from oslo_config import cfg

from hotsnap_nova import exception, rpc
from hotsnap_nova.compute import rpcapi, server
from hotsnap_nova.protocol import messages, wire

WORK = messages.Work('g', (messages.Member('a'),), messages.Gate.HOLD, 100, 150)
URGENT = (messages.Record, messages.Release, messages.Discard)


class Endpoint:
    """Prepares until it is told to go on; all else it answers at once."""

    target = rpc.oslo_messaging.Target(version='1.2')

    def __init__(self):
        self.goes_on = threading.Event()
        self.heard = []

    @rpc.answers
    def ping(self, _context):
        return {'host': 'h1', 'version': '9', 'rpc_version': '1.2', 'started_at': 0.0}

    @rpc.answers
    def receive(self, _context, request):
        message = wire.decode(request)
        self.heard.append(type(message))
        if isinstance(message, messages.Prepare):
            self.goes_on.wait(60)


class OldEndpoint(Endpoint):
    """Of before there were two topics."""

    target = rpc.oslo_messaging.Target(version='1.1')

    @rpc.answers
    def ping(self, _context):
        return {'host': 'h1', 'version': '8', 'started_at': 0.0}


@pytest.fixture
def transport():
    cfg.CONF([], project='hotsnap', default_config_files=[], default_config_dirs=[])
    made = rpc.open_transport(cfg.CONF, exchange=uuid.uuid4().hex)
    yield made
    made.cleanup()


@pytest.fixture
def endpoint():
    made = Endpoint()
    yield made
    made.goes_on.set()


@pytest.fixture
def serving(transport, endpoint):
    made = server.Server(transport, 'h1', endpoint, threads=2)
    made.start()
    yield made
    endpoint.goes_on.set()
    assert made.close(60)


@pytest.fixture
def old(transport):
    """The server of an old host, not started."""
    made = rpc.open_server(transport, rpcapi.TOPIC, 'h1', [OldEndpoint()])
    yield made
    assert rpc.close([made], 60)


def prepare(api, count):
    """Ask for so many preparations, and return when they are under way."""
    for number in range(count):
        threading.Thread(target=api.receive, daemon=True, args=(
            messages.Prepare(f's{number}', 1, 'h1', WORK), 60)).start()


def wait_for(true):
    ends = time.monotonic() + 30
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.005)


@pytest.mark.parametrize('kind', URGENT)
def test_what_is_urgent_does_not_wait_for_preparations(transport, serving, endpoint, kind):
    api = rpcapi.ComputeApi(transport)
    prepare(api, 2)    # as many as there are threads
    wait_for(lambda: endpoint.heard == [messages.Prepare] * 2)

    api.receive(kind('s0', 1, 'h1'), timeout_s=5)

    assert endpoint.heard[2:] == [kind]


def test_an_old_host_is_asked_where_it_listens(transport, old):
    old.start()
    api = rpcapi.ComputeApi(transport)
    api.ping('h1')

    for kind in URGENT:
        api.receive(kind('s', 1, 'h1'), timeout_s=5)


def test_a_pinned_version_keeps_to_the_old_topic(transport, old):
    old.start()
    api = rpcapi.ComputeApi(transport, pin='1.1')

    assert api.ping('h1')['rpc_version'] == '1.1'
    api.receive(messages.Release('s', 1, 'h1'), timeout_s=5)


def test_a_host_that_went_back_to_an_old_version_loses_one_message(transport, endpoint, old):
    new = server.Server(transport, 'h1', endpoint)
    new.start()
    api = rpcapi.ComputeApi(transport)
    api.ping('h1')
    new.close(60)
    old.start()

    with pytest.raises(exception.HostUnreachable):
        api.receive(messages.Release('s', 1, 'h1'), timeout_s=0.2)
    api.receive(messages.Release('s', 1, 'h1'), timeout_s=5)


def test_an_answer_that_hangs_does_not_keep_the_service_from_ending(transport, endpoint):
    serving = server.Server(transport, 'h1', endpoint)
    serving.start()
    prepare(rpcapi.ComputeApi(transport), 1)
    wait_for(lambda: endpoint.heard)

    began = time.monotonic()
    assert not serving.close(0.2)

    assert time.monotonic() - began < 10
