# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.demo``: what a consistent hot snapshot is worth, seen on real guests.

Three guests exchange messages and write disks. They are snapshotted while they
run, all killed with kill -9, and brought back; they then say themselves what
they remember. Once as shipped, once with delays between the members' cuts, and
once with the same delays and nothing that keeps packets back.
"""

import pathlib
import sys
import time

from rich import box, console, table

from tests.demo import timeline
from tests.demo.rates import Rates
from tests.lab import WIDE, GuestSpec, Lab, load
from tests.lab.enclosure import EnclosureError
from tests.lab.image import ImageError
from tests.rounds import program, rounds
from tests.rounds.command import Hotsnap

_GUESTS = (GuestSpec(), GuestSpec(), WIDE)
_RATE = 60                        # messages a second, each link each way
_MESSAGES = 200                   # after the restore, each way on each connection
_DELAYS_S = (0.0, 0.1, 0.15)      # before each member's record
_TRIES = 3                        # a busy machine, or a control that was lucky
_BEFORE_S = 2.0


class Demo:
    """The runs, and what they showed."""

    def __init__(self, group, hotsnap: Hotsnap, say):
        self.rounds = rounds.Rounds(group, hotsnap, messages=_MESSAGES)
        self.runs: list[timeline.Run] = []
        self._group = group
        self._say = say

    def as_shipped(self) -> None:
        """``auto``, default limits; tried again where the machine is too busy for them."""
        for _try in range(_TRIES):
            self._run('as shipped', 'auto', (), limits=())
            if self.runs[-1].round.shown:
                return
            self._say(f'  {self.runs.pop().round.error}')
        self._say('  This machine is too busy for the default limits; once more with higher.')
        self._run('as shipped, limits raised', 'auto', ())

    def delayed(self) -> None:
        self._run('with delays', 'auto', _DELAYS_S)

    def control(self) -> None:
        """The same delays and no gate; tried again where luck held it together."""
        for _try in range(_TRIES):
            self._run('no protocol, same delays', rounds.CONTROL, _DELAYS_S)
            if not self.runs[-1].round.consistent:
                return
            self._say('  By luck it held; once more.')

    def _run(self, title: str, gate: str, delays_s, limits=rounds.RAISED_LIMITS) -> None:
        waits = ', '.join(f'{delay_s * 1000:.0f}' for delay_s in delays_s) or 'no'
        self._say(f'{title}: snapshot (--gate {gate}, {waits} ms between the cuts), '
                  'kill -9, restore, verdict …')
        with Rates(self._group) as rates:
            time.sleep(_BEFORE_S)
            done = self.rounds.run(gate, delays_s, limits)
        self.runs.append(timeline.Run(title, done, rates.samples))
        if done.shown:
            self._say(f'  gate {done.shown["gate"]}, cuts {done.skew_ms:.0f} ms apart: '
                      + ('consistent' if done.consistent else 'BROKEN'))


def _show(demo: Demo, screen: console.Console) -> None:
    shown = table.Table(box=box.SIMPLE_HEAD, title='What the restored guests say')
    shown.add_column('')
    for run in demo.runs:
        shown.add_column(run.title, justify='right')

    def row(name: str, value) -> None:
        shown.add_row(name, *(str(value(run.round)) for run in demo.runs))

    def most(values: list[float]) -> str:
        return f'{max(values):.1f}' if values else '-'
    row('gate', lambda done: done.shown.get('gate', '-'))
    row('longest pause, ms', lambda done: most(done.pauses_ms))
    row('longest hold, ms', lambda done: most(done.holds_ms))
    row('skew: first cut to last, ms', lambda done: f'{done.skew_ms:.1f}')
    row('orphans: received, never sent', lambda done: done.orphans)
    row('streams that diverged', lambda done: done.diverged)
    row('connections alive', lambda done: f'{done.alive} of {done.connections}')
    row('messages since, fewest', lambda done: min(done.messages.values(), default=0))
    row('disk findings', lambda done: done.disk_findings)
    row('verdict', lambda done: '[green]consistent' if done.consistent else '[red]BROKEN')
    screen.print(shown)
    for run in demo.runs:
        for finding in (*run.round.cut, *run.round.after)[:3]:
            screen.print(f'{run.title}: guest {finding.guest} {finding.kind}: {finding.detail}',
                         style='dim', highlight=False)


def _demonstrate(picture: pathlib.Path) -> bool:
    screen = console.Console(width=None if sys.stdout.isatty() else 110)

    def say(text: str) -> None:
        screen.print(text, highlight=False, soft_wrap=True)
    began = time.monotonic()
    say('Starting a private libvirtd and three guests …')
    with Lab() as lab:
        say(f'look inside: virsh -c "{lab.uri}" list')
        group, found = load.start_within(lab, list(_GUESTS), _RATE)
        say(f'They talk, each with each, over {len(group) * 2} TCP connections, {found.rate} '
            f'messages a second each way, and write disks: {found.share:.0%} of this machine.')
        demo = Demo(group, Hotsnap(lab.uri, lab.folder / 'hotsnap'), say)
        demo.as_shipped()
        demo.delayed()
        demo.control()
    picture.parent.mkdir(parents=True, exist_ok=True)
    drawn = [run for run in demo.runs if 'end' in run.round.moments]
    if drawn:
        timeline.draw(drawn, picture)
    _show(demo, screen)
    for run in demo.runs:
        if run.round.error:
            say(f'{run.title}: {run.round.error}')
    ours = [run.round for run in demo.runs if run.round.gate != rounds.CONTROL]
    control = [run.round for run in demo.runs if run.round.gate == rounds.CONTROL]
    held = all(done.consistent for done in ours)
    broke = any(done.shown and not done.error and not done.consistent for done in control)
    say(f'picture: {picture}')
    say(f'{"Ours held" if held else "OURS BROKE"}; without the protocol the group '
        f'{"broke" if broke else "held, so this run proves little"}. '
        f'{time.monotonic() - began:.0f} s; nothing is left running.')
    return held and broke


def main() -> int:
    parser = program.parser('tests.demo', __doc__)
    parser.add_argument('--picture', type=pathlib.Path,
                        default=pathlib.Path('results/demo.png'), help='default: %(default)s')
    arguments = parser.parse_args()
    return program.status(lambda: _demonstrate(arguments.picture), EnclosureError, ImageError,
                          interrupted='nothing is left running')


if __name__ == '__main__':
    sys.exit(main())
