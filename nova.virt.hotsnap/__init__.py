# SPDX-License-Identifier: Apache-2.0
"""Where Nova looks for drivers: ``compute_driver = hotsnap.HotSnapLibvirtDriver``."""

from hotsnap_nova.nova.driver import HotSnapLibvirtDriver

__all__ = ['HotSnapLibvirtDriver']
