# SPDX-License-Identifier: Apache-2.0
"""Every case of a bed, in a program: its options, its report, its table.

The report is JSON, the table Markdown beside it; ``--publish`` has both in doc/. What a report
that is there already has is not run again, but what went wrong is. The order is drawn by the seed,
so that also a run that is ended early has each kind of fault at each step.
"""

import argparse
import dataclasses
import itertools
import json
import math
import pathlib
import shutil
import sys
import time

from tests.crash import jobs, run, table
from tests.crash.bed import Bed
from tests.rounds import dated, program

_DOC = pathlib.Path(__file__).parents[2] / 'doc'


def main(module: str, description: str, make: type[Bed], name: str, *errors) -> int:
    """Exit status of ``python -m module``.

    :param name: of the reports, and of the table in doc/
    :param errors: see `program.status`
    """
    parser = program.parser(module, f'{description}\n{__doc__}')
    parser.add_argument('--only', default='', help='cases with these words in them')
    parser.add_argument('--most', type=int, help='so many of them')
    parser.add_argument('--minutes', type=float, default=math.inf,
                        help='begin none after that')
    parser.add_argument('--jobs', type=int, default=1,
                        help='so many at once, each at a site of its own (%(default)s)')
    parser.add_argument('--seed', default='hotsnap', help='(%(default)s)')
    parser.add_argument('--publish', action='store_true', help=f'write doc/{name}.md')
    parser.add_argument('--output', type=pathlib.Path, default=dated.default_path(name),
                        help='the report (%(default)s)')
    arguments = parser.parse_args()
    command = ' '.join([f'python -m {module}', *sys.argv[1:]])
    return program.status(lambda: _run(arguments, command, make, name), *errors,
                          interrupted=f'what there is: {arguments.output}')


def _run(arguments: argparse.Namespace, command: str, make: type[Bed], name: str) -> bool:
    path = arguments.output
    evidence = path.with_name(f'{path.stem}-evidence')
    with jobs.Jobs(arguments.jobs, evidence, make) as at_work:
        made = at_work.ask('setting', command, arguments.seed)
        everything = at_work.ask('all_cases')
        made['possible'] = len(everything)
        possible = set(map(str, everything))    # steps come and go between commits
        made['cases'] = [row for row in (_well(path) if path.exists() else ())
                         if row['case'] in possible]
        known = {row['case'] for row in made['cases']}
        wanted = [case for case in run.spread(everything, arguments.seed)
                  if arguments.only in str(case) and str(case) not in known][:arguments.most]
        ends = time.monotonic() + arguments.minutes * 60
        begun = itertools.takewhile(lambda _case: time.monotonic() < ends, wanted)
        for number, result in enumerate(at_work.run(begun), 1):
            print(f'{number}/{len(wanted)} {result}', flush=True)
            made['cases'].append(_row(result) | {'commit': made['commit']})
            dated.write(path, made)
    dated.write(path, made)
    steps = list(dict.fromkeys((case.plot, str(case.step)) for case in everything))
    path.with_suffix('.md').write_text(table.of(made, steps, make))
    print(f'{table.counts(made["cases"])}; {path}')
    if arguments.publish:
        shutil.copy(path, _DOC / 'results')
        shutil.copy(path.with_suffix('.md'), _DOC / f'{name}.md')
    return not any(row['wrong'] for row in made['cases'])


def _well(path):
    """What went well of a report; each of the commit that it ran of."""
    found = json.loads(path.read_text())
    return [{'commit': found['commit']} | row for row in found['cases'] if not row['wrong']]


def _row(result):
    case = result.case
    return {'case': str(case), 'plot': case.plot, 'step': str(case.step), 'when': case.when,
            'fault': str(case.fault), **{
                field.name: getattr(result, field.name)
                for field in dataclasses.fields(result) if field.name != 'case'}}
