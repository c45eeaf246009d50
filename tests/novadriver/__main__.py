# SPDX-License-Identifier: Apache-2.0
"""Run Nova's unit tests of its libvirt driver against ours.

What fails is run again with the stock driver: what fails there, too, is this
machine's or Nova's. Tests of EXCLUDED are not run.
"""

import os
import re
import subprocess
import sys
import sysconfig

TESTS = 'nova/tests/unit/virt/libvirt'
FILES = ('test_driver.py', 'test_vif.py')
#: At most ten, by name, and why each means the stock class itself.
EXCLUDED = {}


def run(driver, tests):
    """(exit status, names of tests that failed)."""
    site = sysconfig.get_path('purelib')
    command = [sys.executable, '-m', 'pytest', '-c', os.devnull, '--rootdir', site,
               '-p', 'no:cacheprovider', '-p', 'tests.novadriver.plugin', '-W', 'ignore',
               '-q', '--tb', 'short', '-rfE', '-n', '2']
    for name in EXCLUDED:
        command += ['--deselect', name]
    done = subprocess.Popen(
        [*command, *(f'{site}/{test}' for test in tests)], text=True, stdout=subprocess.PIPE,
        env=os.environ | {'HOTSNAP_DRIVER': driver, 'PYTHONPATH': os.getcwd()})
    failed = []
    for line in done.stdout:
        print(line, end='', flush=True)
        if found := re.match(r'(?:FAILED|ERROR) (\S+)', line):
            failed.append(f'{TESTS}/{found[1].rpartition("/")[2]}')
    return done.wait(), failed


def main():
    assert len(EXCLUDED) <= 10, 'too many tests are excluded'
    for name, reason in EXCLUDED.items():
        print(f'excluded: {name}: {reason}')
    status, failed = run('ours', [f'{TESTS}/{name}' for name in FILES])
    if not failed:
        return status
    print(f'\n{len(failed)} failed; again with the stock driver:')
    _, stock = run('stock', failed)
    ours = sorted(set(failed) - set(stock))
    for name in ours:
        print(f'fails with our driver alone: {name}')
    return 1 if ours else 0


if __name__ == '__main__':
    sys.exit(main())
