# SPDX-License-Identifier: Apache-2.0
"""The demo's picture: cuts close up, and messages over the whole of each run."""

import dataclasses
import math
import pathlib

import matplotlib

matplotlib.use('Agg')

from matplotlib import patches, pyplot

from tests.rounds.rounds import Round

_PAUSE, _HOLD, _WAIT = '#c0392b', '#f5b041', '#7f8c8d'
_GUESTS = ('#1f618d', '#239b56', '#7d3c98', '#b9770e')
_BIN_S = 0.2


@dataclasses.dataclass(frozen=True)
class Run:
    """One column of the picture.

    :ivar samples: by guest, (time, messages received), as `rates` gives them
    """

    title: str
    round: Round
    samples: list[list[tuple[float, int]]]


def draw(runs: list[Run], path: pathlib.Path) -> None:
    """Write the picture as a PNG."""
    figure, rows = pyplot.subplots(2, len(runs), figsize=(5.6 * len(runs), 7.6), squeeze=False,
                                   gridspec_kw={'height_ratios': (1, 1.25)})
    window_ms = max((_cut_window_ms(run.round) for run in runs), default=1.0)
    top = max((rate for run in runs for samples in run.samples
               for _at, rate in _rates(samples, run.round) if not math.isnan(rate)), default=1.0)
    for run, cuts, messages in zip(runs, *rows, strict=True):
        _draw_cuts(cuts, run, window_ms)
        _draw_messages(messages, run, top * 1.3)
    rows[1][0].set_ylabel('messages taken a second, by guest')
    figure.legend(handles=[
        patches.Patch(color=_PAUSE, label='pause: the guest is suspended for its own cut'),
        patches.Patch(color=_WAIT, label='wait: suspended for the others (barrier)'),
        patches.Patch(color=_HOLD, label='hold: it runs, its packets are kept back')],
        loc='lower center', ncols=3, frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0.045, 1, 1), h_pad=2.2)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _draw_cuts(axes, run: Run, window_ms: float) -> None:
    """Pause, wait and hold of each member, in ms since the first cut."""
    colour = '#1e8449' if run.round.consistent else _PAUSE
    axes.set_title(run.title, fontsize=11, fontweight='bold', color=colour, pad=20)
    members = run.round.shown.get('members', ())
    first_ns = min((member['cut_wall_ns'] for member in members), default=0)
    for row, member in enumerate(members):
        at_ms = (member['cut_wall_ns'] - first_ns) / 1e6
        pause_ms, hold_ms, wait_ms = (member[f'{what}_ms'] or 0.0
                                      for what in ('pause', 'hold', 'wait'))
        if wait_ms:
            axes.barh(row, wait_ms, left=at_ms + pause_ms, color=_WAIT, height=0.42)
        elif hold_ms > pause_ms:
            axes.barh(row, hold_ms - pause_ms, left=at_ms + pause_ms, color=_HOLD, height=0.42)
        axes.barh(row, pause_ms, left=at_ms, color=_PAUSE, height=0.42)
        words = f'pause {pause_ms:.0f}' + (f', hold {hold_ms:.0f}' if hold_ms else '') + ' ms'
        axes.text(window_ms, row - 0.25, words, fontsize=8, va='bottom', ha='right')
    axes.set_yticks(range(len(members)), [f'guest {row}' for row in range(len(members))])
    axes.text(0.5, 1.005, _verdict(run.round), transform=axes.transAxes, fontsize=9,
              ha='center', va='bottom', color=colour)
    axes.set_ylim(len(members) - 0.6, -0.75)
    axes.set_xlim(-0.03 * window_ms, window_ms)
    axes.set_xlabel('ms since the first cut')
    axes.grid(axis='x', alpha=0.3)
    axes.spines[['top', 'right']].set_visible(False)


def _draw_messages(axes, run: Run, top: float) -> None:
    moments = run.round.moments
    start = moments['create']
    end = moments['end'] - start
    for number, samples in enumerate(run.samples):
        line = [(at - start, rate) for at, rate in _rates(samples, run.round)]
        axes.plot([at for at, _rate in line], [rate for _at, rate in line], linewidth=1.2,
                  color=_GUESTS[number % len(_GUESTS)], label=f'guest {number}')
    cuts_ns = [member['cut_wall_ns'] for member in run.round.shown.get('members', ())]
    marks = [('cut', min(cuts_ns, default=0) / 1e9), ('saved', moments.get('saved')),
             ('kill -9', moments.get('killed')), ('resumed', moments.get('resume'))]
    for word, at in marks:
        if at:
            axes.axvline(at - start, color='#555555', linewidth=0.8, linestyle=':')
            # "saved" and "kill -9" are close together: one to each side.
            side = 'right' if word == 'saved' else 'left'
            axes.text(at - start, top * 0.98, f' {word} ', fontsize=8, va='top', ha=side)
    if 'resume' in moments:
        axes.axvspan(moments['killed'] - start, moments['resume'] - start, color='#000000',
                     alpha=0.06, linewidth=0)
    axes.set_xlim(-1.5, end)
    axes.set_ylim(0, top)
    axes.set_xlabel('s since the command was started')
    axes.legend(loc='lower left', fontsize=8, framealpha=0.8)
    axes.grid(alpha=0.3)
    axes.spines[['top', 'right']].set_visible(False)


def _rates(samples: list[tuple[float, int]], done: Round) -> list[tuple[float, float]]:
    """(time, messages a second), with gaps where no guest ran.

    Between kill and resume a guest's memory is half loaded and tells nothing.
    """
    killed, resumed = (done.moments.get(each, math.inf) for each in ('killed', 'resume'))
    rates = []
    kept = None
    for at, received in samples:
        if killed <= at <= resumed:
            kept = None
        elif kept is None or received < kept[1]:
            rates.append((at, math.nan))
            kept = (at, received)
        elif at - kept[0] >= _BIN_S:
            rates.append(((kept[0] + at) / 2, (received - kept[1]) / (at - kept[0])))
            kept = (at, received)
    return rates


def _verdict(done: Round) -> str:
    return (f'{"consistent" if done.consistent else "broken"}: {done.orphans} orphans, '
            f'{done.alive} of {done.connections} connections alive')


def _cut_window_ms(done: Round) -> float:
    members = done.shown.get('members', ())
    first_ns = min((member['cut_wall_ns'] for member in members), default=0)
    return max(((member['cut_wall_ns'] - first_ns) / 1e6
                + max(member['hold_ms'] or 0, member['pause_ms'] + (member['wait_ms'] or 0))
                for member in members), default=1.0) * 1.05
