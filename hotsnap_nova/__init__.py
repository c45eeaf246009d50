# SPDX-License-Identifier: Apache-2.0
"""Consistent hot snapshots of groups of running virtual machines."""
