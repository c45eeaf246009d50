# SPDX-License-Identifier: Apache-2.0
"""A group brought back to its cut: the other protocol, made like the snapshot's.

`messages` is what coordinator and hosts say, `durable` what outlives them, `commands` what their
runners do; `coordinator` and `participant` are the machines.
"""
