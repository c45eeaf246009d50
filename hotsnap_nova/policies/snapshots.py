# SPDX-License-Identifier: Apache-2.0
"""Rules for snapshots of server groups."""

from oslo_policy import policy

_ROOT = 'hotsnap:server_group_snapshots:'

CREATE = _ROOT + 'create'
CHECK = _ROOT + 'check'
INDEX = _ROOT + 'index'
ALL_PROJECTS = _ROOT + 'index:all_projects'
SHOW = _ROOT + 'show'
SHOW_HOST = _ROOT + 'show:host'
UPDATE = _ROOT + 'update'
DELETE = _ROOT + 'delete'
FORCE_DELETE = _ROOT + 'delete:force'
RESTORE = _ROOT + 'restore'
VERIFY = _ROOT + 'verify'
ABORT = _ROOT + 'abort'
RESET_STATUS = _ROOT + 'reset_status'

_MEMBER = 'rule:project_member_or_admin'
_READER = 'rule:project_reader_or_admin'
_ADMIN = 'rule:context_is_admin'

_ALL = '/os-server-group-snapshots'
_ONE = _ALL + '/{snapshot_id}'
_ACTION = _ONE + '/action'


def _rule(name, check, description, *operations):
    return policy.DocumentedRuleDefault(
        name=name, check_str=check, description=description, scope_types=['project'],
        operations=[{'method': method, 'path': path} for method, path in operations])


RULES = (
    _rule(CREATE, _MEMBER, 'Take a snapshot of a server group', ('POST', _ALL)),
    _rule(CHECK, _MEMBER, 'Ask whether a server group can be snapshotted',
          ('POST', '/os-server-groups/{server_group_id}/snapshot-check')),
    _rule(INDEX, _READER, "List the project's snapshots of server groups",
          ('GET', _ALL), ('GET', _ALL + '/detail')),
    _rule(ALL_PROJECTS, _ADMIN, 'List the snapshots of all projects',
          ('GET', _ALL), ('GET', _ALL + '/detail')),
    _rule(SHOW, _READER, 'Show a snapshot of a server group', ('GET', _ONE)),
    _rule(SHOW_HOST, _ADMIN, 'See which host each member and finding belongs to',
          ('GET', _ALL + '/detail'), ('GET', _ONE),
          ('POST', '/os-server-groups/{server_group_id}/snapshot-check')),
    _rule(UPDATE, _MEMBER, 'Change name, description or properties of a snapshot', ('PUT', _ONE)),
    _rule(DELETE, _MEMBER, 'Delete a snapshot', ('DELETE', _ONE)),
    _rule(FORCE_DELETE, _ADMIN, 'Delete a snapshot in any status and without waiting for hosts '
          'that do not answer', ('DELETE', _ONE + '?force=true')),
    _rule(RESTORE, _MEMBER, 'Bring all members back to the cut', ('POST', _ACTION + ' (restore)')),
    _rule(VERIFY, _MEMBER, 'Compare what is kept with what was written',
          ('POST', _ACTION + ' (verify)')),
    _rule(ABORT, _MEMBER, 'Give up a snapshot that is being made', ('POST', _ACTION + ' (abort)')),
    _rule(RESET_STATUS, _ADMIN, 'Set the status of a snapshot',
          ('POST', _ACTION + ' (reset_status)')),
)
