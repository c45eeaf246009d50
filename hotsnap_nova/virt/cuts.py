# SPDX-License-Identifier: Apache-2.0
"""When each member of a snapshot is cut: in its turn, or at once where a mark asks for it.

Marks are answered from the coordinator's word to record on, and not before. It says that every
member everywhere is armed (rule 9): a mark that somebody forged before would cut a member whose
own marks nobody looks at yet. What a mark keeps back waits for that word, as long as a mark may
have it wait.
"""

import contextlib
import os
import select
import threading
from collections.abc import Callable, Iterable


class Cuts(contextlib.AbstractContextManager):
    """The cuts of these members, each taken once. At its end nobody answers marks any more.

    :param members: `member.Member`, or one that has ``asks`` and ``guest`` like it
    :param cut: cuts one: (member, whether a mark asked for it)
    """

    def __init__(self, members: Iterable, cut: Callable[[object, bool], None]):
        self._once = {each: _Once(each, cut) for each in members}
        self._threads = [threading.Thread(target=self._watch, args=(each,), daemon=True,
                                          name=f'hotsnap-cut-{each.guest.uuid}')
                         for each in self._once if each.asks is not None]
        self._ended = os.eventfd(0, os.EFD_CLOEXEC)

    def __enter__(self):
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_):
        os.eventfd_write(self._ended, 1)
        for each in self._threads:
            each.join()
        os.close(self._ended)

    def take(self, member) -> None:
        """Its turn has come; nothing is done where a mark has come before.

        :raises HotsnapError: there is no cut, whoever has asked for it
        """
        self._once[member].take(asked_by_mark=False)

    def _watch(self, member):
        poll = select.poll()
        for descriptor in (member.asks, self._ended):
            poll.register(descriptor, select.POLLIN)
        if self._ended in dict(poll.poll()):
            return
        # Whose turn comes is told of the failure.
        with contextlib.suppress(Exception):
            self._once[member].take(asked_by_mark=True)


class _Once:
    def __init__(self, member, cut):
        self._member, self._cut = member, cut
        self._taking = threading.Lock()
        self._taken = False
        self._failure: BaseException | None = None

    def take(self, *, asked_by_mark):
        with self._taking:
            if not self._taken:
                self._taken = True
                try:
                    self._cut(self._member, asked_by_mark)
                except BaseException as exc:
                    self._failure = exc
            if self._failure:
                raise self._failure
