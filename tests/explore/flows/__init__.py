# SPDX-License-Identifier: Apache-2.0
"""Restores and rival snapshots of one group, explored: whole hosts with disks, power and owners.

The packages above ask whether a cut is consistent, packet by packet, for one snapshot at a time.
Here packets are left out; what matters is who may have a guest, which disk is whose, and how
several undertakings of one group end beside each other.

==============  ==================================================================================
`guests`        a guest: its QEMU, the names and inodes of its disk, who has locked it
`engine`        what a host's engine does to it, in units between which anything may happen
`hosts`         a host: machines, journals, threads, post
`doing`         all that may happen to a host
`undertakings`  coordinators and their rows
`promises`      what must never be; `patience`: nobody waits for ever
`space`         all worlds that can come of one, up to the names of hosts and rivals (`likeness`)
`visit`         each of them visited, each proved to heal; the story of a failure (`labels`)
`worlds`        where they begin
==============  ==================================================================================
"""
