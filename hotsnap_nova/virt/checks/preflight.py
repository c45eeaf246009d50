# SPDX-License-Identifier: Apache-2.0
"""Whether guests can be snapshotted, told before anything is touched.

Each rule looks at one thing of one guest and yields of each finding device, cause,
remedy, and what it rules out: where it does not say, the snapshot.
"""

import concurrent.futures

from hotsnap_nova.virt import definitions, guest, records
from hotsnap_nova.virt.checks import (
    channels,
    devices,
    folders,
    images,
    marking,
    memory,
    restorable,
    room,
    running,
    subject,
    volumes,
)

#: Members asked at once: an agent or a QEMU may take its time.
_AT_ONCE = 8
_RULES = (*devices.RULES, *channels.RULES, *images.RULES, *running.RULES, *restorable.RULES,
          *folders.RULES, *volumes.RULES, *memory.RULES)


def check(guests: list[guest.Guest], gate: str, free_bytes: int | None, connection,
          reserve_bytes: int = 0, owner: definitions.Definitions | None = None,
          store: str | None = None) -> records.Verdict:
    """The verdict for these guests together.

    :param gate: the one asked for, or 'auto'
    :param free_bytes: room where the files would go; None: not looked at
    :param reserve_bytes: of it, what is to stay free
    :param owner: who defines these guests
    :param store: the folder from which memory is loaded; None: there is none
    """
    findings, members = [], []
    for found in guests:
        if (state := found.state()).running:
            members.append(subject.Subject(
                found, connection, owner.volumes(found.uuid) if owner else ()))
        else:
            findings.append(records.Finding(
                found.spec, 'guest', f'it is not running ({state.name})', 'start or resume it'))
    marks = gate == records.MARKER
    rules = (*_RULES, *marking.RULES) if marks else _RULES
    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        for told in pool.map(lambda asked: _of_one(asked, rules), members):
            findings += told
    findings += channels.meeting(members)
    findings += memory.shortage(members)
    if marks:
        findings += marking.policies(members, owner)
    findings += _far(connection)
    if free_bytes is not None:
        findings += room.in_store(members, free_bytes, reserve_bytes)
    if store is not None:
        findings += folders.store(connection, store, members)
    ruled_out = {name for finding in findings for name in finding.rules_out}
    gates = tuple(name for name in records.GATES if name not in ruled_out)
    if gate == records.NO_GATE:
        gates += (records.NO_GATE,)
    if marks and records.MARKER not in ruled_out:
        gates = (records.MARKER, *gates)
    return records.Verdict(gates, tuple(findings),
                           marking.addresses(members, owner) if marks else ())


def _far(connection):
    """Memory and disks go through descriptors that QEMU is handed, over a socket of this host."""
    uri = connection.getURI()
    transport = uri.partition(':')[0].partition('+')[2]
    if transport not in ('', 'unix'):
        yield records.Finding(
            records.GROUP, 'host', f'libvirt is reached by {uri}, and not over its own socket: '
            'nothing can be handed to QEMU so',
            'use qemu:///system: of nova-compute [hotsnap] local_uri, of hotsnap --uri')


def _of_one(asked: subject.Subject, rules) -> list[records.Finding]:
    return [records.Finding(asked.guest.spec, *told)
            for rule in rules for told in rule(asked)]
