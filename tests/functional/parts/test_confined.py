# SPDX-License-Identifier: Apache-2.0
"""What a storage daemon could do to its host if a guest made it its own: little."""

import ctypes
import errno
import json
import os
import shutil
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

    def run(script, *, by=('bash', '--norc'), under=(), before=None, **more):
        done = subprocess.run(
            [*under, sys.executable, '-I', '-S', confined.__file__,
             json.dumps({'tell': False, 'files': [str(tmp_path / 'own')]} | more),
             *by, '-c', script],
            cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False,
            preexec_fn=before)
        return done.stdout, done.stderr
    return run


PYTHON = (os.path.realpath(sys.executable), '-I', '-S')
#: Each prints the error that it meets.
ATTEMPTS = """
import ctypes, os, resource
libc = ctypes.CDLL(None, use_errno=True)
def syscall(*arguments):
    if libc.syscall(*arguments) < 0:
        raise OSError(ctypes.get_errno(), '')
own = os.open('own', os.O_RDWR)
for attempt in (
        lambda: os.chmod('other', 0o777), lambda: os.fchmod(own, 0o777),
        lambda: os.chown('other', 1, 1), lambda: os.fchown(own, 1, 1),
        lambda: os.lchown('other', 1, 1), lambda: os.utime('other'), lambda: os.utime(own),
        lambda: os.setxattr('other', 'user.a', b'a'), lambda: os.removexattr('other', 'user.a'),
        lambda: os.truncate('own', 0), lambda: syscall(251, 1, 0, 0),
        lambda: syscall(452, -100, b'other', 0o777, 0), lambda: syscall(469, -100, b'', 0, 0, 0),
        lambda: resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE)):
    try:
        attempt()
        print('done')
    except OSError as exc:
        print(exc.errno)
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 0, os.ftruncate(own, 1))
"""


def test_it_changes_nothing_about_files_though_they_are_roots_nor_about_other_processes(
        shell, tmp_path):
    before = os.stat(tmp_path / 'other')

    out, said = shell(ATTEMPTS, by=PYTHON)

    assert out == f'{errno.EPERM}\n' * 14 + 'True None\n', said
    assert os.stat(tmp_path / 'other') == before


def test_capabilities_that_are_handed_on_are_given_up_too(shell):
    out, said = shell('while read -r line; do echo "$line"; done </proc/self/status', under=(
        'setpriv', '--inh-caps', '-all,+net_raw', '--ambient-caps', '+net_raw', '--'))

    told = dict(line.split(':\t', 1) for line in out.splitlines() if ':\t' in line)
    assert (int(told['CapAmb'], 16), int(told['CapInh'], 16)) == (0, 0), said
    assert int(told['CapEff'], 16) <= (
        1 << confined._DAC_OVERRIDE | 1 << confined._DAC_READ_SEARCH)


#: As on a kernel that has them not: name, and the first argument where that matters.
LANDLOCK, SECCOMP = (('landlock_create_ruleset',),), (('seccomp',), ('prctl', 22))


def lacking(*calls):
    """What has a process live without these calls."""
    def begin():
        seccomp = ctypes.CDLL('libseccomp.so.2')
        seccomp.seccomp_init.restype = ctypes.c_void_p
        rules = ctypes.c_void_p(seccomp.seccomp_init(ctypes.c_uint32(confined._ALLOW)))
        for name, *first in calls:
            compared = [confined._Argument(0, 4, value, 0) for value in first]    # 4: is equal
            assert not seccomp.seccomp_rule_add_array(
                rules, ctypes.c_uint32(confined._ERRNO | errno.EINVAL),
                seccomp.seccomp_syscall_resolve_name(name.encode()), len(compared),
                (confined._Argument * len(compared))(*compared))
        assert not seccomp.seccomp_load(rules)
    return begin


@pytest.mark.parametrize(('calls', 'without', 'other', 'sent'), [
    (LANDLOCK, ['Landlock'], 'other\n', 'spared\n'), (SECCOMP, ['seccomp'], '', 'sent\n'),
    (LANDLOCK + SECCOMP, ['Landlock', 'seccomp'], 'other\n', 'sent\n')])
def test_where_a_kernel_lacks_one_the_others_hold_and_it_is_said(
        shell, calls, without, other, sent):
    out, said = shell('read -r line <other && echo "$line"\n'
                      'kill -0 $$ && echo sent || echo spared', before=lacking(*calls))

    assert out == other + sent
    assert [line.split(':')[0] for line in said.splitlines()
            if line.startswith(confined.WITHOUT)] == [confined.WITHOUT + each for each in without]


def test_what_a_host_lacks_is_logged_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(targets, '_CONFINED', (
        sys.executable, '-c', 'import os, sys; os.write(2, b"confined without Landlock: no\\n"); '
        'os.execvp(sys.argv[2], sys.argv[2:])'))
    monkeypatch.setattr(targets, '_said', set())

    for name in ('one', 'two'):
        daemon = targets.StorageDaemon({'vda': (str(tmp_path / name), 1 << 20)})
        connection, _greeting = daemon.connect()
        connection.close()
        daemon.close()

    (logged,) = caplog.records
    assert 'confined without Landlock: no' in logged.getMessage()


@pytest.mark.parametrize('folder', ['bin', 'built'])
def test_a_program_that_is_not_where_the_systems_are_can_be_started(shell, tmp_path, folder):
    (tmp_path / folder).mkdir()
    (tmp_path / 'lib').mkdir()
    (tmp_path / 'lib/part').write_text('of it\n')
    program = shutil.copy(shutil.which('bash'), tmp_path / folder)
    (tmp_path / 'link').symlink_to(program)

    out, said = shell('echo started; read -r line <lib/part && echo "$line"',
                      by=(str(tmp_path / 'link'), '--norc'))

    assert out == ('started\nof it\n' if folder == 'bin' else 'started\n'), said


def test_a_program_that_cannot_be_started_is_named(shell, tmp_path):
    (tmp_path / 'no-program').write_text('')
    (tmp_path / 'no-program').chmod(0o755)

    _out, said = shell('', by=(str(tmp_path / 'no-program'),))

    assert said.splitlines()[-1].endswith(f"Exec format error: '{tmp_path}/no-program'")


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
    words = daemon._words()
    with open(f'/proc/{daemon.pid}/status') as status:
        told = dict(line.rstrip('\n').split(':\t', 1) for line in status if ':\t' in line)
    connection.close()
    daemon.close()

    assert words == []
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
