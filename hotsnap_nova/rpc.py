# SPDX-License-Identifier: Apache-2.0
"""oslo.messaging, set up the way both services and their clients use it.

Errors cross as data: an endpoint wrapped in `answers` never raises, and
`Client.call` raises the same `HotsnapError` at the near end.

What nobody waits for any more is not begun: RabbitMQ drops a message after its
call's time-out, and so do we where it has waited for a thread. Of a message that
says when it was sent both times count together, as far as the clocks of both
hosts agree.
"""

import functools
import threading
import time
import warnings
from concurrent import futures

# Threads throughout; must be said before oslo.messaging asks oslo.service.
with warnings.catch_warnings():
    # futurist looks whether eventlet is there; that is no news to an operator.
    warnings.simplefilter('ignore')
    from oslo_service import backend
    backend.init_backend(backend.BackendType.THREADING)
    import oslo_messaging
    from oslo_messaging._drivers import impl_fake

from oslo_log import log as logging

from hotsnap_nova import exception

LOG = logging.getLogger(__name__)

IN_PROCESS = 'fake:/'
#: In a message's context: for how many seconds from when it is sent its answer is waited for.
_VALID_S = 'valid_s'
#: Likewise, when it was sent, in seconds since 1970 by the sender's clock.
_SENT_AT = 'sent_at'
#: For how long, by this host's CLOCK_MONOTONIC, from when the message came.
_EXPIRES_NS = 'expires_ns'
_TOO_OLD = ('UnsupportedVersion', 'NoSuchMethod')


def open_transport(conf, url: str = IN_PROCESS, exchange: str | None = None):
    """The transport at ``url``.

    :param conf: ``cfg.CONF``: oslo.messaging registers some of its options only there
    :param exchange: separates several in-process services in one process
    """
    if not url.startswith('fake:'):
        return oslo_messaging.get_rpc_transport(conf, url)
    oslo_messaging.get_rpc_transport(conf, IN_PROCESS)    # registers what the driver reads
    parsed = oslo_messaging.TransportURL.parse(conf, IN_PROCESS)
    driver = _PromptDriver(conf, parsed, exchange or 'hotsnap')
    return oslo_messaging.transport.RPCTransport(driver)


def open_novas(conf):
    """The transport that Nova's configuration names, in a process that is none of Nova's."""
    oslo_messaging.set_transport_defaults('nova')
    return oslo_messaging.get_rpc_transport(conf)


def open_server(transport, topic: str, host: str, endpoints: list):
    """A server, not started, whose endpoints run in threads."""
    server = oslo_messaging.get_rpc_server(
        transport, oslo_messaging.Target(topic=topic, server=host), endpoints,
        access_policy=oslo_messaging.ExplicitRPCAccessPolicy)
    # futurist's threads look once a second whether they are to end: a command would end so late.
    server._executor_cls = _Threads
    return server


class _Threads(futures.ThreadPoolExecutor):
    """Tell messages that wait for a thread until when somebody waits for their answers."""

    def submit(self, process, messages):
        for message in messages:
            if valid_s := message.ctxt.get(_VALID_S):
                left_s = valid_s - _age_s(message.ctxt, valid_s)
                message.ctxt.setdefault(_EXPIRES_NS, time.monotonic_ns() + int(left_s * 1e9))
        return super().submit(process, messages)


def _age_s(context, valid_s):
    """For how long it was on its way; 0 where that is not known.

    RabbitMQ gives no message that is older than it is valid: where it seems to be, or to come
    from the future, it is the clocks that differ.
    """
    age_s = time.time() - context.get(_SENT_AT, float('inf'))
    return age_s if 0 <= age_s <= valid_s else 0.0


def close(servers, timeout_s: float) -> bool:
    """Whether all have ended what they were at, after waiting for that; they take nothing more.

    What hangs in one of them, a hypervisor or a store, ends with the process.
    """
    ends = time.monotonic() + timeout_s
    ending = [threading.Thread(target=_end, args=(server,), daemon=True, name='hotsnap-end-rpc')
              for server in servers]
    for thread in ending:
        thread.start()
    for thread in ending:
        thread.join(max(0.0, ends - time.monotonic()))
    return not any(thread.is_alive() for thread in ending)


def _end(server):
    server.stop()
    server.wait()


def answers(method):
    """Serve an endpoint's method, and no other; it answers ``{'result': …}`` or ``{'error': …}``.

    What else is public there cannot be called.
    """
    @oslo_messaging.expose
    @functools.wraps(method)
    def answer(self, context, /, **kwargs):    # a message may have a `context`, too
        left_s = seconds_left(context)
        if left_s is not None and left_s <= 0:
            LOG.warning('%s is not begun: it waited until nobody waited for it any more; or its '
                        "sender's clock is behind", method.__name__)
            return {'error': exception.HostUnreachable(
                host='here', reason=f'{method.__name__} came too late').to_dict()}
        try:
            return {'result': method(self, context, **kwargs)}
        except exception.HotsnapError as exc:
            return {'error': exc.to_dict()}
        except Exception as exc:
            LOG.exception('%s failed', method.__name__)
            return {'error': exception.Bug(reason=f'{type(exc).__name__}: {exc}').to_dict()}
    return answer


