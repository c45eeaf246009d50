# SPDX-License-Identifier: Apache-2.0
"""The demo: a group snapshotted, killed and restored, with the protocol and without."""
