# SPDX-License-Identifier: Apache-2.0
"""The way from a request to the coordinator."""

from nova import rpc

from hotsnap_nova.conductor import rpcapi


def of(context) -> rpcapi.ConductorApi:
    """The coordinator, called in the name of this context over Nova's own transport."""
    return rpcapi.ConductorApi(rpc.TRANSPORT, context.to_dict())