def seconds_left(context: dict) -> float | None:
    """For how long somebody waits for the answer of what is served; None where it is not known."""
    expires_ns = context.get(_EXPIRES_NS)
    return None if expires_ns is None else (expires_ns - time.monotonic_ns()) / 1e9


class Client:
    """Calls the servers of one topic.

    :param transport: or a function that gives a host's own transport
    :param version: of what is called, where a call does not say otherwise
    :param dated: messages say when they were sent, for what is begun once and not asked again
    """

    def __init__(self, transport, topic: str, version: str, context: dict | None = None,
                 dated: bool = False):
        self._transport_of = transport if callable(transport) else lambda _host: transport
        self._target = oslo_messaging.Target(topic=topic, version=version)
        self._context = context or {}
        self._dated = dated
        self._clients: dict = {}

    def call(self, host: str | None, method: str, timeout_s: float, version: str | None = None,
             **kwargs):
        """What ``method`` returned at ``host``, or at any server of the topic.

        :param version: the least of the far end that does
        :raises HostUnreachable: no answer; whether it was done is not known
        :raises HostTooOld: it has no such version or method; nothing was done
        :raises HotsnapError: what the method raised
        """
        prepared = self._client(host).prepare(
            server=host, timeout=timeout_s, retry=1, version=version or self._target.version)
        more = {_VALID_S: timeout_s} | ({_SENT_AT: time.time()} if self._dated else {})
        try:
            answer = prepared.call({**self._context, **more}, method, **kwargs)
        except oslo_messaging.MessagingException as exc:
            if _is_too_old(exc):
                raise exception.HostTooOld(host=host or 'any', method=method) from exc
            raise exception.HostUnreachable(
                host=host or 'any', reason=f'{type(exc).__name__}: {exc}') from exc
        if 'error' in answer:
            raise exception_of(answer['error'])
        return answer['result']


    def _client(self, host):
        transport = self._transport_of(host)
        client = self._clients.get(id(transport))
        if client is None:
            client = self._clients[id(transport)] = oslo_messaging.get_rpc_client(
                transport, self._target)
        return client


def _is_too_old(exc):
    """Over a broker the far end's exception comes back as its name."""
    return getattr(exc, 'exc_type', type(exc).__name__) in _TOO_OLD


def exception_of(error: dict) -> exception.HotsnapError:
    """The error that ``to_dict`` was asked of, of the nearest class known here."""
    known = _classes(exception.HotsnapError)
    made = known.get(error['code'], exception.HotsnapError)(
        error['message'], **error.get('details', {}))
    made.code = error['code']
    return made


def _classes(kind):
    found = {kind.code: kind}
    for each in kind.__subclasses__():
        found |= _classes(each)
    return found


class _PromptListener(impl_fake.FakeListener):
    """Hears a message when it is sent; the parent looks each 50 ms, while gates are closed."""

    def __init__(self, exchange_manager, targets, news):
        super().__init__(exchange_manager, targets)
        self._news = news

    def poll(self, timeout=None, **_batch):
        ends = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._news:
                found = super().poll(timeout=0)
                if found or self._stopped.is_set():
                    return found
                left_s = None if ends is None else ends - time.monotonic()
                if left_s is not None and left_s <= 0:
                    return found
                self._news.wait(left_s)

    def stop(self):
        super().stop()
        with self._news:
            self._news.notify_all()


class _PromptDriver(impl_fake.FakeDriver):
    """oslo.messaging's in-process driver, without its 50 ms of sleep before each call."""

    def __init__(self, conf, url, exchange):
        super().__init__(conf, url, exchange)
        self._news = threading.Condition()

    def _send(self, target, ctxt, message, wait_for_reply=None, timeout=None, *_options):
        # Deliver and wake in one step, or a listener could look in between and sleep on.
        reply = impl_fake.queue.Queue()
        self._check_serialize(message)
        if timeout is not None:    # as RabbitMQ, which has it as the message's expiration
            ctxt = {**ctxt, _EXPIRES_NS: time.monotonic_ns() + int(timeout * 1e9)}
        exchange = self._exchange_manager.get_exchange(target.exchange)
        with self._news:
            exchange.deliver_message(target.topic, ctxt, message, server=target.server,
                                     fanout=target.fanout,
                                     reply_q=reply if wait_for_reply else None)
            self._news.notify_all()
        if not wait_for_reply:
            return None
        try:
            answer, failure = reply.get(timeout=timeout)
        except impl_fake.queue.Empty:
            raise oslo_messaging.MessagingTimeout(f'No reply on topic {target.topic}') from None
        if failure:
            raise failure
        return answer

    def listen(self, target, batch_size, batch_timeout):
        exchange = target.exchange or self._default_exchange
        targets = [oslo_messaging.Target(topic=target.topic, server=server, exchange=exchange)
                   for server in (target.server, None)]
        listener = _PromptListener(self._exchange_manager, targets, self._news)
        return impl_fake.base.PollStyleListenerAdapter(listener, batch_size, batch_timeout)
