# SPDX-License-Identifier: Apache-2.0
"""What a project has in stores and beside its servers' disks, in bytes.

A snapshot's size is known once it is saved; until then it counts as what its hosts are about to
copy, as soon as they tell. Who is below the limit may begin one more.
"""

import datetime
from collections.abc import Iterable

from hotsnap_nova import exception
from hotsnap_nova.conductor import actions, rows

GIB = 1 << 30


class OverQuotaBytes(exception.Invalid):
    code = 'over_quota_bytes'
    http_status = 403
    message_format = ('Quota exceeded: snapshots of project %(project)s, and disks that its '
                      'restores replaced, have %(used_gib).1f of %(limit)d GiB.')


def must_have_room(found: Iterable, limit_gib: int, keep_hours: float, project: str,
                   now: datetime.datetime) -> None:
    """Nothing, where a project may have more.

    :param found: rows of all its snapshots
    :param limit_gib: -1: any number
    :param keep_hours: for which hosts keep disks that a restore replaced
    :raises OverQuotaBytes:
    """
    if limit_gib < 0:
        return
    found = [each for each in found if each.status != rows.ERROR]
    used = sum(map(_bytes, found)) + sum(_kept(found, now - datetime.timedelta(hours=keep_hours)))
    if used >= limit_gib * GIB:
        raise OverQuotaBytes(project=project, used_gib=used / GIB, limit=limit_gib)


def _bytes(row):
    making = row.status == rows.CREATING
    return sum(max(member.size_bytes or 0, member.total_bytes if making else 0)
               for member in row.members)


def _kept(found, since):
    """Bytes of the disks beside the servers' own, one a group: the next restore's takes its place.

    Hosts alone know how large they are: counted are those of the cut.
    """
    newest = {}
    for row in found:
        action = row.last_action or {}
        error = (action.get('error') or {}).get('code')
        if (action.get('name') == 'restore' and action['status'] != actions.RUNNING
                and error in (None, exception.RestoreIncomplete.code)
                and action['finished_at'] > actions.moment(since)):
            newest[row.group_id] = max(newest.get(row.group_id, ('', 0)),
                                       (action['finished_at'], _disk_bytes(row)))
    return [size for _, size in newest.values()]


def _disk_bytes(row):
    return sum(file['size_bytes'] for member in row.members
               for file in (member.detail or {}).get('files', ())
               if file['name'].endswith('.qcow2'))
