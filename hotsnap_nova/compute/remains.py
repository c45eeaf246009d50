# SPDX-License-Identifier: Apache-2.0
"""What a host has of snapshots and restores, for an operator to look at and to end.

A coordinator ends what its database knows. Where that came back from a backup, a host may have
parts that nobody will ever ask for again: guests are locked by them, and files are kept.
"""

import os
import urllib.parse

from hotsnap_nova import exception
from hotsnap_nova.compute import journal, participants, restores
from hotsnap_nova.protocol import messages
from hotsnap_nova.protocol.restore import messages as orders

SNAPSHOT, RESTORE = 'snapshot', 'restore'
_DECIDED = frozenset({orders.Step.RESUME, orders.Step.FINISH})


class Remains:
    """What one host has; see `list` and `end`.

    :param state_path: of both
    """

    def __init__(self, host: str, state_path: str, snapshots: participants.Participants,
                 restoring: restores.Restores):
        self._host = host
        self._snapshots = snapshots
        self._restores = restoring
        self._folders = {SNAPSHOT: os.path.join(state_path, 'journal'),
                         RESTORE: os.path.join(state_path, 'restores')}

    def list(self) -> list[dict]:
        """``{'kind', 'id', 'snapshot', 'state', 'members', 'reason'}`` of each.

        ``kind`` is "snapshot" or "restore", ``id`` its own, ``members`` names of guests,
        ``reason`` why it does not go on, where that is known. What cannot be read any more has
        the state "damaged", what could not at the start "unread".
        """
        return [_row(SNAPSHOT, part.snapshot, part.snapshot, part.phase, part.work.members,
                     part.refusal and part.refusal.cause) for part in self._snapshots.busy()] + [
            _row(RESTORE, part.restore, part.share.snapshot, f'{part.step} {part.status}',
                 part.share.members, part.refusal, part.trouble)
            for part in self._restores.busy()] + [
            _row(kind, id_, id_ if kind == SNAPSHOT else '', 'damaged', (), None,
                 f'its file {path} cannot be read')
            for kind in self._folders for id_, path in self._damaged(kind).items()] + [
            _row(kind, id_, id_ if kind == SNAPSHOT else '', 'unread', (), None,
                 f'its file {path} could not be read at the start')
            for kind, unread in self._unread().items() for id_, path in unread.items()]

    def end(self, id_: str) -> bool:
        """Whether the snapshot's or restore's part has ended; False: it is at it, ask again.

        A snapshot is discarded; what it has published stays. A restore goes on to the end that
        was decided, or is undone.

        :raises SnapshotNotFound: this host has no such part
        :raises SnapshotBusy: it is decided, and comes to another end
        :raises Unavailable: its file could not be read at the start
        """
        part = next((part for part in self._restores.busy() if part.restore == id_), None)
        if part:
            step = orders.Step.RESUME if part.step in _DECIDED else orders.Step.UNDO
            return isinstance(self._restores.serve(
                orders.Order(id_, self._host, step, part.share)), orders.OrderDone)
        part = next((part for part in self._snapshots.busy() if part.snapshot == id_), None)
        if part:
            return self._discard(id_, part.epoch, part.work.group, part.work.members)
        if id_ in self._damaged(SNAPSHOT):
            return self._discard(id_)
        if path := self._damaged(RESTORE).get(id_):
            journal.remove(path)
            return True
        for unread in self._unread().values():
            if id_ in unread:
                raise journal.unavailable(unread[id_])
        if self._snapshots.has_ended(id_) or self._restores.has_ended(id_):
            return True
        raise exception.SnapshotNotFound(snapshot=id_)

    def _discard(self, snapshot, epoch=0, group='', members=()):
        answer = self._snapshots.serve(
            messages.Discard(snapshot, epoch, self._host, group, members))
        if isinstance(answer, messages.Refused):
            raise exception.SnapshotBusy(snapshot=snapshot, status=f'ending: {answer.cause.code}')
        return isinstance(answer, messages.Discarded)

    def _unread(self):
        return {SNAPSHOT: self._snapshots.unread(), RESTORE: self._restores.unread()}

    def _damaged(self, kind):
        """Paths by id."""
        return {urllib.parse.unquote(os.path.basename(path).partition('.json')[0]): path
                for path in journal.damaged(self._folders[kind])}


def _row(kind, id_, snapshot, state, members, cause, reason=''):
    return {'kind': kind, 'id': id_, 'snapshot': snapshot, 'state': str(state),
            'members': [member.name or member.id for member in members],
            'reason': reason or (cause.text or cause.code if cause else '')}
