# SPDX-License-Identifier: Apache-2.0
"""``hotsnap``: group snapshots of libvirt's guests, without OpenStack."""

import argparse
import contextlib
import logging
import logging.handlers
import os
import sys
from importlib import metadata

from cliff import app, commandmanager

from hotsnap_nova import conf, exception, terminal
from hotsnap_nova.cmd import check, snapshot, view

#: What to do about an error whose message does not say so already.
REMEDIES = {
    'empty_group': 'Name at least one with --domain.',
    'duplicate_member': 'Name each once.',
    'member_not_found': '`virsh list --all` shows what there is.',
    'guest_not_running': 'Start or resume it first.',
    'guest_busy': 'Try again when that has ended.',
    'name_taken': 'Choose another name, or delete that snapshot.',
    'name_not_unique': '`hotsnap snapshot list` shows the ids.',
    'snapshot_not_found': '`hotsnap snapshot list` shows what there is.',
    'snapshot_damaged': 'Nothing was changed; the snapshot cannot be used.',
    'manifest_damaged': 'Nothing was changed; the snapshot cannot be used.',
    'guest_changed': 'Try again.',
    'cut_not_clean': 'Try again while nobody else stops or resumes it.',
    'not_enough_space': 'Make room, or name another folder with --store.',
    'gate_opened': 'Try again, or raise --max-hold-ms.',
    'cleanup_incomplete': '`hotsnap recover` tries again.',
    'pause_too_long': 'Try again, or raise --max-pause-ms.',
}
COMMANDS = {
    'snapshot create': snapshot.Create,
    'snapshot list': snapshot.List,
    'snapshot show': snapshot.Show,
    'snapshot verify': snapshot.Verify,
    'snapshot restore': snapshot.Restore,
    'snapshot export': snapshot.Export,
    'snapshot delete': snapshot.Delete,
    'snapshot abort': snapshot.Abort,
    'check': check.Check,
    'recover': check.Recover,
}
_EXAMPLES = """examples:
  hotsnap check --domain web --domain db
  hotsnap snapshot create before-upgrade --domain web --domain db --wait
  hotsnap snapshot show before-upgrade
  hotsnap snapshot restore before-upgrade
  hotsnap snapshot list -f json
"""


class Shell(app.App):
    """The command line.

    :param open_engine: gives an engine for (uri, keep_hours); None: QEMU's
    """

    NAME = 'hotsnap'

    def __init__(self, open_engine=None, **streams):
        commands = commandmanager.CommandManager(None)
        for name, command in COMMANDS.items():
            commands.add_command(name, command)
        super().__init__(
            description='Consistent hot snapshots of groups of running guests.',
            version=_version(), command_manager=commands, deferred_help=True,
            **streams)
        self._open_engine = open_engine
        self.conf = None
        self.services = None

    def build_option_parser(self, description, version, argparse_kwargs=None):
        """Global options; the rest of the configuration is in files."""
        parser = super().build_option_parser(description, version, {
            'epilog': _EXAMPLES, 'formatter_class': argparse.RawDescriptionHelpFormatter,
            **(argparse_kwargs or {})})
        parser.add_argument('--config-file', metavar='FILE', action='append', default=[],
                            help='read [hotsnap] options from FILE (repeatable)')
        parser.add_argument('--uri', metavar='URI', help='libvirt URI of the guests')
        parser.add_argument('--state', metavar='FOLDER',
                            help='folder for database, journal and locks')
        parser.add_argument('--store', metavar='FOLDER',
                            help='folder for snapshots (default: store in the state folder)')
        return parser

    def initialize_app(self, argv):    # noqa: ARG002  cliff passes it
        from oslo_config import cfg
        config = cfg.CONF
        conf.register(config)
        try:
            config([], project='hotsnap', default_config_dirs=[],
                   default_config_files=self.options.config_file or _default_files())
            self.conf = config.hotsnap
            self._override(config)
            self._log_to_file()
        except cfg.Error as exc:
            raise exception.InvalidValue(name='configuration', reason=str(exc)) from exc

    def open_services(self):
        """`cmd.local.Local`, which opens what a command needs."""
        from hotsnap_nova.cmd import local
        self.services = local.Local(self.conf, self._open_engine)
        return self.services

    def configure_logging(self):
        """Errors to the terminal by us, everything else to a file; more with -v."""
        root = logging.getLogger('')
        root.setLevel(logging.WARNING)
        logging.getLogger('hotsnap_nova').setLevel(
            logging.DEBUG if self.options.verbose_level > 2 else logging.INFO)
        for logger in (root, self.LOG):
            for handler in _ours(logger):
                logger.removeHandler(handler)
        # What cliff itself has to say: an unknown command, no configuration.
        own = _OurStream(self.stderr)
        own.setFormatter(logging.Formatter('hotsnap: %(message)s'))
        self.LOG.addHandler(own)
        if self.options.verbose_level > 1:
            console = _OurStream(self.stderr)
            console.setFormatter(logging.Formatter('%(levelname)s %(name)s: %(message)s'))
            root.addHandler(console)

    def explain(self, error: Exception) -> str:
        """One line: what happened, and what to do."""
        text = terminal.escaped(' '.join(str(error).split()))
        remedy = REMEDIES.get(getattr(error, 'code', ''))
        if remedy:
            text = f'{text.rstrip(".")}. {remedy}'
        return text

    def complain(self, error: Exception) -> None:
        """Print that line on stderr."""
        self.stderr.write(f'hotsnap: {self.explain(error)}\n')

    def warn(self, warnings) -> None:
        """Print what a restore warns of on stderr: see `view.warned`."""
        for each in warnings:
            self.stderr.write(f'hotsnap: {view.warned(each)}\n')

    def _override(self, config):
        given = self.options
        if given.uri:
            config.set_override('uri', given.uri, group=conf.GROUP)
        if given.state:
            config.set_override('state_path', given.state, group=conf.GROUP)
            config.set_override('store_path', os.path.join(given.state, 'store'),
                                group=conf.GROUP)
        if given.store:
            config.set_override('store_path', given.store, group=conf.GROUP)

    def _log_to_file(self):
        path = self.options.log_file or os.path.join(self.conf.state_path, 'hotsnap.log')
        try:
            handler = _OurFile(path, delay=True)
            handler.setFormatter(logging.Formatter(
                '%(asctime)s %(process)d %(levelname)s %(name)s %(message)s'))
            logging.getLogger('').addHandler(handler)
        except OSError:    # who may only look has nothing to log
            pass


class _OurStream(logging.StreamHandler):
    pass


class _OurFile(logging.handlers.WatchedFileHandler):
    def emit(self, record):
        # A full or missing folder must not end what is logged about.
        with contextlib.suppress(OSError):
            super().emit(record)


def _ours(logger):
    return [handler for handler in logger.handlers if isinstance(handler, (_OurStream, _OurFile))]


def _version():
    try:
        return metadata.version('hotsnap-nova')
    except metadata.PackageNotFoundError:    # run from a checkout
        return 'unknown'


def _default_files():
    path = '/etc/hotsnap/hotsnap.conf'
    return [path] if os.path.exists(path) else []


def main(argv=None, open_engine=None) -> int:
    """Exit status: 0 done, 1 failed, 2 not understood, 130 interrupted."""
    shell = Shell(open_engine)
    status = shell.run(sys.argv[1:] if argv is None else argv)
    if shell.services and shell.services.hangs:
        # Threads that hang in libvirt would be waited for at the interpreter's end.
        sys.stdout.flush()
        os._exit(status)
    return status


if __name__ == '__main__':
    sys.exit(main())
