# SPDX-License-Identifier: Apache-2.0
"""Whose locks keep a group from a restore."""

import pytest

from hotsnap_nova.conductor import membership, rpcapi


def server(locked_by):
    return membership.Server('1', 'web', 'instance-1', 'h1', 'active', None, 'p', locked_by)


@pytest.mark.parametrize(('locked_by', 'may_unlock', 'refused'), [
    (None, (), False), ('owner', (), True), ('admin', ('owner',), True),
    ('owner', ('owner',), False), ('owner', ('admin',), True),
    ('admin', ('owner', 'admin'), False), ('', (), True), ('', ('owner',), False),
    ('admin', None, False),    # an older API does not say
])
def test_a_lock_is_kept_against_those_who_may_not_take_it_off(locked_by, may_unlock, refused):
    if not refused:
        membership.must_be_unlocked([server(locked_by), server(None)], may_unlock)
        return
    with pytest.raises(rpcapi.MembersLocked, match='unlock them: web'):
        membership.must_be_unlocked([server(locked_by), server(None)], may_unlock)
