# SPDX-License-Identifier: Apache-2.0
"""What may die at a step."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Fault:
    """What is killed: the service or the power of a host, a coordinator, a QEMU.

    Of ``other coordinator`` nothing is: it takes over from the first, which stands still and then
    goes on.
    """

    kind: str
    name: str = ''

    def __str__(self):
        return f'{self.kind} {self.name}'.strip()


TAKES_OVER = Fault('other coordinator')
FAULTS = (Fault('coordinator'), TAKES_OVER, *(
    Fault(kind, name)
    for kind, names in (('service', ('h1', 'h2')), ('QEMU', ('g1', 'g3')), ('power', ('h1', 'h2')))
    for name in names))
