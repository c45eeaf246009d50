# SPDX-License-Identifier: Apache-2.0
"""The relay between a guest's QEMU and the storage daemon: it can always be cut."""

import contextlib
import os
import pathlib
import socket
import subprocess
import tempfile

import pytest

from hotsnap_nova.virt.disks import relay as relay_module
from hotsnap_nova.virt.disks import targets

GREETING = b'hello from the daemon'


@pytest.fixture
def relay():
    made = relay_module.Relay()
    yield made
    made.close()


@pytest.fixture
def linked(relay):
    """(relay, QEMU's end, the daemon's end)"""
    ours, daemon = socket.socketpair()
    qemu = relay.add('vda', ours, GREETING)
    relay.negotiated('vda')
    for end in (qemu, daemon):
        end.settimeout(10)
    assert qemu.recv(100) == GREETING
    yield relay, qemu, daemon
    qemu.close()
    daemon.close()


def receive(end, count):
    data = b''
    while len(data) < count:
        data += end.recv(count - len(data))
    return data


def test_bytes_pass_both_ways_unchanged(linked):
    _relay, qemu, daemon = linked
    request, answer = os.urandom(100_000), os.urandom(100_000)

    qemu.sendall(request[:50_000])
    assert receive(daemon, 50_000) == request[:50_000]
    daemon.sendall(answer)
    assert receive(qemu, 100_000) == answer
    qemu.sendall(request[50_000:])

    assert receive(daemon, 50_000) == request[50_000:]


def test_closing_cuts_qemu_off_even_while_the_daemon_reads_nothing(linked):
    relay, qemu, _daemon = linked
    qemu.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            qemu.send(bytes(65536))

    relay.close()

    qemu.settimeout(10)
    with pytest.raises(ConnectionError):
        qemu.sendall(bytes(65536))


def test_a_daemon_that_does_not_answer_is_given_up_with_a_reason(linked, monkeypatch):
    relay, qemu, _daemon = linked
    monkeypatch.setattr(relay_module, 'HANG_LIMIT_S', 0.3)
    relay.negotiated('vda')

    qemu.sendall(b'write this')

    assert qemu.recv(1) == b''
    assert 'no answer' in relay.failure('vda')


def test_a_daemon_that_owes_no_answer_may_be_silent(linked, monkeypatch):
    relay, qemu, daemon = linked
    monkeypatch.setattr(relay_module, 'HANG_LIMIT_S', 0.3)
    relay.negotiated('vda')
    qemu.sendall(b'ask')
    assert receive(daemon, 3) == b'ask'
    daemon.sendall(b'ok')
    assert receive(qemu, 2) == b'ok'

    qemu.settimeout(1.5)
    with pytest.raises(TimeoutError):
        qemu.recv(1)

    assert relay.failure('vda') is None


def test_the_end_of_a_daemon_ends_its_link_and_no_other(linked):
    relay, qemu, daemon = linked
    other_ours, other_daemon = socket.socketpair()
    other_qemu = relay.add('vdb', other_ours, GREETING)
    relay.negotiated('vdb')
    other_qemu.settimeout(10)
    assert other_qemu.recv(100) == GREETING

    daemon.close()

    assert qemu.recv(1) == b''
    other_daemon.sendall(b'still here')
    assert receive(other_qemu, 10) == b'still here'
    other_qemu.close()
    other_daemon.close()


def test_closing_twice_touches_nobody_elses_descriptor(tmp_path):
    relay = relay_module.Relay()
    before = set(os.listdir('/proc/self/fd'))
    relay.close()
    freed = before - set(os.listdir('/proc/self/fd'))
    files = [os.open(tmp_path / f'file-{index}', os.O_RDWR | os.O_CREAT)
             for index in range(len(freed))]

    relay.close()

    assert files
    for file in files:
        assert os.fstat(file).st_size == 0
        os.close(file)


def test_a_storage_daemon_that_dies_at_start_is_named_and_nobody_waits(tmp_path, monkeypatch):
    path = str(tmp_path / 'vda.qcow2')
    daemon = targets.StorageDaemon({'vda': (path, 1 << 20)})
    daemon.close()

    with pytest.raises(OSError, match='storage daemon|refused|descriptor'):
        daemon.connect()


@pytest.mark.parametrize('direct', [False, True])
def test_a_storage_daemon_leaves_a_sound_image(tmp_path, direct):
    path = str(tmp_path / 'vda.qcow2')
    daemon = targets.StorageDaemon({'vda': (path, 1 << 20)}, direct=direct)

    connection, greeting = daemon.connect()
    process = pathlib.Path(f'/proc/{daemon.pid}')
    flags = [int((process / 'fdinfo' / fd.name).read_text().split()[3], 8)
             for fd in (process / 'fd').iterdir() if os.path.realpath(fd) == path]
    assert [bool(each & os.O_DIRECT) for each in flags] == [direct] * len(flags) != []
    connection.close()

    assert greeting.startswith(b'NBDMAGIC')
    assert daemon.close()
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_what_a_process_left_that_died_while_it_connected_is_swept(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    with subprocess.Popen(['true']) as dead:
        pass
    left, live = (tmp_path / f'hotsnap-nbd-{pid}-x' for pid in (dead.pid, os.getpid()))
    for folder in (left, live):
        folder.mkdir()
        (folder / 'nbd').touch()

    targets.StorageDaemon({'vda': (str(tmp_path / 'vda.qcow2'), 1 << 20)}).close()

    assert [path.name for path in tmp_path.glob('hotsnap-*')] == [live.name]
