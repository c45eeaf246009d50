# SPDX-License-Identifier: Apache-2.0
"""What the coordinator remembers; only conductor/ imports it."""
