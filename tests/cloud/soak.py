# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.cloud.soak``: many group snapshots under load, each killed, restored, judged.

In the cloud that is up, with its two hosts and its real broker. Every snapshot
that is made must hold; those that a busy machine had given up are told and made
up for. The report is written anew after each.
"""

import argparse
import dataclasses
import pathlib
import sys

from tests.cloud import cloud, hosts, servers, settings
from tests.cloud.command import Snapshots
from tests.cloud.processes import CloudError
from tests.lab import Workload
from tests.rounds import dated, program, report, rounds
from tests.rounds.command import CommandFailed

_NAME = 'soak'
_MOST_FAILED = 10
_MOST_SPENT = 2                   # with the good one and the next: within a group's quota
_GATES = ('auto', 'hold', 'barrier', 'marker')


def _soak(arguments: argparse.Namespace, path: pathlib.Path) -> bool:
    place = cloud.running(settings.default_folder())
    workload = dataclasses.replace(Workload(), rate=arguments.rate)
    group = servers.make_group(place, _NAME, arguments.members, workload)
    try:
        group.wait_ready()
        command = ' '.join(['python -m tests.cloud.soak', *sys.argv[1:]])
        home = hosts.Host(place, group[0].host)
        results = {
            **report.setting(command, '', home.connection), 'guests': len(group),
            'hosts': [server.host for server in group], 'rate': arguments.rate,
            'gate': arguments.gate, 'messages_after_each': arguments.messages, 'rounds': []}
        series = rounds.Rounds(group, Snapshots(place, group), messages=arguments.messages,
                               most_spent=_MOST_SPENT)
        number = failed = 0
        while number - failed < arguments.rounds and failed < _MOST_FAILED:
            number += 1
            done = series.run(arguments.gate, limits=())
            results['rounds'].append(report.row(number, done)
                                     | {'stall_ms': done.shown.get('stall_ms')})
            results |= report.figures(results['rounds'])
            results['stall_ms_spread'] = report.spread(
                [row['stall_ms'] for row in results['rounds'] if row['stall_ms']])
            # A snapshot that was given up did no harm: the same guests go on to the next.
            failed += not done.shown
            results['passed'] = results['consistent'] == arguments.rounds == number - failed
            dated.write(path, results)
            print(_line(number, done), flush=True)
            if done.shown and not done.consistent and not _mended(series):
                break
    finally:
        if not arguments.keep:
            group.delete()
    return results['passed']


def _mended(series: rounds.Rounds) -> bool:
    try:
        series.mend()
    except CommandFailed as exc:
        print(f'no state to go on from: {exc}', flush=True)
        return False
    return True


def _line(number: int, done: rounds.Round) -> str:
    return (f'{number}: {_word(done)} {done.summary or ""} '
            f'{done.error}'.rstrip()
            + f'; gate {done.shown.get("gate")}, skew {done.skew_ms:.0f} ms, '
            f'pause {max(done.pauses_ms, default=0):.1f} ms, '
            f'hold {max(done.holds_ms, default=0):.0f} ms, '
            f'stall {done.shown.get("stall_ms", 0):.0f} ms')


def _word(done: rounds.Round) -> str:
    if not done.shown:
        return 'given up'
    return 'consistent' if done.consistent else 'BROKEN'


def main() -> int:
    parser = program.parser('tests.cloud.soak', __doc__)
    parser.add_argument('--rounds', type=int, default=20, help='default: %(default)s')
    parser.add_argument('--gate', choices=_GATES, default='auto', help='default: %(default)s')
    parser.add_argument('--members', type=int, default=3, help='default: %(default)s')
    parser.add_argument('--messages', type=int, default=1000,
                        help='after each restore, each way on each connection (%(default)s)')
    parser.add_argument('--rate', type=int, default=100,
                        help='messages a second, each way on each connection (%(default)s)')
    parser.add_argument('--keep', action='store_true', help='do not delete the group at the end')
    arguments = parser.parse_args()
    path = dated.default_path('soak-cloud')

    def soak() -> bool:
        passed = _soak(arguments, path)
        print(f'{"passed" if passed else "FAILED"}; {path}')
        return passed
    return program.status(soak, CloudError)


if __name__ == '__main__':
    sys.exit(main())
