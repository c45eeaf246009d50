# SPDX-License-Identifier: Apache-2.0
"""The bench's measurements; each takes a lab and gives a plain dict."""

import contextlib
import pathlib
import statistics
import time

from tests.bench.peers import Peers
from tests.lab import WIDE, Group, GuestSpec, Lab, Workload, load
from tests.rounds import report
from tests.rounds.command import CommandFailed, Hotsnap

#: So that a slow cut is measured instead of refused.
_LIMITS = ('--max-pause-ms', '10000', '--max-hold-ms', '10000')
_BETWEEN_S = 0.5
_STATUS_S = 1.2                    # guests tell and sample once a second
_SPARE_MB = 600


def room_for(memory_mb: int) -> bool:
    """Whether this machine has the memory for such a guest."""
    for line in pathlib.Path('/proc/meminfo').read_text().splitlines():
        if line.startswith('MemAvailable:'):
            return int(line.split()[1]) >> 10 > memory_mb + _SPARE_MB
    return False


def one_guest(lab: Lab, memory_mb: int, filled: float, snapshots: int, peers: int) -> dict:
    """Pause of one guest with gate ``hold``, its parts, and the guest's pauses by other means.

    :param filled: share of the memory that holds noise
    :param peers: how often libvirt's own snapshots are taken
    """
    spec = GuestSpec(memory_mb=memory_mb,
                     workload=Workload(fill_mb=max(0, int(memory_mb * filled) - 48)))
    group = lab.start([spec], wait=True)
    state = lab.folder / f'bench{memory_mb}'
    hotsnap = Hotsnap(lab.uri, state)
    weighed = Hotsnap(lab.uri, state, weigh=True)
    others = Peers(lab.uri, group[0])
    taken, bare, failed = [], [], 0
    try:
        for number in range(snapshots):
            try:
                taken.append(_snapshot(hotsnap, group, number)['members'][0])
            except CommandFailed:
                failed += 1
            time.sleep(_BETWEEN_S)
            bare.append(others.stop_and_cont())
        # One more, not among those measured: weighing takes time of its own.
        with contextlib.suppress(CommandFailed):
            _snapshot(weighed, group, snapshots)
        live, stopped = [], []
        for _number in range(peers):
            live.append(others.libvirt_live())
            stopped.append(others.libvirt_stopped())
    finally:
        others.close()
        load.end(group)
    pauses = [member['pause_ms'] for member in taken]
    return {
        'memory_mb': memory_mb, 'filled_mb': spec.workload.fill_mb, 'failed': failed,
        'pause_ms': report.spread(pauses), 'parts_ms': _medians(taken),
        'stop_cont_ms': report.spread(bare), 'libvirt_live_ms': report.spread(live),
        'libvirt_stopped_ms': report.spread(stopped),
        'saved_bytes': [member['size_bytes'] for member in taken][-1:],
        'peak_bytes': weighed.peak_bytes.get('create'),
    }


def slope_ms_per_gib(rows: list[dict]) -> float | None:
    """How the median pause grows with the guest's memory; None for fewer than two sizes."""
    points = [(row['memory_mb'] / 1024, row['pause_ms']['p50']) for row in rows
              if row['pause_ms']['count']]
    if len(points) < 2:
        return None
    return round(statistics.linear_regression(*zip(*points, strict=True)).slope, 2)


def three_guests(lab: Lab, snapshots: int, rate: int) -> dict:
    """Hold, skew, pause by recording order; time-outs and stalls against equal quiet intervals.

    A guest's counters and its own words tell of the interval; each interval
    with a snapshot is followed by one of the same length without.

    :param rate: messages a second, or fewer where the machine is too slow for it
    """
    group, found = load.start_within(lab, [GuestSpec(), GuestSpec(), WIDE], rate)
    hotsnap = Hotsnap(lab.uri, lab.folder / 'bench-group')
    taken, failed = [], 0
    busy, quiet = _Interval(), _Interval()
    try:
        for number in range(snapshots):
            began = time.monotonic()
            before = _look(group)
            try:
                taken.append(_snapshot(hotsnap, group, number))
            except CommandFailed:
                failed += 1
                continue
            finally:
                time.sleep(_STATUS_S)
            length_s = time.monotonic() - began
            after = _look(group)
            busy.add(before, after)
            time.sleep(length_s)
            quiet.add(after, _look(group))
    finally:
        load.end(group)
    orders = [sorted(shown['members'], key=lambda each: each['cut_wall_ns']) for shown in taken]
    return {
        'failed': failed, 'rate': found.rate, 'cpu_share': found.share,
        'hold_ms': report.spread([each['hold_ms'] for order in orders for each in order]),
        'skew_ms': report.spread([shown['skew_ms'] for shown in taken]),
        'pause_ms_by_order': [report.spread([each['pause_ms'] for each in place])
                              for place in zip(*orders, strict=True)],
        'with_snapshot': busy.figures(), 'without': quiet.figures(),
    }


class _Interval:
    """What guests told of many intervals of one kind."""

    def __init__(self):
        self._timeouts: list[int] = []
        self._tick_gaps_ms: list[float] = []
        self._silences_ms: list[float] = []

    def add(self, before, after) -> None:
        (timeouts, counts), (timeouts_after, lines_after) = before, after
        self._timeouts.append(timeouts_after - timeouts)
        fresh = [line for count, lines in zip(counts, lines_after, strict=True)
                 for line in lines[len(count):]]
        self._tick_gaps_ms += [line['tick_gap_us'] / 1e3 for line in fresh]
        self._silences_ms += [line['silence_us'] / 1e3 for line in fresh]

    def figures(self) -> dict:
        return {'tcp_timeouts': sum(self._timeouts), 'intervals': len(self._timeouts),
                'tick_gap_ms_each_second': report.spread(self._tick_gaps_ms),
                'silence_ms_each_second': report.spread(self._silences_ms)}


def _look(group: Group):
    """Time-outs of all guests together, and each one's status lines so far."""
    return (sum(state.tcp_timeouts for state in group.counters()),
            [guest.statuses() for guest in group])


def _snapshot(hotsnap: Hotsnap, group: Group, number: int) -> dict:
    name = f'bench-{number}'
    shown = hotsnap.create(name, group.names, gate='hold', limits=_LIMITS)
    hotsnap.delete(name)
    return shown


def _medians(members: list[dict]) -> dict:
    parts = members[0]['parts_ms'] if members else {}
    return {part: round(statistics.median(member['parts_ms'][part] for member in members), 2)
            for part in parts}
