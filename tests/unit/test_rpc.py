# SPDX-License-Identifier: Apache-2.0
"""What is served is what was meant to be, and only as long as somebody waits for it."""

import threading
import time
import uuid

import pytest
from oslo_config import cfg

from hotsnap_nova import exception, rpc
from hotsnap_nova.compute import rpcapi as hosts
from hotsnap_nova.conductor import rpcapi as coordinators

TOPIC = 'a-topic'


class Endpoint:
    """Holds whoever calls `hold` until it is told to go on."""

    target = rpc.oslo_messaging.Target(version='1.0')

    def __init__(self):
        self.holding, self.goes_on = threading.Event(), threading.Event()
        self.began = []

    @rpc.answers
    def hold(self, _context):
        self.holding.set()
        self.goes_on.wait(60)

    @rpc.answers
    def begin(self, _context, what):
        self.began.append(what)

    def close(self):
        self.began.append('its end')


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
def server(transport, endpoint):
    """With one thread; not started."""
    made = rpc.open_server(transport, TOPIC, 'h1', [endpoint])
    yield made
    endpoint.goes_on.set()
    assert rpc.close([made], 60)


@pytest.fixture
def call(transport):
    client = rpc.Client(transport, TOPIC, '1.0')
    return lambda method, timeout_s=30, **kwargs: client.call('h1', method, timeout_s, **kwargs)


def test_what_waited_for_a_thread_until_its_caller_gave_up_is_not_begun(server, endpoint, call):
    server.start(override_pool_size=1)
    holding = threading.Thread(target=call, args=('hold',))
    holding.start()
    assert endpoint.holding.wait(30)

    with pytest.raises(exception.HostUnreachable):
        call('begin', 0.1, what='given up')
    endpoint.goes_on.set()
    call('begin', what='asked again')

    assert endpoint.began == ['asked again']
    holding.join()


def test_what_waited_in_the_broker_until_its_caller_gave_up_is_not_begun(server, endpoint, call):
    with pytest.raises(exception.HostUnreachable):
        call('begin', 0.1, what='given up')
    server.start(override_pool_size=1)
    call('begin', what='asked again')

    assert endpoint.began == ['asked again']


def test_a_message_from_a_broker_expires_by_this_hosts_own_clock(endpoint):
    """RabbitMQ gave it, so it was not too late then; what counts is how long it waits here."""
    threads = rpc._Threads(1)
    messages = Message(valid_s=0.01), Message(valid_s=60), Message()
    threads.submit(lambda _message: endpoint.goes_on.wait(60), [Message()])

    answers = [threads.submit(lambda batch: endpoint.begin(batch[0].ctxt, what='it'), [message])
               for message in messages]
    assert not endpoint.goes_on.wait(0.1)
    endpoint.goes_on.set()

    assert ['error' in answer.result() for answer in answers] == [True, False, False]
    threads.shutdown()


class Message:
    def __init__(self, **context):
        self.ctxt = context


def seconds_left_of(**context):
    """When it has come from a broker."""
    threads, message = rpc._Threads(1), Message(**context)
    threads.submit(lambda _batch: None, [message]).result()
    threads.shutdown()
    return rpc.seconds_left(message.ctxt)


def test_time_in_the_broker_counts_where_the_message_says_when_it_was_sent():
    left_s = seconds_left_of(valid_s=6000, sent_at=time.time() - 4000)

    assert 1000 < left_s <= 2000


@pytest.mark.parametrize('context', [{}, {'sent_at': time.time() - 6000}, {
    'sent_at': time.time() + 6000}], ids=['says nothing', 'clock behind', 'clock ahead'])
def test_where_clocks_differ_or_nothing_is_said_time_counts_from_when_it_came(context):
    assert 2000 < seconds_left_of(valid_s=3000, **context) <= 3000


class Asked:
    """A coordinator, or a host; keeps what a message says beside what is asked."""

    target = rpc.oslo_messaging.Target(version='1.0')

    @rpc.answers
    def get(self, context, snapshot):
        self.context = context

    @rpc.answers
    def find(self, context, names):
        self.context = context


@pytest.mark.parametrize(('topic', 'ask', 'dated'), [
    (coordinators.TOPIC, lambda transport: coordinators.ConductorApi(transport, {}).get('s'),
     True),
    (hosts.TOPIC, lambda transport: hosts.ComputeApi(transport).find('h1', []), False),
], ids=['coordinator', 'host'])
def test_hosts_orders_do_not_depend_on_clocks(transport, topic, ask, dated):
    """They are asked for again, and cuts have no second to spare; users' requests are not."""
    asked = Asked()
    server = rpc.open_server(transport, topic, 'h1', [asked])
    server.start()
    before = time.time()

    ask(transport)

    assert rpc.close([server], 60)
    assert ('sent_at' in asked.context) is dated
    assert before <= asked.context.get('sent_at', before) <= time.time()


def test_what_is_public_but_not_marked_cannot_be_called(server, endpoint, call):
    server.start()

    with pytest.raises(exception.HotsnapError):
        call('close')

    assert endpoint.began == []
