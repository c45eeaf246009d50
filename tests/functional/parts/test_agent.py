# SPDX-License-Identifier: Apache-2.0
"""What a guest's agent says, where it says something in time: libvirt's call to it replaced.

No guest of the lab has an agent; libvirt itself is its own test driver here.
"""

import json
import threading

import libvirt
import libvirt_qemu
import pytest

from hotsnap_nova.virt import guest


@pytest.fixture
def asked(monkeypatch):
    """A guest whose agent answers as told."""
    connection = libvirt.open('test:///default')

    def asked(answer):
        monkeypatch.setattr(libvirt_qemu, 'qemuAgentCommand',
                            lambda _domain, command, _timeout, _flags: answer(json.loads(command)))
        return guest.Guest(connection, 'test')
    yield asked
    connection.close()


def fails(_command):
    raise libvirt.libvirtError('Guest agent is not responding')


@pytest.mark.parametrize(('answer', 'frozen'), [
    (lambda _command: '{"return": "frozen"}', True),
    (lambda _command: '{"return": "thawed"}', False),
    (lambda _command: '{"error": {"desc": "disabled"}}', False),
    (lambda _command: 'no json', False),
    (fails, False)])
def test_file_systems_are_frozen_where_the_agent_says_so(asked, answer, frozen):
    commands = []

    found = asked(lambda command: commands.append(command) or answer(command)).frozen()

    assert found is frozen
    assert commands == [{'execute': 'guest-fsfreeze-status'}]


def test_an_agent_that_never_answers_holds_nobody_up(asked):
    hangs, ended = threading.Event(), threading.Event()

    def answer(_command):
        hangs.wait(60)
        ended.set()
        return '{"return": "frozen"}'
    found = asked(answer).frozen()

    assert found is False
    assert not ended.is_set()    # it was not waited for
    hangs.set()
    assert ended.wait(60)
