# SPDX-License-Identifier: Apache-2.0
import copy
import json

import pytest

from hotsnap_nova import exception
from hotsnap_nova.storage import manifest as manifests
from tests.unit.storage import samples
from tests.unit.storage.samples import SNAPSHOT


def changed(path, value):
    """A sample with one thing changed; ``path`` like ('members', 0, 'id')."""
    told = copy.deepcopy(samples.manifest())
    place = told
    for step in path[:-1]:
        place = place[step]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return told


def test_what_is_dumped_loads_the_same():
    told = samples.manifest(properties={'ticket': '17'}, description='before the upgrade')

    assert manifests.load(manifests.dump(told), SNAPSHOT) == told


@pytest.mark.parametrize(('path', 'value'), [
    (('skew_ms',), 7.5), (('members', 0, 'pause_ms'), 7.5), (('members', 0, 'files'), []),
    (('members', 1), ...),
], ids=str)
def test_manifests_that_contradict_each_other_are_of_two_snapshots(path, value):
    assert not manifests.same(samples.manifest(), changed(path, value))


@pytest.mark.parametrize('path', [('media',), ('members', 0, 'media'), ('kept_here',)], ids=str)
def test_what_only_one_manifest_tells_is_no_contradiction(path):
    assert manifests.same(samples.manifest(), changed(path, []))
    assert manifests.same(changed(path, []), samples.manifest())


def test_unknown_fields_are_kept():
    told = samples.manifest(weather='fine')
    told['members'][0]['parts_ms'] = {'stop': 1.5}

    assert manifests.load(manifests.dump(told), SNAPSHOT) == told


@pytest.mark.parametrize(('path', 'value'), [
    (('format_version',), 0), (('format_version',), '1'), (('format_version',), ...),
    (('snapshot_id',), '../x'), (('epoch',), 0), (('epoch',), 1.5), (('gate',), 'ajar'),
    (('skew_ms',), -1), (('created_at',), 'yesterday'), (('members',), []),
    (('group',), ...), (('members', 0, 'id'), '../../etc'), (('members', 0, 'id'), 'beta'),
    (('members', 0, 'host'), ...), (('members', 0, 'cpu'), None),
    (('members', 0, 'pause_ms'), '1'),
    (('members', 0, 'packets'), {'held': 1}), (('members', 0, 'files'), []),
    (('members', 0, 'files', 0, 'name'), '../passwd'),
    (('members', 0, 'files', 0, 'name'), '.ssh'),
    (('members', 0, 'files', 0, 'name'), 'domain.xml'),
    (('members', 0, 'files', 0, 'name'), 'memory.save\n'),
    (('members', 0, 'files', 0, 'size_bytes'), -1),
    (('members', 0, 'files', 0, 'blake3'), 'ff'),
    (('members', 0, 'disks', 0, 'file'), 'elsewhere'),
    (('kept_here',), ['nobody']),
], ids=str)
def test_an_invalid_manifest_is_neither_written_nor_read(path, value):
    told = changed(path, value)

    with pytest.raises(exception.Bug):
        manifests.dump(told)
    signed = manifests._encode({**told, 'digest': manifests._digest(told)})
    with pytest.raises(exception.ManifestDamaged):
        manifests.load(signed, SNAPSHOT)


@pytest.mark.parametrize('content', [
    b'', b'{', b'[]', b'7', b'null', b'\xff\xfe', b'{"format_version": true}', b'[' * 100_000,
    b'{"format_version": NaN}'], ids=lambda content: repr(content[:20]))
def test_rubbish_is_damage(content):
    with pytest.raises(exception.ManifestDamaged) as caught:
        manifests.load(content, SNAPSHOT)
    assert '\n' not in str(caught.value)


def test_a_newer_format_is_refused_by_its_number_whatever_else_it_holds():
    content = json.dumps({'format_version': 2, 'members': 'elsewhere'}).encode()

    with pytest.raises(exception.ManifestTooNew, match=r'version 2.*up to 1'):
        manifests.load(content, SNAPSHOT)


def test_a_manifest_of_another_snapshot_is_damage():
    with pytest.raises(exception.ManifestDamaged, match=SNAPSHOT):
        manifests.load(manifests.dump(samples.manifest()), 'another')


def test_a_number_json_does_not_have_is_our_bug():
    with pytest.raises(exception.Bug):
        manifests.dump(samples.manifest(skew_ms=float('nan')))


def test_manifests_differ_by_anything_but_where_files_are_kept():
    told = samples.manifest()

    assert manifests.same(told, {**told, 'kept_here': ['beta']})
    assert not manifests.same(told, {**told, 'skew_ms': 4.5})
