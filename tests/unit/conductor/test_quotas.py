# SPDX-License-Identifier: Apache-2.0
"""What counts in a quota of bytes: snapshots, and the disks that restores left beside servers'."""

import datetime
import types

import pytest

from hotsnap_nova.conductor import actions, quotas

NOW = datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.UTC)
GIB = quotas.GIB


def snapshot(gib, status='available', group='g', restored_h=None, code=None, disk_gib=0,
             to_copy_gib=0):
    """A row; it was restored so many hours ago, with this error."""
    action = None
    if restored_h is not None:
        action = {'name': 'restore', 'status': 'failed' if code else 'done',
                  'error': {'code': code} if code else None, 'finished_at': actions.moment(
                      NOW - datetime.timedelta(hours=restored_h))}
    return types.SimpleNamespace(
        status=status, group_id=group, last_action=action, members=(types.SimpleNamespace(
            size_bytes=gib and gib * GIB, total_bytes=to_copy_gib * GIB, detail={'files': [
                {'name': 'vda.qcow2', 'size_bytes': disk_gib * GIB},
                {'name': 'memory.save', 'size_bytes': 9 * GIB}]}),))


@pytest.mark.parametrize(('found', 'used_gib'), [
    ([snapshot(3), snapshot(4)], 7),
    ([snapshot(3), snapshot(4, status='error')], 3),
    ([snapshot(3, to_copy_gib=8), snapshot(None, 'creating', to_copy_gib=4)], 7),
    ([snapshot(3), snapshot(None, 'creating')], 3),    # it has not told yet
    ([snapshot(3, 'creating', to_copy_gib=1), snapshot(2, 'creating', to_copy_gib=6)], 9),
    ([snapshot(3, restored_h=1, disk_gib=2)], 5),
    ([snapshot(3, restored_h=25, disk_gib=2)], 3),
    ([snapshot(3, restored_h=2, disk_gib=2), snapshot(3, restored_h=1, disk_gib=1)], 7),
    ([snapshot(3, restored_h=2, disk_gib=2), snapshot(3, 'available', 'h', 1, None, 1)], 9),
    ([snapshot(3, restored_h=1, disk_gib=2, code='restore_incomplete')], 5),
    ([snapshot(3, restored_h=1, disk_gib=2, code='timeout')], 3),    # it was undone
])
def test_a_project_may_have_more_while_it_has_less_than_it_may(found, used_gib):
    quotas.must_have_room(found, used_gib + 1, 24, 'p', NOW)

    with pytest.raises(quotas.OverQuotaBytes, match=f'have {used_gib}.0 of {used_gib} GiB'):
        quotas.must_have_room(found, used_gib, 24, 'p', NOW)


def test_without_a_limit_nothing_is_counted():
    quotas.must_have_room([snapshot(1 << 20)], -1, 24, 'p', NOW)
