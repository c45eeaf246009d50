# SPDX-License-Identifier: Apache-2.0
"""Snapshots of server groups for Python programs, over openstacksdk.

::

    import openstack
    from hotsnap_nova import client

    snapshots = client.Client(openstack.connect(cloud='mine').compute)
    made = snapshots.create(group.id, name='nightly')
    made = snapshots.wait_until_made(made.id)

What goes wrong is raised as openstacksdk raises it for its own services
(``openstack.exceptions``): BadRequestException, ForbiddenException,
NotFoundException, ConflictException, HttpException for the rest; EndpointNotFound
where the compute service has no such routes;
DuplicateResource for an ambiguous name; ResourceFailure and ResourceTimeout
from waiting. `error_code` tells which of our errors it was.
"""

from hotsnap_nova.client.records import (
    Action,
    Error,
    Finding,
    Member,
    Snapshot,
    Verdict,
)
from hotsnap_nova.client.rest import Client, error_code

__all__ = ['Action', 'Client', 'Error', 'Finding', 'Member', 'Snapshot', 'Verdict', 'error_code']
