# SPDX-License-Identifier: Apache-2.0
"""Whether a guest can be snapshotted or restored, and what of it a snapshot keeps."""
