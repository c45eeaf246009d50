# SPDX-License-Identifier: Apache-2.0
"""A host's endpoint on the bus, twice: what is urgent has threads of its own.

A preparation takes seconds and its thread with it; as many of them as there are
threads would keep a release waiting, while gates are closed. Both topics serve
every message, for an older coordinator knows one of them alone.
"""

from hotsnap_nova import rpc
from hotsnap_nova.compute import endpoint as endpoints
from hotsnap_nova.compute import rpcapi


class Server:
    """Serves one endpoint from `start` to `close`.

    :param threads: of each topic; None: as many as oslo.messaging is configured for
    """

    def __init__(self, transport, host: str, endpoint: endpoints.Endpoint,
                 threads: int | None = None):
        self._servers = tuple(rpc.open_server(transport, topic, host, [endpoint])
                              for topic in (rpcapi.TOPIC, rpcapi.URGENT_TOPIC))
        self._threads = threads

    def start(self) -> None:
        for server in self._servers:
            server.start(override_pool_size=self._threads)

    def close(self, timeout_s: float) -> bool:
        """As `rpc.close`."""
        return rpc.close(self._servers, timeout_s)
