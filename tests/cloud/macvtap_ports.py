# SPDX-License-Identifier: Apache-2.0
"""ML2 mechanism driver: ports of flat networks are macvtaps on the link named like their host.

libvirt makes the devices, so that no agent has anything to do. Neutron loads
this from the cloud's folder.
"""

from neutron_lib import constants
from neutron_lib.api.definitions import portbindings
from neutron_lib.plugins.ml2 import api


class MacvtapPorts(api.MechanismDriver):

    def initialize(self):
        pass

    def bind_port(self, context):
        if context.current[portbindings.VNIC_TYPE] != portbindings.VNIC_NORMAL:
            return
        details = {portbindings.CAP_PORT_FILTER: False, 'physical_interface': context.host,
                   'macvtap_source': context.host, 'macvtap_mode': 'bridge',
                   portbindings.VIF_DETAILS_CONNECTIVITY: portbindings.CONNECTIVITY_L2}
        for segment in context.segments_to_bind:
            if segment[api.NETWORK_TYPE] == constants.TYPE_FLAT:
                context.set_binding(segment[api.ID], portbindings.VIF_TYPE_MACVTAP, details,
                                    status=constants.PORT_STATUS_ACTIVE)
                return
