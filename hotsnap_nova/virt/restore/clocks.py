# SPDX-License-Identifier: Apache-2.0
"""Clocks of guests that went on from the past: set by their agents, or said to lag.

A guest's clock goes on from its cut, so it lags by all the time that has passed since. An agent
sets it by the host's, and is asked what it is then: how long it took to obey is added at the next
attempt. What was read is known but for half the time of the question and its answer.
"""

import concurrent.futures
import dataclasses
import datetime
import time

from oslo_log import log

from hotsnap_nova import exception, unwaited
from hotsnap_nova.virt import domain, guest, records

LOG = log.getLogger(__name__)

#: An agent may take a question and never answer, and libvirt waits for it as long as a guest runs.
_TIMEOUT_S = 10.0
#: A guest that was just let run opens its agent's channel anew, if there is an agent.
_OPENS_S, _LOOK_S = 2.0, 0.05
_NS = 1_000_000_000
#: As good as it gets.
_GOOD_NS = 1_000_000
_ATTEMPTS = 3
#: Of so many readings that with the quickest answer counts.
_READINGS = 3
_REMEDY = 'set it in the guest; one with a running guest agent is set by a restore'

#: Of members that are left standing at the cut: whoever lets them run sets their clocks, too.
STAND = (records.Finding(
    records.GROUP, 'clock', 'the clocks of its members stand at the cut, and nobody sets them '
    'when they are let run', 'set them then: virsh domtime --now where an agent runs', ()),)


@dataclasses.dataclass(frozen=True)
class Running:
    """A member that was let run.

    :ivar ran_ns: when, in ns since 1970; None: a process that died did it, and nobody knows
    """

    member: records.RestoreMember
    found: guest.Guest
    ran_ns: int | None = None


def set_all(running: list[Running]) -> tuple[records.Finding, ...]:
    """Have guests with an agent set their clocks; of the others, by how much they lag.

    Waits for that a moment at the most, and for no agent longer than for another.
    """
    clocks = [_Clock(each) for each in running]
    concurrent.futures.wait([unwaited.begin(each.set, 'hotsnap-clock') for each in clocks],
                            _TIMEOUT_S)
    findings = tuple(told for each in clocks if (told := each.told()))
    for each in findings:
        LOG.warning('%(member)s: %(cause)s', {'member': each.member, 'cause': each.cause})
    return findings


class _Clock:
    """One guest's; ``set`` may go on in its thread when nobody waits for it any more."""

    def __init__(self, running: Running):
        self._running = running
        self._found = running.found
        self._lag: tuple[int, int] | None = None
        self._why = 'its agent does not answer in time'

    def set(self):
        try:
            if not self._opens():
                return
            failed, late_ns = '', 0
            for _ in range(_ATTEMPTS):
                try:
                    self._found.set_clock(time.time_ns() + late_ns)
                except exception.HypervisorError as exc:    # it may have set the guest's own
                    failed = _reason(exc)
                lag_ns, _doubt_ns = self._lag = self._read()
                if self._is_set() or failed:
                    break
                late_ns += lag_ns
            self._why = failed or 'its agent was asked to set it, and was late'
        except exception.HotsnapError as exc:
            self._why = _reason(exc)

    def _opens(self):
        """Whether its agent's channel is open, or is soon."""
        deadline = time.monotonic() + _OPENS_S
        while True:
            parsed = domain.DomainXml(self._found.full_xml())
            if parsed.agent_listens:
                return True
            if not parsed.agent:
                self._why = 'it has no channel for a guest agent'
                return False
            if time.monotonic() > deadline:
                self._why = 'no guest agent runs in it'
                return False
            time.sleep(_LOOK_S)

    def _read(self):
        """(how far it is behind, how far that may be wrong), in ns."""
        best = None
        for _ in range(_READINGS):
            asked_ns = time.time_ns()
            told_ns = self._found.clock_ns()
            doubt_ns = (time.time_ns() - asked_ns) // 2
            if best is None or doubt_ns < best[1]:
                best = asked_ns + doubt_ns - told_ns, doubt_ns
        return best

    def _is_set(self):
        lag_ns, doubt_ns = self._lag
        return abs(lag_ns) <= _GOOD_NS + doubt_ns

    def told(self):
        """What there is to warn of; None where it is set."""
        cut_ns = self._running.member.facts.get('cut_wall_ns')
        if self._lag:
            if self._is_set():
                return None
            lag_ns = self._lag[0]
            by = f'{"lags by" if lag_ns > 0 else "is ahead by"} {_span(abs(lag_ns))}'
        elif cut_ns and self._running.ran_ns:
            by = f'lags by {_span(self._running.ran_ns - cut_ns)}'
        else:
            by = 'lags by what had passed since the cut when it was let run'
        return records.Finding(self._running.member.spec, 'clock', f'its clock {by}: {self._why}',
                               _REMEDY, ())


def _reason(error):
    return str(error.kwargs.get('reason', error)).rstrip('.')


def _span(span_ns):
    """In words: 3.204 s, 2 days, 3:12:05."""
    if abs(span_ns) < 60 * _NS:
        return f'{span_ns / _NS:.3f} s'
    return str(datetime.timedelta(seconds=round(span_ns / _NS)))
