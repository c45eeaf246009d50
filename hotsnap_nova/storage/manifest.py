# SPDX-License-Identifier: Apache-2.0
"""What a snapshot says of itself: ``manifest.json``.

A manifest is a plain dict of the form SCHEMA describes. Unknown fields are
kept, so a minor addition needs no new version; FORMAT_VERSION grows when an
old reader would misunderstand. The file carries its own digest: whatever
changed in it is noticed, not only what the schema forbids.
"""

import json

import blake3
import jsonschema

from hotsnap_nova import exception
from hotsnap_nova.storage import base

FORMAT_VERSION = 1

_NAME = {'type': 'string', 'pattern': base.SAFE_NAME}
_TEXT = {'type': 'string', 'maxLength': 4096}
_BYTES = {'type': 'integer', 'minimum': 0}
_MS = {'type': 'number', 'minimum': 0}
_COUNT = {'type': 'integer', 'minimum': 0}
_WALL_NS = {'type': 'integer', 'minimum': 0, 'description': 'ns since 1970'}

_FILE = {
    'type': 'object',
    'required': ['name', 'size_bytes', 'blake3'],
    'properties': {
        'name': _NAME,
        'size_bytes': {**_BYTES, 'description': 'apparent size; holes count'},
        'blake3': {'type': 'string', 'pattern': r'^[0-9a-f]{64}$(?!\n)',
                   'description': 'of the content, holes read as zeros'},
    },
}

_DISK = {
    'type': 'object',
    'required': ['target', 'file'],
    'properties': {
        'target': {**_NAME, 'description': "the guest's name of it: vda"},
        'file': _NAME,
        'format': _TEXT,
        'virtual_bytes': _BYTES,
    },
}

_MEMBER = {
    'type': 'object',
    'required': ['id', 'name', 'host', 'machine', 'cpu', 'qemu_version', 'memory_bytes',
                 'cut_wall_ns', 'pause_ms', 'wait_ms', 'hold_ms', 'packets', 'disks', 'files'],
    'properties': {
        'id': _NAME,
        'name': _TEXT,
        'host': _NAME,
        'machine': {**_TEXT, 'description': "QEMU's versioned machine type"},
        'cpu': {**_TEXT, 'description': 'CPU model with its features'},
        'qemu_version': _TEXT,
        'libvirt_version': _TEXT,
        'vcpus': _COUNT,
        'memory_bytes': _BYTES,
        'cut_wall_ns': _WALL_NS,
        'pause_ms': {**_MS, 'description': 'suspended for its own cut, STOP to RESUME'},
        'wait_ms': {**_MS, 'description': 'suspended only to wait for the others'},
        'hold_ms': {**_MS, 'description': 'its packets were kept back'},
        'packets': {
            'type': 'object',
            'required': ['held', 'marked', 'late'],
            'properties': {
                'held': {**_COUNT, 'description': 'of its own, until the release'},
                'marked': {**_COUNT, 'description': 'of its own, past its cut'},
                'late': {**_COUNT, 'description': 'for it, which waited for its cut'}},
        },
        'carried_by': {**_TEXT, 'description': 'who kept packets back; empty: nobody'},
        'asked_by_mark': {'type': 'boolean', 'description': 'a packet asked for its cut'},
        'disks': {'type': 'array', 'items': _DISK},
        'files': {'type': 'array', 'items': _FILE, 'minItems': 1},
    },
}

SCHEMA = {
    '$schema': 'https://json-schema.org/draft/2020-12/schema',
    'type': 'object',
    'required': ['format_version', 'snapshot_id', 'name', 'group', 'epoch', 'gate', 'skew_ms',
                 'created_at', 'members'],
    'properties': {
        'format_version': {'const': FORMAT_VERSION},
        'snapshot_id': _NAME,
        'name': _TEXT,
        'description': _TEXT,
        'properties': {'type': 'object', 'additionalProperties': _TEXT},
        'group': {
            'type': 'object',
            'required': ['id', 'name'],
            'properties': {'id': _TEXT, 'name': _TEXT},
        },
        'epoch': {'type': 'integer', 'minimum': 1},
        'gate': {'enum': ['marker', 'hold', 'barrier', 'none'],
                 'description': 'none: the control of tests; not consistent'},
        'skew_ms': {**_MS, 'description': 'first cut to last'},
        'created_at': {'type': 'string',
                       'pattern': r'^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$(?!\n)',
                       'description': 'UTC'},
        'members': {'type': 'array', 'items': _MEMBER, 'minItems': 1},
        'kept_here': {'type': 'array', 'items': _NAME,
                      'description': 'members whose files this store has; the store fills it in'},
    },
}

