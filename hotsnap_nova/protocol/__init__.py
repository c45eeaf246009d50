# SPDX-License-Identifier: Apache-2.0
"""The group snapshot protocol as pure machines; doc/protocol.md tells it in prose.

Nothing here does I/O, reads a clock, draws a random number or logs. The same machines run in
production (carried out by ``hotsnap_nova.runner``) and in the explorer of the tests.
"""
