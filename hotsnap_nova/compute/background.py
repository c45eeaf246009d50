# SPDX-License-Identifier: Apache-2.0
"""Commands that wait for a store, or an owner, which may hang: nobody waits for them long."""

import threading
from collections.abc import Callable, Iterable

from oslo_log import log as logging

from hotsnap_nova import exception, runner
from hotsnap_nova.protocol import commands

LOG = logging.getLogger(__name__)

#: What ends in time is as if it had been done by whoever asked for it.
_PATIENCE_S = 2.0


class Background:
    """Does commands in threads of their own.

    :param receive: takes the outcomes of those that nobody waits for any more
    """

    def __init__(self, host: str, receive: Callable[[object], None]):
        self._host = host
        self._receive = receive

    def do(self, command, work: Callable[[], Iterable]) -> Iterable:
        """The outcomes that ``work`` gives; none where it takes long: they are received later.

        :raises Exception: what it raises in time
        """
        return _Doing(command, work, self._host, self._receive).outcomes()


class _Doing:
    def __init__(self, command, work, host, receive):
        self._command = command
        self._work = work
        self._host = host
        self._receive = receive
        self._ended = threading.Condition()
        self._end = None
        self._is_left = False
        threading.Thread(target=self._run, daemon=True, name='hotsnap-background').start()

    def outcomes(self):
        with self._ended:
            if not self._ended.wait_for(lambda: self._end, _PATIENCE_S):
                LOG.warning('%(command)s of snapshot %(id)s takes long, and goes on in the '
                            'background', {'command': type(self._command).__name__,
                                           'id': self._command.snapshot})
                self._is_left = True
                return ()
        outcomes, error = self._end
        if error:
            raise error
        return outcomes

    def _run(self):
        end = (), exception.Bug(reason='the work ended without a word')
        try:
            end = tuple(self._work()), None
        except Exception as exc:
            end = (), exc
        finally:
            with self._ended:
                self._end = end
                self._ended.notify_all()
                left = self._is_left
        if left:
            self._tell(*end)

    def _tell(self, outcomes, error):
        if error and not isinstance(error, exception.HotsnapError):
            LOG.error('%s failed', type(self._command).__name__, exc_info=error)
        if error:
            outcomes = (commands.CommandFailed(
                self._command, runner.cause_of(error, self._host)),)
        for outcome in outcomes:
            self._receive(outcome)
