# SPDX-License-Identifier: Apache-2.0
"""How much of this machine guests take, and a group that leaves the rest of it alone.

What is measured on a machine that the guests alone keep busy is that machine's
queue of waiting threads, not what a snapshot costs.
"""

import dataclasses
import os
import sys
import time

import libvirt

from tests.lab.group import Group
from tests.lab.lab import Lab
from tests.lab.specification import GuestSpec

MOST_SHARE = 0.6
_LEAST_RATE = 5
_MEASURED_S = 3.0


@dataclasses.dataclass(frozen=True)
class Load:
    """What a group does all the time.

    :ivar rate: messages a second, each link, each way
    :ivar share: of this machine's processors, 0 to 1
    """

    rate: int
    share: float


def start_within(lab: Lab, specs: list[GuestSpec], rate: int,
                 most_share: float = MOST_SHARE) -> tuple[Group, Load]:
    """Guests that all talk to all, at ``rate`` where the machine is fast enough for it.

    Where they take more than ``most_share`` of it they are booted again with
    half the rate, as often as that helps.
    """
    while True:
        group = lab.start([dataclasses.replace(
            spec, workload=dataclasses.replace(spec.workload, rate=rate)) for spec in specs],
            wait=True)
        load = Load(rate, cpu_share(group))
        if load.share <= most_share or rate <= _LEAST_RATE:
            return group, load
        print(f'at {rate} messages a second the guests take {load.share:.0%} of this machine: '
              'once more with half of them', file=sys.stderr, flush=True)
        end(group)
        rate = max(_LEAST_RATE, rate // 2)


def cpu_share(group: Group, seconds: float = _MEASURED_S) -> float:
    """What part of this machine's processors the guests take now."""
    began, before_ns = time.monotonic_ns(), _used_ns(group)
    time.sleep(seconds)
    return round((_used_ns(group) - before_ns)
                 / (time.monotonic_ns() - began) / os.cpu_count(), 3)


def end(group: Group) -> None:
    """No guest of the group runs any more."""
    for guest in group:
        try:
            guest.domain.destroy()
        except libvirt.libvirtError:
            continue                     # it has ended by itself


def _used_ns(group):
    return sum(guest.domain.info()[4] for guest in group)
