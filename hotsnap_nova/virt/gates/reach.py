# SPDX-License-Identifier: Apache-2.0
"""Whether the host kernel would keep a NIC's packets back, as `check` asks."""

import json
import os
import socket
import subprocess
import sys

from hotsnap_nova.virt import outliving

_PROBE_S = 30
_known_good: set[str] = set()


def elsewhere(process: int | None) -> bool:
    """Whether a QEMU's devices are in another network than ours, where names mean other devices.

    :param process: its number; None, or one we may not look at: it is believed to be here
    """
    try:
        theirs = os.stat(f'/proc/{process}/ns/net')
    except OSError:
        return False
    return not os.path.samestat(theirs, os.stat('/proc/self/ns/net'))


def missing(device: str, process: int | None) -> tuple[str, str] | None:
    """What stands in the way of a gate at this device, and the remedy; None where nothing does.

    What the host has it is asked for once; what it lacks, again and again.

    :param device: the NIC's name on the host; '' where it has none
    :param process: the QEMU's
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
    if not _known_good:
        done = subprocess.run([sys.executable, '-P', '-m', 'hotsnap_nova.virt.gates.probe'],
                              capture_output=True, text=True, timeout=_PROBE_S, cwd='/',
                              env=outliving.environment())
        if done.returncode:
            told = done.stderr.strip().splitlines()[-1:] or ['it ended']
            return told[0], 'install the extra libvirt of this package'
        if found := json.loads(done.stdout):
            return tuple(found)
        _known_good.add('host')
    from hotsnap_nova.virt.gates import bpf, hooks  # now it is known that they can be loaded

    try:
        if reason := hooks.obstacle(ifindex, hooks.by_ingress(ifindex)):
            return reason, 'see to it that nobody else is first at this device'
    except bpf.GateUnavailable as exc:
        return exc.kwargs['reason'], 'look at this device with ip and tc'
    return None
