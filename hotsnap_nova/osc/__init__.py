# SPDX-License-Identifier: Apache-2.0
"""``openstack server group snapshot …``: knows nothing but `hotsnap_nova.client`."""
