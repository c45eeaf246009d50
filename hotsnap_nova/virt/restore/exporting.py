# SPDX-License-Identifier: Apache-2.0
"""A member of a snapshot for plain ``virsh restore --xml``."""

import os
import subprocess

import zstandard

from hotsnap_nova import exception
from hotsnap_nova.virt.memory import saveimage


def export(folder: str, facts: dict, destination: str) -> dict:
    """Overlays and an XML in ``destination``.

    The archive's own files are only read; the overlays need it as long as
    they are used.

    :returns: paths: ``xml``, ``memory``, and one ``disk-<target>`` each
    """
    os.makedirs(destination, mode=0o700, exist_ok=True)
    paths = {}
    sources = {}
    for disk in facts['disks']:
        path = f'{destination}/{facts["name"]}-{disk["target"]}.qcow2'
        _overlay(facts['name'], f'{folder}/{disk["file"]}', path)
        paths[f'disk-{disk["target"]}'] = path
        sources[disk['target']] = (path, 'qcow2')
    packed = f'{folder}/memory.save.zst'
    if os.path.exists(packed):
        paths['memory'] = f'{destination}/{facts["name"]}.save'
        _unpack(packed, paths['memory'])
    else:
        paths['memory'] = f'{folder}/memory.save'
    with open(f'{folder}/domain.xml') as archive:
        xml = saveimage.with_sources(archive.read(), sources)
    paths['xml'] = f'{destination}/{facts["name"]}.xml'
    with open(os.open(paths['xml'], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 'w') as file:
        file.write(xml)
    return paths


def _overlay(member, base, path):
    """A qcow2 at ``path`` that begins as ``base`` and leaves it alone."""
    made = subprocess.run(
        ['qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', os.path.abspath(base),
         path], capture_output=True, text=True, check=False, umask=0o077)
    if made.returncode:
        raise exception.TargetFailed(
            member=member, device=path,
            reason=made.stderr.strip().splitlines()[-1] if made.stderr else 'qemu-img failed')


def _unpack(packed, path):
    with open(packed, 'rb') as source, \
            open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), 'wb') as plain:
        zstandard.ZstdDecompressor().copy_stream(source, plain)
