# SPDX-License-Identifier: Apache-2.0
"""The guardian's own life: who may end it, whose code it runs, and whom a hung QEMU keeps."""

import os
import pathlib
import signal
import socket
import time

import pytest

from hotsnap_nova.virt import guardian, outliving


@pytest.fixture
def watching(shared_lab):
    guard = guardian.Guardian(shared_lab.uri)
    guard.wait_ready()
    yield guard
    guard.close()


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signals_that_end_services_do_not_end_it(watching, number):
    os.kill(watching.pid, number)

    assert watching.alive()    # it answers what was asked after the signal


def test_it_runs_no_code_of_the_folder_a_command_was_typed_in(
        shared_lab, tmp_path, monkeypatch):
    (tmp_path / 'signal.py').write_text(
        f'import pathlib; pathlib.Path({str(tmp_path / "planted")!r}).touch()')
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))

    guard = guardian.Guardian(shared_lab.uri)
    try:
        guard.wait_ready()
        folder = os.readlink(f'/proc/{guard.pid}/cwd')
    finally:
        guard.close()

    assert not (tmp_path / 'planted').exists()
    assert folder == '/'


def test_where_systemd_runs_the_host_it_gets_a_scope_of_its_own(
        shared_lab, tmp_path, monkeypatch):
    """systemd cannot run here: what stands for it notes its words and runs the command."""
    runner = tmp_path / 'systemd-run'
    runner.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/words\n'
                      'while [ "$1" != -- ]; do shift; done; shift; exec "$@"\n')
    runner.chmod(0o700)
    monkeypatch.setenv('PATH', f'{tmp_path}:{os.environ["PATH"]}')
    real = os.path.isdir
    monkeypatch.setattr(os.path, 'isdir', lambda path: path == '/run/systemd/system' or real(path))
    outliving.scope.cache_clear()
    try:
        guard = guardian.Guardian(shared_lab.uri)
        guard.wait_ready()
        guard.close()
    finally:
        outliving.scope.cache_clear()

    probed, started = pathlib.Path(tmp_path / 'words').read_text().splitlines()
    assert probed.startswith('--scope ')
    assert probed.endswith('-- true')
    assert started.startswith('--scope ')
    assert started.endswith(f'hotsnap_nova.virt.guardian {shared_lab.uri}')


def test_one_hung_qemu_keeps_neither_the_guardian_nor_another_guest(shared_lab, pair):
    hung, other = pair
    guard = guardian.Guardian(shared_lab.uri)
    ours, _theirs = socket.socketpair()
    os.kill(hung.pid, signal.SIGSTOP)
    try:
        guard.wait_ready()
        for guest in (hung, other):    # whose leases are over: it acts at once, and again
            guard.arm(guest.domain.UUIDString(), (), time.monotonic_ns(), ours)
        ids = [guest.domain.UUIDString() for guest in pair]
        before = time.monotonic()
        while ids[1] not in guard.disarm((ids[1],)):
            assert time.monotonic() - before < 10
            guard.arm(ids[1], (), time.monotonic_ns(), ours)
        fired = guard.disarm(tuple(ids))
    finally:
        os.kill(hung.pid, signal.SIGCONT)
        guard.close()

    assert ids[0] in fired
