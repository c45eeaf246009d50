# SPDX-License-Identifier: Apache-2.0
"""Members brought to the store, a snapshot's in a thread of its own: it may take an hour."""

import dataclasses
import threading
import time
from collections.abc import Callable

from oslo_log import log as logging

from hotsnap_nova import exception, runner
from hotsnap_nova.compute import translate
from hotsnap_nova.protocol import commands
from hotsnap_nova.storage import base, digest
from hotsnap_nova.virt import records

LOG = logging.getLogger(__name__)

_PROGRESS_EVERY_S = 0.2


class Saves:
    """All saves of one host that are under way.

    :param engine: `virt.host.Engine`, or one like it
    :param receive: takes progress and outcomes: `runner.Runner.receive`
    """

    def __init__(self, host: str, engine, store: base.Store,
                 receive: Callable[[object], None]):
        self._host = host
        self._engine = engine
        self._store = store
        self._receive = receive
        self._threads: dict[str, threading.Thread] = {}
        self._given_up: set[str] = set()

    def begin(self, command: commands.SaveMembers, work: records.Work) -> None:
        """Save, and tell the end of it."""
        thread = threading.Thread(target=self._keep_saving, args=(command, work), daemon=True,
                                  name=f'hotsnap-save-{command.snapshot[:8]}')
        self._threads[command.snapshot] = thread
        thread.start()

    def give_up(self, snapshot: str) -> None:
        """Have it end soon: what the engine has brought home is read no further."""
        if snapshot in self._threads:
            self._given_up.add(snapshot)

    def wait(self, snapshot: str, timeout_s: float) -> None:
        """Return when it holds no file open any more, or the time is over; its own returns."""
        saving = self._threads.get(snapshot)
        if saving and saving is not threading.current_thread():
            saving.join(timeout_s)

    def close(self, timeout_s: float) -> tuple[str, ...]:
        """Wait for all; the snapshots whose saves do not end in time."""
        ends = time.monotonic() + timeout_s
        saves = tuple(self._threads.items())
        for _, thread in saves:
            thread.join(max(0.0, ends - time.monotonic()))
        return tuple(snapshot for snapshot, thread in saves if thread.is_alive())

    def _keep_saving(self, command, work):
        try:
            saved = self._engine.save(work, self._teller(command))
            saved = tuple(self._with_digests(work, each) for each in saved)
            self._store.sync(command.snapshot, self._host)    # before anybody is told
            outcome = commands.MembersSaved(command.snapshot, command.epoch,
                                            translate.saved_detail(saved))
        except Exception as exc:
            if not isinstance(exc, exception.HotsnapError):
                LOG.exception('Saving %s failed', command.snapshot)
            outcome = commands.CommandFailed(command, runner.cause_of(exc, self._host))
        try:
            self._receive(outcome)
        finally:
            self._threads.pop(command.snapshot, None)
            self._given_up.discard(command.snapshot)

    def _with_digests(self, work, saved):
        """The engine digests what passes it; the rest is read once it is complete."""
        def go_on(_bytes):
            if work.snapshot_id in self._given_up:
                raise exception.Aborted(who='a discard')

        folder = f'{work.folder}/{saved.member}'
        files = []
        for file in saved.files:
            if not file.digest:
                with open(f'{folder}/{file.name}', 'rb', buffering=0) as content:
                    file = dataclasses.replace(file, digest=digest.file_digest(
                        content.fileno(), go_on, self._store.reading))
            files.append(file)
        return dataclasses.replace(saved, files=tuple(files))

    def _teller(self, command):
        """Hands the engine's progress to the machine, now and then."""
        done: dict[str, records.Progress] = {}
        told = 0.0

        def tell(progress):
            nonlocal told
            done[progress.member] = progress
            if time.monotonic() - told >= _PROGRESS_EVERY_S:
                told = time.monotonic()
                self._receive(commands.SaveProgress(
                    command.snapshot, command.epoch, translate.progress(done)))
        return tell
