# SPDX-License-Identifier: Apache-2.0
"""What demo, soak, bench and the consistency test share: rounds of snapshot, kill, restore."""
