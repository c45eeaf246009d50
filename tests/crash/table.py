# SPDX-License-Identifier: Apache-2.0
"""The table of a run, for people."""

import collections

from tests.crash import cases
from tests.crash.bed import Bed

_HEAD = '''# {title}

Made by `{command}` on {began_at} (QEMU {qemu}, libvirt {libvirt}), of {commits}.

{about}
Of a restore, which begins with `g2` off:

- *at the cut*: every member runs on from the memory of the cut, on the disk of the cut. Off (and
  named here) may be one that was killed after it had been let run, and one that could not be
  started again. Its user was told of it by name, unless it was killed after its host's last look;
- *as before*: every member that ran runs, on its own disk, which lost nothing; `g2` is off. Off
  may be one that was killed before it was to be stopped, or as it booted again, of which its user
  was told by name.

In all cases no guest ever ran in two QEMUs, and no lock, claim, lease, errand, order, journal,
temporary file, disk of a restore, filter, job, gate or process of ours is left.

{cases} of {possible} cases, which took {minutes} minutes one by one: {counts}. What went wrong
is in **bold**; a dot is a case that was not run.
'''


def of(report: dict, steps: list[tuple[str, str]], make: type[Bed]) -> str:
    """Markdown.

    :param make: where its cases ran
    :param steps: (plot, step) in the order of the table
    """
    rows = report['cases']
    text = _HEAD.format(
        **{name: report[name]
           for name in ('command', 'began_at', 'qemu', 'libvirt', 'possible')},
        title=make.title, about=make.about, commits=_commits(report), cases=len(rows),
        minutes=round(sum(row['seconds'] for row in rows) / 60),
        counts=', '.join(f'{count} {outcome}' for outcome, count in counts(rows).items()))
    by_step = collections.defaultdict(dict)
    for row in rows:
        by_step[row['plot'], row['step']][row['when'], row['fault']] = row
    faults, last = [str(fault) for fault in make.faults], ''
    for plot, step in steps:
        if plot != last:
            text += f'\n## {plot[0].upper()}{plot[1:]}\n\n'
            text += f'| step | {" | ".join(faults)} |\n|---|{"---|" * len(faults)}\n'
            last = plot
        met = by_step[plot, step]
        cells = [' / '.join(_cell(met.get((when, fault))) for when in cases.WHEN)
                 for fault in faults]
        text += f'| {step} | {" | ".join(cells)} |\n'
    wrong = [row for row in rows if row['wrong']]
    if wrong:
        text += '\n## What went wrong\n\n'
        text += ''.join(f'- {row["case"]}: {"; ".join(row["wrong"])}\n' for row in wrong)
    return text


def counts(rows: list[dict]) -> dict[str, int]:
    """Cases by outcome, the most frequent first."""
    found = collections.Counter(
        'wrong' if row['wrong'] else _short(row).partition(' but ')[0] for row in rows)
    return dict(found.most_common())


def _commits(report):
    """Those that its cases ran of; what went well is not run again."""
    found = collections.Counter(row['commit'] for row in report['cases'])
    if len(found) < 2:
        return f'commit {report["commit"]}'
    return 'commits ' + ', '.join(f'{commit} ({count} cases)' for commit, count in found.items())


def _cell(row):
    if row is None:
        return '·'
    return '**wrong**' if row['wrong'] else _short(row)


def _short(row):
    return row['outcome'].partition(' (')[0]
