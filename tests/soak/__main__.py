# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.soak``: many snapshots under load, each killed, restored and judged.

With each gate the same seeds give the same delays between the members' cuts.
Ours must hold every time, and with marks packets must have asked for cuts; the control, which
differs in its gate alone, must break in at least half of its rounds, or the run proves nothing.
"""

import argparse
import pathlib
import sys

from tests.lab import WIDE, GuestSpec, Lab, load
from tests.rounds import dated, evidence, program, report, rounds
from tests.rounds.command import CommandFailed, Hotsnap

_GATES = ('hold', 'barrier', rounds.MARKER, rounds.CONTROL)
_GUESTS = (GuestSpec(), GuestSpec(), WIDE)
_RATE = 100
_LEAST_BROKEN = 0.5
_LEAST_ASKED = 0.8                # of rounds with marks: a packet was before somebody's turn
_MOST_BYTES = 200_000_000
_PATIENCE_S = 120
_SLOWER = 3                       # than the rate, on a machine that does other things


class Soak:
    """The rounds of a whole run, and their report.

    :param path: of the report, written anew after each round
    """

    def __init__(self, arguments: argparse.Namespace, lab: Lab, path: pathlib.Path):
        self._arguments = arguments
        self._lab = lab
        self._path = path
        self._hotsnap = Hotsnap(lab.uri, lab.folder / 'hotsnap', weigh=True, enter=lab.enter)
        self._rounds: rounds.Rounds | None = None
        command = ' '.join(['python -m tests.soak', *sys.argv[1:]])
        self.report = {**report.setting(command, arguments.seed, lab.connection),
                       'guests': len(_GUESTS),
                       'messages_after_each': arguments.messages, 'gates': {}}

    def run(self) -> bool:
        """Whether ours held, the control broke, and our processes stayed small."""
        for gate in self._arguments.gates:
            self.report['gates'][gate] = {'rounds': []}
            for number in range(1, self._arguments.rounds + 1):
                self._round(gate, number)
        self.report['passed'] = self._passed()
        dated.write(self._path, self.report)
        return self.report['passed']

    def _round(self, gate: str, number: int) -> None:
        if self._rounds is None:
            self._start()
        seed = f'{self._arguments.seed}/{number}'
        done = self._rounds.run(gate, rounds.random_delays(seed, len(_GUESTS)))
        entry = self.report['gates'][gate]
        entry['rounds'].append(report.row(number, done))
        entry.update(report.figures(entry['rounds']))
        self.report['peak_bytes'] = self._hotsnap.peak_bytes
        dated.write(self._path, self.report)
        print(f'{gate} {number}: {"consistent" if done.consistent else "broken"}'
              f' {done.summary or ""} {done.error}'.rstrip()
              + f'; skew {done.skew_ms:.0f} ms, pause {max(done.pauses_ms, default=0):.1f} ms, '
              f'hold {max(done.holds_ms, default=0):.0f} ms', flush=True)
        if not done.consistent:
            if gate != rounds.CONTROL:
                folder = self._path.with_name(f'{self._path.stem}-evidence') / f'{gate}-{number}'
                evidence.keep(folder, self._rounds, done, seed)
            self._mend()

    def _mend(self) -> None:
        """Guests that talk again: the good state, or where there is none new ones."""
        try:
            self._rounds.mend()
        except CommandFailed as exc:
            print(f'new guests: {exc}', flush=True)
            for guest in self._rounds.group:
                if guest.domain.isActive():
                    guest.domain.destroy()
            self._rounds = None

    def _start(self) -> None:
        group, found = load.start_within(self._lab, list(_GUESTS), self._arguments.rate)
        self.report |= {'rate': found.rate, 'cpu_share': found.share}
        self._rounds = rounds.Rounds(
            group, self._hotsnap, messages=self._arguments.messages,
            patience_s=max(_PATIENCE_S, _SLOWER * self._arguments.messages / found.rate))

    def _passed(self) -> bool:
        passed = all(size < _MOST_BYTES for size in self._hotsnap.peak_bytes.values())
        for gate, entry in self.report['gates'].items():
            wanted = len(entry['rounds'])
            if gate == rounds.CONTROL:
                passed &= entry['broken'] >= wanted * _LEAST_BROKEN
            else:
                passed &= entry['consistent'] == wanted
            if gate == rounds.MARKER:
                passed &= entry['rounds_asked_by_marks'] >= wanted * _LEAST_ASKED
        return passed


def _say(results: dict, path: pathlib.Path) -> None:
    for gate, entry in results['gates'].items():
        total = len(entry['rounds'])
        print(f'{gate}: consistent {entry["consistent"]} of {total}, broken {entry["broken"]}, '
              f'failed {entry["failed"]}, orphans {entry["orphans"]}; ms: '
              f'pause {entry["pause_ms_spread"]}, hold {entry["hold_ms_spread"]}')
        if gate == rounds.MARKER:
            asked = entry['rounds_asked_by_marks']
            print(f'{gate}: packets asked for cuts in {asked} of {total}')
    sizes = ', '.join(f'{word} {size / 1e6:.0f} MB'
                      for word, size in sorted(results['peak_bytes'].items()))
    print(f'our own processes, at most: {sizes}')
    print(f'{"passed" if results["passed"] else "FAILED"}; {path}')


def main() -> int:
    parser = argparse.ArgumentParser(prog='python -m tests.soak', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=30, help='of each gate (%(default)s)')
    parser.add_argument('--gates', nargs='+', choices=_GATES, default=_GATES)
    parser.add_argument('--seed', default='hotsnap', help='of the delays (%(default)s)')
    parser.add_argument('--messages', type=int, default=1000,
                        help='after each restore, each way on each connection (%(default)s)')
    parser.add_argument('--rate', type=int, default=_RATE,
                        help='messages a second, each way on each connection (%(default)s)')
    parser.add_argument('--output', type=pathlib.Path, default=dated.default_path('soak'),
                        help='the report (%(default)s)')
    arguments = parser.parse_args()

    def soak() -> bool:
        with Lab() as lab:
            made = Soak(arguments, lab, arguments.output)
            passed = made.run()
        _say(made.report, arguments.output)
        return passed
    return program.status(soak, interrupted=f'what there is: {arguments.output}')


if __name__ == '__main__':
    sys.exit(main())
