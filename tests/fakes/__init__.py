# SPDX-License-Identifier: Apache-2.0
"""Stand-ins. Their hosts are at work for milliseconds, and are asked again after as many."""

from hotsnap_nova.conductor import rows

rows.REPEAT_MS = 50
