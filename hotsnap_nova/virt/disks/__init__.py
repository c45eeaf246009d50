# SPDX-License-Identifier: Apache-2.0
"""Frozen disks, the way their contents take to our files, and media."""
