# SPDX-License-Identifier: Apache-2.0
"""Snapshots of server groups in Nova's API: a paste filter, and what is behind it."""
