# SPDX-License-Identifier: Apache-2.0
"""What a storage daemon could do to its host if a guest made it its own: little."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from hotsnap_nova.virt.disks import confined, targets


@pytest.fixture
def shell(tmp_path):
    """Run a script of bash's own words in its place; (its output, what it said).

    It may use ``tmp_path/own``; ``tmp_path/other`` is another's.
    """
    for name in ('own', 'other'):
        (tmp_path / name).write_text(f'{name}\n')

    def run(script, **more):
        done = subprocess.run(
            [sys.executable, '-I', '-S', confined.__file__,
             json.dumps({'tell': False, 'files': [str(tmp_path / 'own')]} | more),
             'bash', '--norc', '-c', script],
            cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
        return done.stdout, done.stderr
    return run


def test_its_own_file_is_all_that_it_reads_and_writes(shell, tmp_path):
    out, said = shell('''
        read -r line <own && echo "$line"
        echo changed >own
        read -r line <other && echo "$line"
        read -r line </etc/passwd && echo "$line"
        echo changed >other
        echo new >new
    ''')

    assert out == 'own\n'
    assert said.count('Permission denied') == 4, said
    assert (tmp_path / 'own').read_text() == 'changed\n'
    assert (tmp_path / 'other').read_text() == 'other\n'
    assert not (tmp_path / 'new').exists()


def test_it_starts_no_process_and_sends_no_signal(shell):
    with subprocess.Popen(['sleep', '60']) as victim:
        out, said = shell(f'kill -9 {victim.pid} || echo spared; echo $(echo born)')

        assert victim.poll() is None
        victim.kill()
    assert 'born' not in out
    assert out == 'spared\n'
    assert 'fork' in said


def test_it_opens_no_connection(shell):
    with socket.create_server(('127.0.0.1', 0)) as server:
        server.settimeout(0.2)
        port = server.getsockname()[1]

        out, said = shell(f'exec 3<>/dev/tcp/127.0.0.1/{port} && echo connected')

        with pytest.raises(TimeoutError):
            server.accept()
    assert out == ''
    assert 'not permitted' in said


def test_a_daemon_keeps_nothing_of_roots_powers_but_the_way_to_its_files(tmp_path):
    daemon = targets.StorageDaemon({'vda': (str(tmp_path / 'vda.qcow2'), 1 << 20)})
    connection, _greeting = daemon.connect()
    with open(f'/proc/{daemon.pid}/status') as status:
        told = dict(line.rstrip('\n').split(':\t', 1) for line in status if ':\t' in line)
    connection.close()
    daemon.close()

    assert (told['NoNewPrivs'], told['Seccomp']) == ('1', '2')
    assert int(told['CapBnd'], 16) | int(told['CapEff'], 16) <= (
        1 << confined._DAC_OVERRIDE | 1 << confined._DAC_READ_SEARCH)


def test_who_it_is_is_told_before_anything_else(shell):
    out, _said = shell('echo of the daemon', tell=True)

    assert list(json.loads(out)) == ['daemon']


def test_what_is_not_installed_is_named(tmp_path):
    done = subprocess.run([sys.executable, '-I', '-S', confined.__file__,
                           '{"tell": false, "files": []}', 'no-such-daemon'],
                          capture_output=True, text=True, check=False)

    assert done.stderr.splitlines()[-1].endswith("No such file or directory: 'no-such-daemon'")
    assert done.returncode not in (0, -signal.SIGKILL)
    assert os.listdir(tmp_path) == []
