# SPDX-License-Identifier: Apache-2.0
"""What is kept of a round that should not have failed."""

import contextlib
import dataclasses
import json
import pathlib
import shutil

from tests.rounds.rounds import Round, Rounds


def keep(folder: pathlib.Path, rounds: Rounds, done: Round, seed: str) -> None:
    """Write findings, counters before the resume, and every log to ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    record = dataclasses.asdict(done)
    record['messages'] = {f'{sender}->{receiver} {kind}': count
                          for (sender, receiver, kind), count in done.messages.items()}
    (folder / 'round.json').write_text(json.dumps({'seed': seed, **record}, indent=1))
    logs = [rounds.hotsnap.log, *(guest.console for guest in rounds.group)]
    logs += [log for guest in rounds.group for log in guest.folder.parents[1].glob('log/**/*.log')]
    for log in logs:
        # A log that is not there says enough.
        with contextlib.suppress(OSError):
            shutil.copy(log, folder / f'{log.parent.name}-{log.name}')
    if done.shown:
        with contextlib.suppress(OSError):
            (folder / 'manifest.json').write_text(
                json.dumps(rounds.hotsnap.manifest(done.shown), indent=1))
