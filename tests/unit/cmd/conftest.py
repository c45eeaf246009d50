# SPDX-License-Identifier: Apache-2.0
import io
import itertools
import multiprocessing
import os
import pathlib

import pytest

from hotsnap_nova.cmd import shell
from hotsnap_nova.storage import local
from tests.fakes import hotsnap as fake_hotsnap
from tests.fakes import tables
from tests.fakes.engine import Engine, World
from tests.fakes.ran import Ran

#: Forks of a process that has imported all and done nothing: what a command imports when it needs
#: it would cost each of them 0.6 s of a processor.
_FORKS = multiprocessing.get_context('forkserver')
_FORKS.set_forkserver_preload([
    'hotsnap_nova.rpc',    # the first: it says that there are threads and no greenlets
    fake_hotsnap.__name__, 'cliff.formatters.json_format', 'cliff.formatters.table', 'wcwidth',
    'hotsnap_nova.cmd.local', 'hotsnap_nova.cmd.progress', 'hotsnap_nova.compute.endpoint',
    'hotsnap_nova.compute.exports', 'hotsnap_nova.compute.server',
    'hotsnap_nova.compute.service', 'hotsnap_nova.conductor.snapshots', 'hotsnap_nova.db.api',
    'hotsnap_nova.storage.local', 'hotsnap_nova.storage.verification'])


class Process:
    """A command that runs, as far as tests use of `subprocess.Popen`."""

    def __init__(self, args, environment, out, err):
        self._printed = pathlib.Path(out), pathlib.Path(err)
        self._process = _FORKS.Process(
            target=fake_hotsnap.run, args=(args, environment, out, err), daemon=True)
        self._process.start()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._process.join()

    @property
    def returncode(self):
        return self._process.exitcode

    def send_signal(self, number):
        os.kill(self._process.pid, number)

    def communicate(self, timeout):
        """What it printed, and on standard error, once it has ended."""
        self._process.join(timeout)
        assert self.returncode is not None, 'it does not end'
        return tuple(path.read_text() for path in self._printed)


class Hotsnap:
    """The command on a folder of its own with three fake guests: a, b and c."""

    def __init__(self, folder):
        self.state = f'{folder}/state'
        self._folder = folder
        self._numbers = itertools.count()
        os.mkdir(self.state, 0o700)
        tables.make(f'{self.state}/hotsnap.db')
        self.world = World(f'{folder}/world.json')
        for name in 'abc':
            self.world.add(name)
        self.engines = []
        self.save_s = 0.0
        self.faults = {}
        self.warns = {}

    def __call__(self, *args):
        """Run the real shell in this process."""
        out, err = io.StringIO(), io.StringIO()
        under_test = shell.Shell(self._open_engine, stdout=out, stderr=err)
        try:
            status = under_test.run(['--state', self.state, *args])
        except SystemExit as exc:    # how argparse and cliff's help end a process
            status = exc.code or 0
        return Ran(status, out.getvalue(), err.getvalue())

    def process(self, *args, **environment):
        """Start the command as a process of its own."""
        printed = f'{self._folder}/printed-{next(self._numbers)}'
        return Process(['--state', self.state, *args],
                       os.environ | {'WORLD': self.world.path} | environment,
                       f'{printed}.out', f'{printed}.err')

    def run(self, *args, **environment):
        process = self.process(*args, **environment)
        out, err = process.communicate(60)
        return Ran(process.returncode, out, err)

    def create(self, name='one', *args):
        return self('snapshot', 'create', name, '--domain', 'a', '--domain', 'b',
                    '--max-hold-ms', '5000', '--wait', '-f', 'json', *args)

    def show(self, name='one'):
        return self('snapshot', 'show', name, '-f', 'json').json

    @property
    def store(self):
        return local.LocalStore(f'{self.state}/store')

    def left(self):
        """What is left beside database, log, ledger and published snapshots."""
        found = [name for part in ('journal', 'locks')
                 for name in os.listdir(f'{self.state}/{part}')]
        found += os.listdir(os.environ['OS_HOTSNAP__LOCK_PATH'])
        return found + [draft.snapshot_id for draft in self.store.drafts()]

    def _open_engine(self, uri, keep_hours):
        engine = Engine(self.world)
        engine.save_s, engine.faults = self.save_s, dict(self.faults)
        engine.warns = self.warns
        self.engines.append(engine)
        return engine


@pytest.fixture
def hotsnap(tmp_path, monkeypatch):
    # Fake guests have the same ids in every test and run.
    monkeypatch.setenv('OS_HOTSNAP__LOCK_PATH', f'{tmp_path}/locks')
    return Hotsnap(tmp_path)
