# SPDX-License-Identifier: Apache-2.0
"""What a host has of snapshots and restores, and the end of what nobody else is to end.

Where the database came back from a backup, or an errand was dropped, a host may have parts that
nobody will ask for again; `compute.remains` is the host's side.
"""

from hotsnap_nova import exception
from hotsnap_nova.conductor import errands, restorations
from hotsnap_nova.protocol.restore import durable
from hotsnap_nova.protocol.restore import messages as restores


def of(database, compute, host: str) -> tuple[dict, ...]:
    """What the host says, see `compute.remains.Remains.list`.

    Of each also ``awaited``: whether a row or an errand is there by which it ends by itself.

    :raises HostUnreachable, HostTooOld:
    """
    awaited = _awaited(database, host)
    return tuple(each | {'awaited': each['id'] in awaited} for each in compute.parts(host))


def forget(database, compute, host: str, part: str) -> bool:
    """Whether the part has ended; False: the host is at it, and is to be asked again.

    :raises SnapshotBusy: it is awaited, or decided, and comes to another end
    :raises SnapshotNotFound: the host has no such part
    :raises HostUnreachable, HostTooOld:
    """
    if part in _awaited(database, host):
        raise exception.SnapshotBusy(
            snapshot=part, status='not forgotten by its coordinators, and ends by itself')
    return compute.forget(host, part)


def _awaited(database, host):
    """Ids of snapshots and restores."""
    awaited = set()
    for found in database.open_snapshots():
        awaited.add(found.id)
        if found.restore:
            awaited.add(restorations.load(found, durable.RestoreLimits()).restore)
    for errand in database.errands(host):
        if errand.kind != errands.DELETE:
            message = errands.message_of(errand)
            awaited.add(message.restore if isinstance(message, restores.Order)
                        else message.snapshot)
    return awaited
