# SPDX-License-Identifier: Apache-2.0
"""What a restored guest is started with: today's identity, the cut's hardware, this host."""
