# SPDX-License-Identifier: Apache-2.0
"""A host whose power was cut has it again."""

from openstack import exceptions

from tests.cloud import hosts, nova
from tests.lab.guest import wait_for

_ENDS_S = 300


def comes_back(place, host):
    """Return when Nova has accepted it, and all of Nova is up."""
    hosts.power_on(place, host)
    with place.connect() as admin:
        nova.start_compute(place, host)
        # Not before it has removed what was evacuated.
        wait_for(lambda: _is_held_to_be_up(admin, host), _ENDS_S, 'the host to be accepted')
    nova.wait_until_up(place)


def held_to_be_down(admin, host, down):
    """As whoever fences a host tells Nova."""
    service, = admin.compute.services(binary='nova-compute', host=host)
    admin.compute.update_service_forced_down(service, forced=down)


def _is_held_to_be_up(admin, host):
    try:
        held_to_be_down(admin, host, False)
    except exceptions.BadRequestException:
        return False
    return True
