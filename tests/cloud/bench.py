# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.cloud.bench``: what Nova adds to a guest's pause.

The same server with the same gate, alternately through
`openstack server group snapshot create` and through `hotsnap` on its host's
libvirt. The exit status is 0 only if the median pause through Nova is at most
1.2 times the other.
"""

import argparse
import pathlib
import statistics
import sys
import tempfile

from tests.cloud import cloud, hosts, servers, settings
from tests.cloud.command import Snapshots
from tests.cloud.processes import CloudError
from tests.rounds import dated, program, report, rounds
from tests.rounds.command import Hotsnap

_NAME = 'bench'
_GATE = 'hold'
_MOST = 1.2


def _measure(arguments: argparse.Namespace, path: pathlib.Path) -> dict:
    place = cloud.running(settings.default_folder())
    group = servers.make_group(place, _NAME, 1)
    try:
        group.wait_ready()
        server = group[0]
        command = ' '.join(['python -m tests.cloud.bench', *sys.argv[1:]])
        home = hosts.Host(place, server.host)
        made = report.setting(command, '', home.connection) | {'gate': _GATE}
        with tempfile.TemporaryDirectory(prefix='hotsnap-bench-') as state:
            plain = Hotsnap(hosts.uri(place, server.host), pathlib.Path(state))
            ways = {'nova': (Snapshots(place, group), ()),
                    'hotsnap': (plain, rounds.RAISED_LIMITS)}
            pauses_ms = {way: [] for way in ways}
            for number in range(arguments.snapshots):
                for way, (snapshots, limits) in ways.items():
                    pauses_ms[way].append(_pause_ms(snapshots, group, limits, f'{way}-{number}'))
        made |= {f'{way}_pause_ms': values for way, values in pauses_ms.items()}
        made |= {f'{way}_pause_ms_spread': report.spread(values)
                 for way, values in pauses_ms.items()}
        nova_ms, plain_ms = (statistics.median(pauses_ms[way]) for way in ways)
        made['ratio_of_medians'] = round(nova_ms / plain_ms, 3)
        made['passed'] = made['ratio_of_medians'] <= _MOST
        dated.write(path, made)
    finally:
        group.delete()
    return made


def _pause_ms(snapshots, group, limits, name: str) -> float:
    shown = snapshots.create(f'{_NAME}-{name}', group.names, gate=_GATE, limits=limits)
    snapshots.delete(shown['id'])
    return shown['members'][0]['pause_ms']


def _bench(arguments: argparse.Namespace) -> bool:
    path = dated.default_path('bench-cloud')
    made = _measure(arguments, path)
    for way in ('nova', 'hotsnap'):
        print(f'{way}: pause in ms {made[f"{way}_pause_ms_spread"]}')
    print(f'ratio of medians {made["ratio_of_medians"]}, at most {_MOST}: '
          f'{"passed" if made["passed"] else "FAILED"}; {path}')
    return made['passed']


def main() -> int:
    parser = program.parser('tests.cloud.bench', __doc__)
    parser.add_argument('--snapshots', type=int, default=15, help='each way (%(default)s)')
    arguments = parser.parse_args()
    return program.status(lambda: _bench(arguments), CloudError)


if __name__ == '__main__':
    sys.exit(main())
