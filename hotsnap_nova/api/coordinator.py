# SPDX-License-Identifier: Apache-2.0
"""The way from a request to the coordinator."""

from nova import rpc

from hotsnap_nova.conductor import rpcapi


def of(context, **more) -> rpcapi.ConductorApi:
    """The coordinator, called in the name of this context over Nova's own transport.

    :param more: what the context is to tell beside what Nova's does
    """
    return rpcapi.ConductorApi(rpc.TRANSPORT, context.to_dict() | more)
