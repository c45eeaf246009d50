# SPDX-License-Identifier: Apache-2.0
"""Steps that start as soon as those they need have ended, several at a time."""

import concurrent.futures
import dataclasses
import time
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Step:
    """One step. ``needs`` names steps that must have ended before."""

    name: str
    run: Callable[[], None]
    needs: tuple[str, ...] = ()


def run(steps: list[Step], say: Callable[[str], None]) -> None:
    """Run all; say of each how long it took.

    After the first failure nothing more is begun, what runs is waited for, and it is raised.
    """
    began = time.monotonic()
    waiting = {step.name: step for step in steps}
    done: set[str] = set()
    running: dict[concurrent.futures.Future, str] = {}
    failure: Exception | None = None

    def timed(step: Step) -> None:
        started = time.monotonic()
        step.run()
        ended = time.monotonic()
        say(f'{ended - began:6.1f} s  {step.name} ({ended - started:.1f} s)')

    with concurrent.futures.ThreadPoolExecutor(len(steps)) as pool:
        while waiting or running:
            if failure is None:
                possible = [step for step in waiting.values() if done.issuperset(step.needs)]
                for step in possible:
                    del waiting[step.name]
                    running[pool.submit(timed, step)] = step.name
            if not running:
                break
            ended, _ = concurrent.futures.wait(
                running, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in ended:
                name = running.pop(future)
                failure = failure or future.exception()
                done.add(name)
    if failure is not None:
        raise failure
    if waiting:
        raise ValueError(f'steps that wait for one another: {sorted(waiting)}')
