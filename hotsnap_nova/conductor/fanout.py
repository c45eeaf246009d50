# SPDX-License-Identifier: Apache-2.0
"""The same call to every host, at the same time."""

from collections.abc import Callable, Iterable
from concurrent import futures

from hotsnap_nova import exception


def outcomes(hosts: Iterable[str], call: Callable[[str], object]) -> tuple[dict, dict]:
    """What ``call`` gave by host, and by host the `HotsnapError` with which it failed.

    :raises Exception: anything else that one of them raised
    """
    def tried(host):
        try:
            return call(host), None
        except exception.HotsnapError as exc:
            return None, exc
    done = each(hosts, tried)
    return ({host: result for host, (result, error) in done.items() if error is None},
            {host: error for host, (_, error) in done.items() if error is not None})


def each(hosts: Iterable[str], call: Callable[[str], object]) -> dict:
    """What ``call`` gave, by host. All are waited for, even where one fails.

    :raises Exception: the first failure, in the order of hosts
    """
    hosts = tuple(hosts)
    if not hosts:
        return {}
    with futures.ThreadPoolExecutor(len(hosts), thread_name_prefix='hotsnap-fanout') as pool:
        under_way = {host: pool.submit(call, host) for host in hosts}
    return {host: future.result() for host, future in under_way.items()}
