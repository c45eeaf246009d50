# SPDX-License-Identifier: Apache-2.0
"""Clocks of guests that went on from the past, set by their agents."""

import contextlib
import threading
import time

from hotsnap_nova import exception
from hotsnap_nova.virt import domain, guest

#: An agent may take a question and never answer, and libvirt waits for it as long as a guest runs.
_TIMEOUT_S = 10.0


def set_all(guests: list[guest.Guest]) -> None:
    """Have guests with an agent set their clocks, and wait for that a moment at the most."""
    asking = [threading.Thread(target=_set, args=(found,), daemon=True, name='hotsnap-clock')
              for found in guests]
    for each in asking:
        each.start()
    deadline = time.monotonic() + _TIMEOUT_S
    for each in asking:
        each.join(max(0.0, deadline - time.monotonic()))


def _set(found):
    with contextlib.suppress(exception.HotsnapError):
        if domain.DomainXml(found.full_xml()).agent:
            found.set_clock(int(time.time()))
