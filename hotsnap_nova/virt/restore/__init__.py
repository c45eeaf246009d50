# SPDX-License-Identifier: Apache-2.0
"""A restore's steps, and disks put back."""
