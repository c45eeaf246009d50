# SPDX-License-Identifier: Apache-2.0
"""Many rounds with each gate and the control."""
