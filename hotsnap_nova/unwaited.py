# SPDX-License-Identifier: Apache-2.0
"""Work that may hang for ever, in a thread that nobody has to wait for.

An executor of `concurrent.futures` waits for its threads when it, or the process, ends.
"""

import concurrent.futures
import threading
from collections.abc import Callable


def begin(work: Callable, name: str) -> concurrent.futures.Future:
    """What becomes of ``work``, which runs in a thread of that name.

    It cannot be cancelled: whoever does not want it any more drops it.
    """
    future = concurrent.futures.Future()

    def run():
        try:
            future.set_result(work())
        except BaseException as exc:
            future.set_exception(exc)
    threading.Thread(target=run, daemon=True, name=name).start()
    return future
