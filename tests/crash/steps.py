# SPDX-License-Identifier: Apache-2.0
"""What the machines command, in words; a word is one step of a run, however often it comes."""

import dataclasses
import typing

from hotsnap_nova.protocol import commands, durable, messages
from hotsnap_nova.protocol.restore import commands as restores
from hotsnap_nova.protocol.restore import messages as orders

_SNAPSHOT = typing.get_args(commands.CoordinatorCommand | commands.ParticipantCommand)
_RESTORE = typing.get_args(restores.CoordinatorCommand | restores.ParticipantCommand)

#: Names in words of their own: what all of an engine's commands are about is known.
_ENGINE = {kind: kind.__name__.removesuffix('Members').lower() for kind in _SNAPSHOT
           if kind.__name__.endswith('Members')}


def name_of(kind: type) -> str:
    """Of a command's kind; both protocols have a ``LeaveErrand``."""
    protocol = 'restore' if kind.__module__ == restores.__name__ else 'snapshot'
    return f'{protocol}: {kind.__name__}'


#: Comes of ten minutes without a coordinator, for which no run has the time: `tests/explore` kills
#: there, and `tests/unit/compute/test_saved` does it.
_AFTER_A_SILENCE = frozenset({commands.GiveBackMembers})
#: Names of every other kind of command there is; `test_crash` proves that each is met.
KINDS = frozenset(name_of(kind) for kind in _SNAPSHOT + _RESTORE if kind not in _AFTER_A_SILENCE)


def word(command) -> str | None:
    """What a command is called; None for what comes as often as it likes."""
    if type(command) in _RESTORE:
        return _word_of_restore(command)
    match command:
        case commands.Send(message=message):
            return f'send {_name(message)} to {message.host}'
        case commands.Persist(decision=decision, closed=closed):
            return f'persist {decision}{_closed(closed)}'
        case commands.LeaveErrand(message=message):
            return f'leave errand {_name(message)} for {message.host}'
        case commands.Announce(phase=phase, progress=progress):
            return None if progress else f'announce {phase}'
        case commands.Reply(answer=messages.Working(phase=phase)):
            return 'reply working' if phase == durable.Phase.SAVING else None
        case commands.Reply(answer=answer):
            return f'reply {_name(answer)}'
        case commands.Journal(part=None, decided=decided):
            return f'journal the end, {decided[0].decision}' if decided else 'journal the end'
        case commands.Journal(part=part):
            return f'journal {part.phase}'
    return f'{_ENGINE[type(command)]} members'


def _word_of_restore(command):
    match command:
        case restores.SendOrder(order=order):
            return f'order {order.step} to {order.host}'
        case restores.Resolve(resolution=resolution, closed=closed):
            return f'resolve {resolution}{_closed(closed)}'
        case restores.LeaveErrand(order=order):
            return f'leave errand {order.step} for {order.host}'
        case restores.AnnounceStep(step=step, progress=progress):
            return None if progress else f'announce step {step}'
        case restores.ReplyToOrder(answer=orders.OrderWorking(step=step)):
            return f'reply working at {step}'
        case restores.ReplyToOrder(answer=orders.OrderDone(step=step)):
            return f'reply done with {step}'
        case restores.ReplyToOrder():
            return 'reply refused to order'
        case restores.JournalOrder(part=None, ended=ended):
            return f'journal the end of {ended.step}'
        case restores.JournalOrder(part=part):
            return f'journal {part.step} {part.status}'
        case restores.CarryOut(step=step):
            return f'carry out {step}'
    return 'hasten'


@dataclasses.dataclass(frozen=True)
class Step:
    """One command of one process."""

    process: str
    word: str

    def __str__(self):
        return f'{self.process}: {self.word}'


def _closed(closed):
    return ', closed' if closed else ''


def _name(message):
    return type(message).__name__.lower()
