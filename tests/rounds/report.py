# SPDX-License-Identifier: Apache-2.0
"""What long runs write down: where and with what they ran, and figures of many rounds."""

import math
import os
import statistics

import libvirt

from tests.rounds import dated, rounds


def setting(command: str, seed: str, connection: libvirt.virConnect) -> dict:
    """What a reader needs to judge a run, or to repeat it."""
    return dated.setting(command, seed) | {
        'qemu': _dotted(connection.getVersion()),
        'libvirt': _dotted(connection.getLibVersion()),
        'accelerator': 'tcg',
    }


def row(number: int, done: rounds.Round) -> dict:
    """A round in short."""
    found = {'round': number, 'consistent': done.consistent, 'findings': done.summary,
             'orphans': done.orphans, 'asked_by_marks': done.asked,
             'fewest_messages_after': min(done.messages.values(), default=0),
             'connections_alive': done.alive, 'delays_ms': [d * 1000 for d in done.delays_s],
             'skew_ms': round(done.skew_ms, 2), 'pause_ms': done.pauses_ms,
             'hold_ms': [round(hold_ms, 2) for hold_ms in done.holds_ms],
             'wait_ms': [round(wait_ms, 2) for wait_ms in done.waits_ms],
             'load': round(os.getloadavg()[0], 2)}
    return {**found, 'error': done.error} if done.error else found


def figures(rows: list[dict]) -> dict:
    """Counts and spreads. A round without a snapshot or a restore is neither kind."""
    def all_of(name: str) -> list[float]:
        return [value for row in rows for value in row[name]]
    return {
        'consistent': sum(row['consistent'] for row in rows),
        'broken': sum(not row['consistent'] and 'error' not in row for row in rows),
        'failed': sum('error' in row for row in rows),
        'orphans': sum(row['orphans'] for row in rows),
        'asked_by_marks': sum(row['asked_by_marks'] for row in rows),
        'rounds_asked_by_marks': sum(row['asked_by_marks'] > 0 for row in rows),
        'pause_ms_spread': spread(all_of('pause_ms')),
        'hold_ms_spread': spread(all_of('hold_ms')),
        'wait_ms_spread': spread(all_of('wait_ms')),
        'skew_ms_spread': spread([row['skew_ms'] for row in rows if row['pause_ms']]),
    }


def spread(values: list[float]) -> dict:
    """Count, least, p50, p90, p99, most; p99 of few values is the most."""
    if not values:
        return {'count': 0}
    ordered = sorted(values)

    def percentile(percent: int) -> float:
        return ordered[min(len(ordered), math.ceil(len(ordered) * percent / 100)) - 1]
    return {'count': len(ordered), 'min': round(ordered[0], 2),
            'p50': round(statistics.median(ordered), 2), 'p90': round(percentile(90), 2),
            'p99': round(percentile(99), 2), 'max': round(ordered[-1], 2)}


def _dotted(number: int) -> str:
    return f'{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}'
