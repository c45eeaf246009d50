# SPDX-License-Identifier: Apache-2.0
"""Whatever a user types or finds broken: one line that says so, and nothing changed."""

import os
import signal

import pytest

from tests.functional.command import stands_still, until
from tests.functional.witness import Witness


@pytest.fixture
def archive(user, pair):
    """The folder of a good snapshot, ``good``, of the pair."""
    made = user.create('good', pair, '-f', 'json')
    assert made.status == 0, made.errors
    return user.store / made.json['id']


def assert_refused(outcome, *words):
    """It failed, and in one line that has these words."""
    assert outcome.status not in (0, 130)
    assert outcome.output == ''
    assert outcome.errors.count('\n') == 1, outcome.errors
    for word in words:
        assert word in outcome.errors


def test_requests_that_make_no_sense_change_nothing(user, engine, pair):
    one, two = (guest.domain_name for guest in pair)
    witness = Witness(pair)

    def create(*words):
        return user.run('snapshot', 'create', 'bad', '--wait', *words)

    assert_refused(create(), 'no members')
    assert_refused(create('--domain', 'nobody'), 'nobody')
    assert_refused(create('--domain', one, '--domain', one), one, 'more than once')
    assert_refused(create('--domain', one, '--domain', pair[0].uuid), 'more than once')
    for silly in (('--max-pause-ms', '0'), ('--max-hold-ms', '-5'), ('--deadline-s', '-1'),
                  ('--gate', 'sieve'), ('--gate', 'none')):
        assert_refused(create('--domain', one, '--domain', two, *silly))
    assert user.run('snapshot', 'list', '-f', 'json').json == []
    assert witness.left() == []
    assert engine.survey() == ()
    assert user.drafts() == []
    assert witness.errors() == []


def test_a_stopped_domain_is_refused_by_name(user, engine, shared_lab, pair):
    name = f'{shared_lab.id}-stopped'
    xml = pair[0].domain.XMLDesc().replace(pair[0].domain_name, name)
    tree = xml.replace(pair[0].uuid, '').replace('<uuid></uuid>', '')
    shared_lab.connection.defineXML(tree)

    outcome = user.create('bad', pair, '--domain', name)

    assert_refused(outcome, name, 'not running')
    assert engine.survey() == ()
    assert user.drafts() == []
    shared_lab.connection.lookupByName(name).undefine()


@pytest.mark.parametrize(('file', 'word'), [
    ('manifest.json', 'manifest'), ('{member}/memory.save', 'memory.save'),
    ('{member}/vda.qcow2', 'vda.qcow2')])
def test_damage_is_found_before_anything_is_stopped(file, word, user, archive, pair):
    pids = [guest.pid for guest in pair]
    witness = Witness(pair)
    images = sorted(path.name for path in pair[0].folder.iterdir())
    path = archive / file.format(member=pair[1].uuid)
    with open(path, 'r+b') as damaged:
        damaged.seek(path.stat().st_size // 2)
        byte = damaged.read(1)
        damaged.seek(-1, os.SEEK_CUR)
        damaged.write(bytes([byte[0] ^ 1]))

    assert_refused(user.run('snapshot', 'restore', 'good'), word)

    assert [guest.pid for guest in pair] == pids
    assert witness.left() == []
    assert sorted(path.name for path in pair[0].folder.iterdir()) == images
    assert_refused(user.run('snapshot', 'verify', 'good'), word)
    assert witness.errors() == []


def test_a_name_that_is_taken_is_refused_and_the_first_keeps_it(user, archive, pair):
    outcome = user.create('good', pair)

    assert_refused(outcome, 'good', 'exists already')
    assert user.run('snapshot', 'verify', 'good').status == 0
    assert user.drafts() == []


def test_ctrl_c_in_save_leaves_nothing_and_says_so(user, engine, pair):
    witness = Witness(pair)

    with user.start(*user.creating('unwanted', pair),
                    program=('tests.functional.dying', 'saving', 'SIGSTOP')) as running:
        assert until(lambda: stands_still(running.pid))
        running.send_signal(signal.SIGINT)
        running.send_signal(signal.SIGCONT)
        output, errors = running.communicate(timeout=60)

    assert running.returncode == 130, errors
    assert output == ''
    assert errors.count('\n') == 1
    assert user.drafts() == []
    assert user.journal() == []
    assert engine.survey() == ()
    assert witness.left() == []
    assert until(lambda: not user.processes())
    assert witness.harmed() == []
