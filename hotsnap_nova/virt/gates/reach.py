# SPDX-License-Identifier: Apache-2.0
"""Whether the host kernel would keep a NIC's packets back, as `check` asks."""

import json
import math
import os
import socket
import subprocess
import sys
import threading
import time

from hotsnap_nova.virt import outliving

_PROBE_S = 30
#: For so long is it believed what it said that it lacks; many NICs may be asked about at once.
_LACKS_S = 10.0
_asking = threading.Lock()
#: What the host lacks, and until when that is believed, by the monotonic clock.
_told: tuple[tuple[str, str] | None, float] = None, 0.0


def elsewhere(process: int | None) -> bool:
    """Whether a QEMU's devices are in another network than ours, where names mean other devices.

    :param process: its number; None, or one we may not look at: it is believed to be here
    """
    try:
        theirs = os.stat(f'/proc/{process}/ns/net')
    except OSError:
        return False
    return not os.path.samestat(theirs, os.stat('/proc/self/ns/net'))


def missing(device: str, process: int | None, *, both_ways: bool = False,
            ) -> tuple[str, str] | None:
    """What stands in the way of a gate at this device, and the remedy; None where nothing does.

    What the host has it is asked for once; what it lacks, again after some seconds.

    :param device: the NIC's name on the host; '' where it has none
    :param process: the QEMU's
    :param both_ways: a gate that looks at what the guest is sent, too
    """
    if not device:
        return 'it has no device on this host', 'give it a tap or a macvtap'
    remedy = 'run this in the network namespace of guests\' devices'
    if elsewhere(process):
        return 'its QEMU is in another network namespace', remedy
    try:
        ifindex = socket.if_nametoindex(device)
    except OSError:
        return f'{device} is not seen from here', remedy
    if told := _host_lacks():
        return told
    from hotsnap_nova.virt.gates import bpf, hooks  # now it is known that they can be loaded

    try:
        outward = hooks.by_ingress(ifindex)
        for place in (outward, not outward) if both_ways else (outward,):
            if reason := hooks.obstacle(ifindex, place):
                return reason, 'see to it that nobody else is first at this device'
    except bpf.GateUnavailable as exc:
        return exc.kwargs['reason'], 'look at this device with ip and tc'
    return None


def _host_lacks():
    global _told
    with _asking:
        lacks, until = _told
        if time.monotonic() > until:
            lacks = _probed()
            _told = lacks, time.monotonic() + _LACKS_S if lacks else math.inf
        return lacks


def _probed():
    """What a process of its own says, for whatever that does, this one goes on."""
    remedy = 'run python3 -m hotsnap_nova.virt.gates.probe, and see why'
    try:
        done = subprocess.run([sys.executable, '-P', '-m', 'hotsnap_nova.virt.gates.probe'],
                              capture_output=True, text=True, timeout=_PROBE_S, cwd='/',
                              env=outliving.environment())
    except subprocess.TimeoutExpired:
        return f'trying it took more than {_PROBE_S:g} s', remedy
    except OSError as exc:
        return f'it cannot be tried: {exc}', remedy
    if done.returncode:
        told = done.stderr.strip().splitlines()[-1:] or ['it ended']
        return told[0], 'install the extra libvirt of this package'
    try:
        found = json.loads(done.stdout)
        return found and (str(found[0]), str(found[1]))
    except (ValueError, LookupError, TypeError):
        return f'having tried it says {done.stdout[:200]!r}', remedy
