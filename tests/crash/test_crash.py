# SPDX-License-Identifier: Apache-2.0
"""One case of each fault in snapshots and in restores; all of them: ``make test-crash``.

HOTSNAP_SEED draws others.
"""

import os
import pathlib

import pytest

from tests.crash import run, steps

pytestmark = pytest.mark.timeout(1200)
_SEED = os.environ.get('HOTSNAP_SEED', 'hotsnap')


@pytest.fixture(scope='module')
def running():
    with run.Run(pathlib.Path('results') / 'crash-evidence') as made:
        yield made


@pytest.fixture(scope='module')
def every_case(running):
    return running.all_cases()


def test_plots_meet_every_command_of_the_machines(running, every_case):
    assert running.site.kinds_met() == steps.KINDS


def test_whatever_dies_at_a_step_the_group_is_whole_or_as_before(running, every_case):
    wrong = []
    for case in run.of_each_fault(every_case, _SEED):
        result = running.run(case)
        print(result)
        if result.wrong:
            wrong.append(str(result))

    assert wrong == []
