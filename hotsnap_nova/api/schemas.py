# SPDX-License-Identifier: Apache-2.0
"""What requests must look like; unknown fields are refused."""

from nova.api.validation import parameter_types as types

from hotsnap_nova.conductor import rpcapi

_GATE = {'type': 'string', 'enum': list(rpcapi.GATES)}
_DISK = {'type': 'string', 'enum': list(rpcapi.DISKS)}
_NOTHING = {'type': ['null', 'object'], 'properties': {}, 'additionalProperties': False}


def _exactly(name, properties, **more):
    """A body of one key."""
    return _only(name, {'type': 'object', 'properties': properties,
                        'additionalProperties': False, **more})


def _only(name, schema):
    return {'type': 'object', 'properties': {name: schema}, 'required': [name],
            'additionalProperties': False}


CREATE = _exactly('server_group_snapshot', {
    'server_group_id': {'type': 'string', 'format': 'uuid'},
    'name': types.name,
    'description': types.description,
    'properties': types.metadata,
    'gate': _GATE,
    'disk': _DISK,
}, required=['server_group_id'])

UPDATE = _exactly('server_group_snapshot', {
    'name': types.name,
    'description': types.description,
    'properties': types.metadata,
}, minProperties=1)

RESTORE = _only('restore', {
    'type': ['null', 'object'],
    'properties': {'ignore_new_members': {'type': 'boolean'},
                   'drop_internal_snapshots': {'type': 'boolean'},
                   'keep_present': types.name},
    'additionalProperties': False,
})
VERIFY = _only('verify', _NOTHING)
ABORT = _only('abort', _NOTHING)
RESET_STATUS = _exactly('reset_status', {
    'status': {'type': 'string', 'enum': list(rpcapi.RESETTABLE)},
}, required=['status'])

CHECK = _only('snapshot_check', {
    'type': ['null', 'object'],
    'properties': {'gate': _GATE, 'disk': _DISK},
    'additionalProperties': False,
})

_YES_OR_NO = types.single_param({
    'type': 'string', 'enum': ['true', 'True', '1', 'false', 'False', '0']})

INDEX_QUERY = {
    'type': 'object',
    'properties': {
        'server_group_id': types.single_param({'type': 'string', 'format': 'uuid'}),
        'status': types.single_param({'type': 'string', 'enum': list(rpcapi.STATUSES)}),
        'name': types.single_param({'type': 'string'}),
        'all_projects': _YES_OR_NO,
        'limit': types.single_param(types.non_negative_integer),
        'marker': types.single_param({'type': 'string', 'format': 'uuid'}),
    },
    'additionalProperties': False,
}
SHOW_QUERY = {'type': 'object', 'properties': {}, 'additionalProperties': False}
DELETE_QUERY = {'type': 'object', 'properties': {'force': _YES_OR_NO},
                'additionalProperties': False}
