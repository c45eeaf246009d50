# SPDX-License-Identifier: Apache-2.0
"""Something is killed at every step of a snapshot and of a restore: what becomes of the group.

Two hosts, each a libvirtd with real guests and the production service in a process of its own,
and a coordinator in another, joined by a real broker. What the machines command is recorded
once undisturbed; then each case stops one command, before or after it, and kills there the
coordinator, a host's service, a guest's QEMU or a host's power. What died is started again, and
what is left when all is quiet is judged.

======================  =========================================================
`steps`                 what the machines command, and what may die at it
`probe` `process`       services made to stand still at one command; those of the lab
`services`              the harness's end of them
`power`                 a host's disk, which loses what was not synced
`guests` `boot.S`       guests of 512 bytes that count in memory and on their disk
`faults`                what may die
`bed` `site`            hosts, guests and services, killed in parts, and healed; those of the lab
`cases`                 one case: the plot, the fault, the end
`judge`                 what is allowed to be left
`campaign` `__main__`   every case, and the table of them (``make test-crash``)
`run` `jobs` `table`    cases one after the other; several sites; what is told of them
`test_crash`            one case of each fault (``make test``)
======================  =========================================================
"""
