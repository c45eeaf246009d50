# SPDX-License-Identifier: Apache-2.0
"""Disks that restores replaced, dropped once they were kept for long enough."""

import threading
from collections.abc import Callable

from oslo_log import log as logging

LOG = logging.getLogger(__name__)

#: They are kept for hours: nobody waits for this.
_EVERY_S = 600.0
#: A folder that hangs must not keep a command from its end.
_END_S = 5.0


class Expiry:
    """Drops what has expired at its start, and from time to time until it is stopped.

    :param drop: drops it, and returns paths of what was dropped
    """

    def __init__(self, drop: Callable[[], tuple[str, ...]], every_s: float = _EVERY_S):
        self._drop = drop
        self._every_s = every_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name='hotsnap-expiry')

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """End after what it is at."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(_END_S)

    def _run(self):
        while True:
            try:
                for path in self._drop():
                    LOG.info('Dropped %s: it was replaced by a restore and kept long enough',
                             path)
            except Exception:    # tried again; nothing else depends on it
                LOG.exception('Disks that restores replaced cannot be looked for')
            if self._ended.wait(self._every_s):
                return
