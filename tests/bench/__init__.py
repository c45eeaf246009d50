# SPDX-License-Identifier: Apache-2.0
"""What a hot snapshot costs its guests."""
