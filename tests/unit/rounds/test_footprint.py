# SPDX-License-Identifier: Apache-2.0
"""Weighing processes that start others."""

import subprocess
import sys

from tests.rounds import footprint

_MB = 60
_STARTS_OTHERS = f'''
import os, subprocess
held = os.urandom(1 << 20) * {_MB}
print(flush=True)
for _ in range(300):
    subprocess.run(['true'])
'''


def test_a_child_that_is_about_to_become_another_program_is_not_weighed_twice():
    weighed = []
    with subprocess.Popen([sys.executable, '-c', _STARTS_OTHERS],
                          stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        while process.poll() is None:
            weighed.append(footprint.tree_bytes(process.pid) >> 20)

    assert _MB < max(weighed) < 1.5 * _MB
