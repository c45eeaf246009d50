# SPDX-License-Identifier: Apache-2.0
"""A member of a snapshot for plain ``virsh restore --xml``."""

import os
import subprocess

import zstandard

from hotsnap_nova import exception
from hotsnap_nova.virt.memory import saveimage
from hotsnap_nova.virt.restore import replacement


def export(folder: str, facts: dict, destination: str) -> dict:
    """Copies of its disks, its memory and an XML in ``destination``.

    They share nothing with the archive, whose files nobody but its owner may read, QEMU's user
    least of all; where the file system can, they share its blocks.

    :param destination: a folder that nobody else writes to, and nothing of this member is in
    :returns: paths: ``xml``, ``memory``, and one ``disk-<target>`` each
    :raises TargetFailed: something of it could not be written
    """
    member = facts['name']
    if '/' in member or member in ('.', '..'):
        raise exception.InvalidValue(
            name='member', reason=f'{member!r} cannot be the name of a file')
    try:
        return _export(folder, facts, f'{destination}/{member}')
    except OSError as exc:
        raise exception.TargetFailed(
            member=member, device=exc.filename or destination, reason=exc.strerror) from exc


def _export(folder, facts, begins):
    paths, sources = {}, {}
    for disk in facts['disks']:
        target = disk['target']
        path = paths[f'disk-{target}'] = f'{begins}-{target}.qcow2'
        replacement.require_alone(facts['name'], target, f'{folder}/{disk["file"]}')
        _copy(facts['name'], f'{folder}/{disk["file"]}', path)
        sources[target] = (path, 'qcow2')
    paths['memory'] = f'{begins}.save'
    packed = f'{folder}/memory.save.zst'
    if os.path.exists(packed):
        _unpack(packed, paths['memory'])
    else:
        _copy(facts['name'], f'{folder}/memory.save', paths['memory'])
    with open(f'{folder}/domain.xml') as archive:
        xml = saveimage.with_sources(archive.read(), sources)
    paths['xml'] = f'{begins}.xml'
    with _new(paths['xml'], 'w') as file:
        file.write(xml)
    return paths


def _copy(member, source, path):
    with _new(path, 'wb'):
        pass
    done = subprocess.run(
        ['cp', '--reflink=auto', '--sparse=always', '--', source, path],
        capture_output=True, text=True, check=False)
    if done.returncode:
        raise exception.TargetFailed(member=member, device=path, reason=_last(done.stderr))


def _last(words):
    return words.strip().splitlines()[-1] if words.strip() else 'cp failed'


def _unpack(packed, path):
    with open(packed, 'rb') as source, _new(path, 'wb') as plain:
        zstandard.ZstdDecompressor().copy_stream(source, plain)


def _new(path, mode):
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), mode)
