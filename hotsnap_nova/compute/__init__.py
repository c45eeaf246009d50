# SPDX-License-Identifier: Apache-2.0
"""The participant service: one a host, the only one that touches guests and stores."""
