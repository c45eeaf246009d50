# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.bench``: what a hot snapshot costs its guests, on this machine, now.

Nothing absolute is asserted: compare within a run, and look at the load it
was taken under.
"""

import argparse
import os
import pathlib
import sys

from rich import box, console, table

from tests.bench import measurements
from tests.lab import Lab
from tests.rounds import dated, program, report

_SIZES_MB = (128, 512, 1024, 2048)
_FILLED = 0.5
_RATE = 40


def _measure(arguments: argparse.Namespace, lab: Lab) -> dict:
    made = {**report.setting(' '.join(['python -m tests.bench', *sys.argv[1:]]), '',
                             lab.connection),
            'one_guest': [], 'skipped_mb': []}
    for memory_mb in arguments.sizes:
        if not measurements.room_for(memory_mb):
            made['skipped_mb'].append(memory_mb)
            continue
        print(f'one guest of {memory_mb} MB …', flush=True)
        made['one_guest'].append(measurements.one_guest(
            lab, memory_mb, arguments.filled, arguments.snapshots, arguments.peers))
        dated.write(arguments.output, made)
    made['slope_ms_per_gib'] = measurements.slope_ms_per_gib(made['one_guest'])
    print('three guests …', flush=True)
    made['three_guests'] = measurements.three_guests(lab, arguments.snapshots, arguments.rate)
    made['load_at_end'] = round(os.getloadavg()[0], 2)
    dated.write(arguments.output, made)
    return made


def _show(made: dict) -> None:
    screen = console.Console(width=None if sys.stdout.isatty() else 110)
    one = table.Table(box=box.SIMPLE_HEAD, title='one guest, gate hold: pause in ms')
    for name in ('MB', 'p50', 'p90', 'most', 'stop+cont p50', 'libvirt LIVE p50', 'times ours',
                 'libvirt stopped p50', 'times ours'):
        one.add_column(name, justify='right')
    for row in made['one_guest']:
        ours = row['pause_ms'].get('p50')
        cells = [row['memory_mb'], ours, row['pause_ms'].get('p90'), row['pause_ms'].get('max'),
                 row['stop_cont_ms'].get('p50')]
        for peer in ('libvirt_live_ms', 'libvirt_stopped_ms'):
            theirs = row[peer].get('p50')
            cells += [theirs, f'{theirs / ours:.1f}' if ours and theirs else '']
        one.add_row(*('' if cell is None else str(cell) for cell in cells))
    screen.print(one)
    for row in made['one_guest']:
        parts = ', '.join(f'{part} {ms}' for part, ms in row['parts_ms'].items())
        screen.print(f'{row["memory_mb"]} MB, median parts: {parts}; our own processes: '
                     f'{(row["peak_bytes"] or 0) / 1e6:.0f} MB', highlight=False)
    screen.print(f'slope: {made["slope_ms_per_gib"]} ms per GiB', highlight=False)
    group = made['three_guests']
    three = table.Table(box=box.SIMPLE_HEAD, title='three guests, gate hold')
    for name in ('', 'p50', 'p90', 'p99', 'most'):
        three.add_column(name, justify='right' if name else 'left')
    rows = [('hold, ms', group['hold_ms']), ('skew, ms', group['skew_ms'])]
    rows += [(f'pause of the {place + 1}. recorded, ms', figures)
             for place, figures in enumerate(group['pause_ms_by_order'])]
    for kind, words in (('with_snapshot', 'with'), ('without', 'without')):
        rows += [(f'longest tick gap each second {words}, ms',
                  group[kind]['tick_gap_ms_each_second']),
                 (f'longest silence each second {words}, ms',
                  group[kind]['silence_ms_each_second'])]
    for name, figures in rows:
        three.add_row(name, *(str(figures.get(key, '')) for key in ('p50', 'p90', 'p99', 'max')))
    screen.print(three)
    screen.print(f'TCP time-outs in {group["with_snapshot"]["intervals"]} intervals: '
                 f'{group["with_snapshot"]["tcp_timeouts"]} with a snapshot, '
                 f'{group["without"]["tcp_timeouts"]} without; at {group["rate"]} messages '
                 f'a second the guests took '
                 f'{group["cpu_share"]:.0%} of the processors without', highlight=False)


def main() -> int:
    parser = argparse.ArgumentParser(prog='python -m tests.bench', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--sizes', type=int, nargs='+', default=_SIZES_MB, metavar='MB',
                        help='memory of the one guest (%(default)s)')
    parser.add_argument('--filled', type=float, default=_FILLED,
                        help='share of it that holds noise (%(default)s)')
    parser.add_argument('--snapshots', type=int, default=15, help='of each kind (%(default)s)')
    parser.add_argument('--peers', type=int, default=5,
                        help="of libvirt's own, for comparison (%(default)s)")
    parser.add_argument('--rate', type=int, default=_RATE,
                        help='messages a second of the three guests (%(default)s), or fewer '
                             'where they would take most of the machine')
    parser.add_argument('--quick', action='store_true',
                        help='few snapshots of few sizes: does it work?')
    parser.add_argument('--output', type=pathlib.Path, default=dated.default_path('bench'),
                        help='the report (%(default)s)')
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.sizes, arguments.snapshots, arguments.peers = (128, 256), 3, 1

    def bench() -> bool:
        with Lab() as lab:
            made = _measure(arguments, lab)
        _show(made)
        print(arguments.output)
        return True
    return program.status(bench, interrupted=f'what there is: {arguments.output}')


if __name__ == '__main__':
    sys.exit(main())
