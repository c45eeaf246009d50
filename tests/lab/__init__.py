# SPDX-License-Identifier: Apache-2.0
"""Lab guests: small real virtual machines that talk, write and check themselves.

::

    with Lab() as lab:
        group = lab.start(3)
        group.wait_ready()
        group[0].domain.suspend()
        print(group[0].counters())
"""

from tests.lab.group import Group
from tests.lab.guest import Guest, LabError
from tests.lab.lab import Lab
from tests.lab.specification import WIDE, Disk, GuestSpec, Workload
from tests.lab.verdict import Finding

__all__ = ['WIDE', 'Disk', 'Finding', 'Group', 'Guest', 'GuestSpec', 'Lab', 'LabError', 'Workload']
