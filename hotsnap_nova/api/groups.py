# SPDX-License-Identifier: Apache-2.0
"""Server groups, as far as a snapshot's request is about them."""

from nova import exception as nova_exception
from nova import objects

from hotsnap_nova.conductor import rpcapi


def find(context, group_id: str):
    """Nova's InstanceGroup.

    :raises GroupNotFound: also where another project has it: Nova finds those for admins alone
    """
    try:
        return objects.InstanceGroup.get_by_uuid(context, group_id)
    except nova_exception.InstanceGroupNotFound as exc:
        raise rpcapi.GroupNotFound(group=group_id) from exc
