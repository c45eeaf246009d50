# SPDX-License-Identifier: Apache-2.0
"""The same call to every host, at the same time."""

from collections.abc import Callable, Iterable
from concurrent import futures


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
