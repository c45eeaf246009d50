# SPDX-License-Identifier: Apache-2.0
"""Small snapshots to store: some files of two members, and their manifest."""

import os
import pathlib

import blake3

SNAPSHOT = '5b9c1d44-0f0e-4f2e-9a51-0a4a6a5b2c11'

CONTENT = {
    'alpha': {'memory.save': b'LibvirtQemudSave' + bytes(range(256)) * 40,
              'vda.qcow2': b'QFI\xfb' + bytes(70_000) + b'end', 'domain.xml': b'<domain/>'},
    'beta': {'memory.save': b'beta' * 5000, 'vda.qcow2': bytes(8192), 'domain.xml': b''},
}


def fill(folder, member):
    """Write a member's files as the engine does; the folder becomes private later."""
    place = pathlib.Path(folder, member)
    place.mkdir()
    for name, content in CONTENT[member].items():
        (place / name).write_bytes(content)
        os.chmod(place / name, 0o644)


def member(name, host='host-a'):
    return {
        'id': name, 'name': f'guest {name}', 'host': host, 'machine': 'pc-i440fx-10.0',
        'cpu': 'qemu64', 'qemu_version': '10.0.2', 'memory_bytes': 128 << 20,
        'cut_wall_ns': 1_700_000_000_000_000_000, 'pause_ms': 12.5, 'wait_ms': 0, 'hold_ms': 31.25,
        'packets': {'held': 7, 'marked': 0, 'late': 0},
        'disks': [{'target': 'vda', 'file': 'vda.qcow2', 'format': 'qcow2'}],
        'files': [{'name': file, 'size_bytes': len(content),
                   'blake3': blake3.blake3(content).hexdigest()}
                  for file, content in CONTENT[name].items()],
    }


def manifest(snapshot_id=SNAPSHOT, hosts=('host-a', 'host-a'), **changes):
    """A manifest of alpha and beta, on the hosts given."""
    return {
        'format_version': 1, 'snapshot_id': snapshot_id, 'name': 'monday', 'epoch': 3,
        'group': {'id': 'g1', 'name': 'shop'}, 'gate': 'hold', 'skew_ms': 4.25,
        'created_at': '2025-03-01T12:00:00Z',
        'members': [member('alpha', hosts[0]), member('beta', hosts[1])],
        **changes,
    }


def publish(store, snapshot_id=SNAPSHOT):
    """Take a whole snapshot through a store; its manifest."""
    folder = store.begin(snapshot_id, 'host-a')
    fill(folder, 'alpha')
    fill(folder, 'beta')
    told = manifest(snapshot_id)
    store.publish(snapshot_id, told)
    return told
