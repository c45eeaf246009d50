# SPDX-License-Identifier: Apache-2.0
"""Makes abc6900/: what that commit leaves on disk in each unfinished state.

::

    .venv/core/bin/python -m tests.unit.upgrade.make [STATE…]

in a checkout that has the commit in its history. The commit's own hotsnap_nova and tests.fakes
are what runs, in a folder for the time: `unfinished` has a function for each state. Each is made
by a process of its own, which is killed there; what is then in its folder is packed (`states`).
"""

import json
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

from tests.unit.upgrade import states

HERE = pathlib.Path(__file__).parent
COMMIT = 'abc6900'
_TIMEOUT_S = 120


def main(wanted: list[str]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        code = _checkout(pathlib.Path(scratch, 'code').resolve())
        found = json.loads(_run(code).stdout)
        for name in wanted or found:
            _make(code, name, found[name], pathlib.Path(scratch, name).resolve())
            print(name)


def _checkout(code: pathlib.Path) -> pathlib.Path:
    """The commit's files, and these beside its unit tests."""
    code.mkdir()
    archive = subprocess.run(['git', 'archive', COMMIT], cwd=HERE.parents[2], check=True,
                             stdout=subprocess.PIPE).stdout
    subprocess.run(['tar', '-x'], cwd=code, check=True, input=archive)
    shutil.copytree(HERE, code / 'tests/unit/upgrade', dirs_exist_ok=True)
    return code


def _make(code, name, on, place):
    for folder in ('below', 'made', 'unpacked'):
        (place / folder).mkdir(mode=0o700, parents=True)
    if on:
        states.unpack(HERE / COMMIT, on, place / 'below')
        states.unpack(HERE / COMMIT, on, place / 'made')
    ended = _run(code, name, str(place / 'made'))
    if ended.returncode != -signal.SIGKILL:
        raise SystemExit(f'{name}: {ended.stderr}')
    (HERE / COMMIT / f'{name}.txt').write_text(
        states.pack(place / 'made', place / 'below' if on else None, on))
    states.unpack(HERE / COMMIT, name, place / 'unpacked')
    assert states.are_same(place / 'made', place / 'unpacked')


def _run(code, *args):
    return subprocess.run([sys.executable, '-m', 'tests.unit.upgrade.unfinished', *args],
                          cwd=code, capture_output=True, text=True, timeout=_TIMEOUT_S)


if __name__ == '__main__':
    main(sys.argv[1:])
