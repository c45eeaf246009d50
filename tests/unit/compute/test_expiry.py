# SPDX-License-Identifier: Apache-2.0
"""Replaced disks are dropped at the start and from time to time, whatever fails."""

import threading

from hotsnap_nova.compute import expiry


class Kept:
    """What is dropped at each look; an exception is raised."""

    def __init__(self, *looks):
        self._looks = list(looks)
        self.over = threading.Event()

    def __call__(self):
        look = self._looks.pop(0)
        if not self._looks:
            self.over.set()
            self._looks.append(())
        if isinstance(look, Exception):
            raise look
        return look


def test_the_first_look_is_done_before_the_end_of_a_short_process():
    kept = Kept(('/a',))
    running = expiry.Expiry(kept, every_s=3600)

    running.start()
    running.stop()

    assert kept.over.is_set()


def test_it_looks_again_and_again_after_a_failure_too():
    kept = Kept((), OSError('away'), ('/a',))
    running = expiry.Expiry(kept, every_s=0.01)

    running.start()

    assert kept.over.wait(10)
    running.stop()
    assert not running._thread.is_alive()


def test_what_never_started_can_be_stopped():
    expiry.Expiry(Kept(())).stop()
