# SPDX-License-Identifier: Apache-2.0
"""What keeps packets from after the cut from the other members."""