_validator = jsonschema.Draft202012Validator(SCHEMA)


def fault(manifest: dict) -> str | None:
    """What is wrong with a manifest, in one line, or None."""
    error = jsonschema.exceptions.best_match(_validator.iter_errors(manifest))
    if error is not None:
        return f'{error.json_path}: {error.message[:200]}'
    ids = [member['id'] for member in manifest['members']]
    if len(set(ids)) < len(ids):
        return 'members: one is named twice'
    for member in manifest['members']:
        names = [file['name'] for file in member['files']]
        if len(set(names)) < len(names):
            return f'member {member["id"]}: a file is named twice'
        absent = {disk['file'] for disk in member['disks']} - set(names)
        if absent:
            return f'member {member["id"]}: disk file {min(absent)} is not among its files'
    if not set(manifest.get('kept_here', ())) <= set(ids):
        return 'kept_here: names no member'
    return None


def dump(manifest: dict) -> bytes:
    """The file's content, the same for equal manifests.

    :raises Bug: the manifest is not valid: we made it, so we mend it
    """
    reason = fault(manifest)
    if reason:
        raise exception.Bug(reason=f'manifest: {reason}')
    try:
        return _encode({**manifest, 'digest': _digest(manifest)})
    except ValueError as exc:    # JSON has no NaN, which the schema lets pass
        raise exception.Bug(reason=f'manifest: {exc}') from exc


def load(content: bytes, snapshot_id: str) -> dict:
    """The manifest in a file's content, proved to be what was written.

    :raises ManifestTooNew: a newer version of this software wrote it
    :raises ManifestDamaged: anything else that is wrong with it
    """
    def damaged(reason):
        return exception.ManifestDamaged(snapshot=snapshot_id, reason=reason)

    def no_constant(text):
        raise ValueError(f'{text} is no number')

    try:
        manifest = json.loads(content, parse_constant=no_constant)
    except (ValueError, RecursionError) as exc:
        raise damaged(f'not JSON ({exc})') from exc
    if not isinstance(manifest, dict):
        raise damaged('not an object')
    version = manifest.get('format_version')
    if isinstance(version, int) and not isinstance(version, bool) and version > FORMAT_VERSION:
        raise exception.ManifestTooNew(
            snapshot=snapshot_id, found=version, known=FORMAT_VERSION)
    digest = manifest.pop('digest', None)
    reason = fault(manifest)
    if reason:
        raise damaged(reason)
    if digest != _digest(manifest):
        raise damaged('its content does not have the digest it names')
    if manifest['snapshot_id'] != snapshot_id:
        raise damaged(f'it is that of snapshot {manifest["snapshot_id"]}')
    return manifest


def same(one: dict, other: dict) -> bool:
    """Whether both tell of the same snapshot, wherever its files are kept.

    What only one of them tells is another version's addition.
    """
    ones, others = one['members'], other['members']
    return len(ones) == len(others) and all(map(_agree, (one, *ones), (other, *others)))


def kept_members(manifest: dict) -> list[dict]:
    """The members whose files the store has that this manifest came from."""
    kept = manifest.get('kept_here', [member['id'] for member in manifest['members']])
    return [member for member in manifest['members'] if member['id'] in kept]


def _agree(one: dict, other: dict) -> bool:
    told_by_both = (one.keys() & other.keys()) - {'kept_here', 'members'}
    return all(one[key] == other[key] for key in told_by_both)


def _encode(manifest: dict) -> bytes:
    return json.dumps(manifest, indent=1, sort_keys=True, allow_nan=False).encode() + b'\n'


def _digest(manifest: dict) -> str:
    return blake3.blake3(_encode(manifest)).hexdigest()
