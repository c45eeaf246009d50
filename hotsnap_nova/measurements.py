# SPDX-License-Identifier: Apache-2.0
"""What all hosts' answers say of a snapshot, member by member.

The manifest, the database and what ``show`` prints are made from this one
reading of the answers.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping

from hotsnap_nova.protocol import messages


def by_member(answers: Iterable[messages.Answer]) -> dict[str, dict]:
    """Everything measured, by member id; what has not happened yet is missing.

    Keys: ``host``, ``facts``, ``cut_ns``, ``cut_wall_ns``, ``pause_ms``,
    ``parts_ms``, ``asked_by_mark``, ``hold_ms``, ``wait_ms``, ``packets``
    (``held``, ``marked``, ``late``), ``carried_by``, ``saved``.
    """
    found: dict[str, dict] = {}

    def member(host, member_id):
        return found.setdefault(member_id, {'host': host})

    for answer in answers:
        match answer:
            case messages.Prepared() | messages.Saved():
                key = 'facts' if isinstance(answer, messages.Prepared) else 'saved'
                for each in json.loads(answer.detail).get('members', ()):
                    member(answer.host, each['member'])[key] = each
            case messages.Recorded():
                for cut in answer.cuts:
                    detail = json.loads(cut.detail)
                    member(answer.host, cut.member).update(
                        cut_ns=cut.cut_ns, pause_ms=cut.pause_ms,
                        cut_wall_ns=detail.get('cut_wall_ns', 0),
                        parts_ms=detail.get('parts_ms', {}),
                        asked_by_mark=detail.get('asked_by_mark', False))
            case messages.Released():
                for release in answer.releases:
                    detail = json.loads(release.detail)
                    member(answer.host, release.member).update(
                        hold_ms=release.hold_ms, wait_ms=release.wait_ms,
                        carried_by=detail.get('carried_by', ''),
                        packets={'held': release.packets_held,
                                 'marked': detail.get('marked', 0),
                                 'late': detail.get('late', 0)})
    return found


def skew_ms(members: dict[str, dict]) -> float | None:
    """First cut to last; None before all are cut.

    Within a host by its monotonic clock, between hosts by their wall clocks,
    which are as far apart as NTP leaves them.
    """
    if not members or any('cut_ns' not in each for each in members.values()):
        return None
    one_host = len({each['host'] for each in members.values()}) == 1
    cuts = [each['cut_ns' if one_host else 'cut_wall_ns'] for each in members.values()]
    return (max(cuts) - min(cuts)) / 1e6


#: Of `proof`; what it is of may come to be more.
PROOF_VERSION = '1'
_PROVED = ('name', 'machine', 'qemu_version', 'libvirt_version', 'vcpus', 'memory_bytes')


def proof(facts: Mapping, files: Iterable[Mapping]) -> str:
    """A digest of all that a restore goes by in what is told of a member: its facts, its files.

    The same of what hosts answered, as the coordinator has kept it, and of what the manifest in
    a store says of it: who writes there can write a manifest, too, and its digest.

    :param files: with name, size_bytes and digest, or blake3 as in a manifest
    """
    told = {key: facts.get(key) for key in _PROVED} | {
        'cpu': facts.get('cpu') or '', 'host_cpu': facts.get('host_cpu') or {},
        'media': facts.get('media') or [],
        'disks': [{key: value for key, value in disk.items() if key != 'virtual_bytes'}
                  for disk in facts.get('disks', ())],
        'files': sorted((file['name'], file['size_bytes'],
                         file['blake3'] if 'blake3' in file else file['digest'])
                        for file in files)}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    return f'{PROOF_VERSION}:{digest}'
