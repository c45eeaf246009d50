# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.cloud.demo``: a server group on two hosts, snapshotted, killed, restored.

Three servers exchange messages and write disks. `openstack server group
snapshot create` records them while they run, their QEMUs are killed with
kill -9, `restore` brings them back, and they say themselves what they
remember. Needs `make cloud`; the exit status is 0 only if it held.
"""

import sys
import time

from rich import box, console, table

from tests.cloud import cloud, servers, settings
from tests.cloud.command import Snapshots
from tests.cloud.processes import CloudError
from tests.rounds import program, rounds

_NAME = 'demo'
_MESSAGES = 200                   # after the restore, each way on each connection
_SETTLE_S = 3.0
_TRIES = 3                        # a snapshot may be given up where the machine is too busy


def _demonstrate(members: int) -> bool:
    screen = console.Console(width=None if sys.stdout.isatty() else 110)

    def say(text: str) -> None:
        screen.print(text, highlight=False, soft_wrap=True)
    began = time.monotonic()
    place = cloud.running(settings.default_folder())
    say(f'Group {_NAME}: {members} servers …')
    group = servers.make_group(place, _NAME, members)
    try:
        group.wait_ready()
        time.sleep(_SETTLE_S)
        say('They talk, each with each, and write disks: ' + ', '.join(
            f'{server.name} on {server.host}' for server in group))
        say('openstack server group snapshot create, kill -9, restore, verdict …')
        snapshots = Snapshots(place, group)
        series = rounds.Rounds(group, snapshots, messages=_MESSAGES)
        for _try in range(_TRIES):
            done = series.run('auto', limits=())
            if done.shown:
                break
            say(f'  {done.error}')
        _show(group, done, screen)
        if done.shown:
            snapshots.delete(done.shown['id'])
    finally:
        group.delete()
    spread = len({server.host for server in group})
    held = done.consistent and spread > 1
    say(f'{"It held" if held else "IT BROKE"} over {spread} hosts. '
        f'{time.monotonic() - began:.0f} s; the cloud stays up.')
    return held


def _show(group: servers.ServerGroup, done: rounds.Round, screen: console.Console) -> None:
    if done.shown:
        shown = table.Table(box=box.SIMPLE_HEAD, title=f'Gate {done.shown["gate"]}, '
                            f'skew {done.skew_ms:.1f} ms, longest silence of a peer '
                            f'{done.shown["stall_ms"]:.0f} ms')
        for column in ('member', 'host', 'pause, ms', 'wait, ms', 'hold, ms', 'saved, MB'):
            shown.add_column(column, justify='left' if column in ('member', 'host') else 'right')
        places = {server.id: server.host for server in group}
        for member in done.shown['members']:
            shown.add_row(
                member['name'], places.get(member['server_id'], '?'),
                *(f'{member[name] or 0:.1f}' for name in ('pause_ms', 'wait_ms', 'hold_ms')),
                f'{(member["size_bytes"] or 0) / 1e6:.0f}')
        screen.print(shown)
    if done.connections:
        screen.print(f'connections alive {done.alive} of {done.connections}; messages since, '
                     f'fewest {min(done.messages.values(), default=0)}; orphans {done.orphans}; '
                     f'diverged {done.diverged}; disk findings {done.disk_findings}',
                     highlight=False)
    for finding in (*done.cut, *done.after)[:5]:
        screen.print(f'guest {finding.guest} {finding.kind}: {finding.detail}', highlight=False)
    if done.error:
        screen.print(done.error, highlight=False, soft_wrap=True)


def main() -> int:
    parser = program.parser('tests.cloud.demo', __doc__)
    parser.add_argument('--members', type=int, default=3, help='default: %(default)s')
    arguments = parser.parse_args()
    return program.status(lambda: _demonstrate(arguments.members), CloudError)


if __name__ == '__main__':
    sys.exit(main())
