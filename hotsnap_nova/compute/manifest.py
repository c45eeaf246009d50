# SPDX-License-Identifier: Apache-2.0
"""The manifest of a snapshot, from what every host answered.

Each host makes it for itself from the same answers, so all make the same.
"""

import json

from hotsnap_nova import exception, measurements
from hotsnap_nova.protocol import commands
from hotsnap_nova.storage import manifest as manifests


def of_snapshot(command: commands.FinishMembers) -> dict:
    """The manifest as the store wants it.

    :raises Bug: an answer is missing, which the coordinator waits for
    """
    work = command.work
    options = json.loads(work.options)
    members = measurements.by_member(command.answers)
    try:
        made = {
            'format_version': manifests.FORMAT_VERSION,
            'snapshot_id': command.snapshot,
            'name': options.get('name', ''),
            'description': options.get('description', ''),
            'properties': options.get('properties', {}),
            'group': {'id': work.group, 'name': options.get('group_name', '')},
            'epoch': command.epoch,
            'gate': str(work.gate),
            'skew_ms': measurements.skew_ms(members),
            'created_at': options['created_at'],
            'members': [_member(key, each) for key, each in sorted(members.items())],
        }
    except KeyError as exc:
        raise exception.Bug(reason=f'no {exc} in the answers to {command.snapshot}') from exc
    return made


def _member(member_id, measured):
    facts, saved = measured['facts'], measured['saved']
    return {
        'id': member_id,
        'name': facts['name'],
        'host': measured['host'],
        'machine': facts['machine'],
        'cpu': facts['cpu'] or '',
        'host_cpu': facts.get('host_cpu', {}),
        'qemu_version': facts['qemu_version'],
        'libvirt_version': facts['libvirt_version'],
        'vcpus': facts['vcpus'],
        'memory_bytes': facts['memory_bytes'],
        'cut_wall_ns': measured['cut_wall_ns'],
        'pause_ms': measured['pause_ms'],
        'wait_ms': measured['wait_ms'],
        'hold_ms': measured['hold_ms'],
        'parts_ms': measured['parts_ms'],
        'carried_by': measured['carried_by'],
        'asked_by_mark': measured['asked_by_mark'],
        'packets': measured['packets'],
        'disks': [{**disk, 'virtual_bytes': disk.get('size_bytes', 0)}
                  for disk in facts['disks']],
        'media': facts.get('media', []),
        'files': [{'name': file['name'], 'size_bytes': file['size_bytes'],
                   'blake3': file['digest']} for file in saved['files']],
    }
