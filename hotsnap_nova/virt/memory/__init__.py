# SPDX-License-Identifier: Apache-2.0
"""Memory saved while the guest runs, and the save image it becomes."""
