# SPDX-License-Identifier: Apache-2.0
"""``nova-hotsnap-manage``: the operator's commands for the coordinators and their database."""

import argparse
import datetime
import logging as python_logging
import sys
import time

from cliff import app, command, commandmanager, lister
from oslo_config import cfg
from oslo_log import log as logging

from hotsnap_nova import conf, exception, rpc, terminal
from hotsnap_nova.conductor import rpcapi, service

#: A service silent for so many intervals is down.
_MISSED = 3
#: How long a host may be at the end of a part before the command gives up, and how often it is
#: asked.
_FORGET_S, _ASK_AGAIN_S = 60.0, 0.5


class _Lister(terminal.OfRows, lister.Lister):
    """Prints a table."""


class Sync(command.Command):
    """Create the tables or bring them to this version; harmless to repeat."""

    def take_action(self, _parsed):
        self.app.database.upgrade()


class Version(command.Command):
    """Say which version the tables have; fails where this software needs another."""

    def take_action(self, _parsed):
        found, _needed = self.app.database.version()
        print(found or 'no tables', file=self.app.stdout)
        self.app.database.must_be_current()


class Purge(command.Command):
    """Remove snapshots in error from the database; their data is gone already."""

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        which = parser.add_mutually_exclusive_group(required=True)
        which.add_argument('--before', metavar='DATE', type=_date,
                           help='those unchanged since, for example 2026-01-31 (UTC)')
        which.add_argument('--all-errors', action='store_true', help='all of them')
        return parser

    def take_action(self, parsed):
        self.app.database.must_be_current()
        before = parsed.before or datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
        count = self.app.database.purge(before)
        print(f'{count} removed', file=self.app.stdout)


class ListServices(_Lister):
    """List coordinators, and the hosts that take part, as they were last heard of."""

    def take_action(self, _parsed):
        self.app.database.must_be_current()
        now = self.app.database.now()
        config = cfg.CONF.hotsnap
        limits = {'nova-hotsnap-conductor': _MISSED * config.service_interval_s,
                  'nova-hotsnap-compute': _MISSED * config.host_interval_s}
        return (('Binary', 'Host', 'State', 'Version', 'RPC', 'Started At', 'Seen At'), [
            (each.binary, each.host,
             'up' if each.seen_at and now - each.seen_at <= limits[each.binary] else 'down',
             each.version, each.rpc_version, _moment(each.started_at), _moment(each.seen_at))
            for each in self.app.database.services()])


class ListErrands(_Lister):
    """List what hosts have yet to do, how often each was asked in vain, and why the last time."""

    def take_action(self, _parsed):
        self.app.database.must_be_current()
        return (('Host', 'Snapshot', 'Kind', 'Since', 'Attempts', 'Reason'), [
            (each.host, each.snapshot_id, each.kind, _moment(each.created_at), each.attempts,
             each.error or '')
            for each in self.app.database.errands()])


class DropErrands(command.Command):
    """Forget what a host owes; it will not be asked for that any more."""

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        parser.add_argument('host', metavar='HOST')
        parser.add_argument('--snapshot', metavar='ID', help='of this snapshot alone')
        return parser

    def take_action(self, parsed):
        self.app.database.must_be_current()
        dropped = [each for each in self.app.database.errands(parsed.host)
                   if parsed.snapshot in (None, each.snapshot_id)]
        for each in dropped:
            self.app.database.end_errand(each)
        print(f'{len(dropped)} dropped', file=self.app.stdout)


class ListParts(_Lister):
    """List what a host has of snapshots and restores, and whether it ends by itself."""

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        parser.add_argument('host', metavar='HOST')
        return parser

    def take_action(self, parsed):
        return (('Kind', 'ID', 'Snapshot', 'State', 'Members', 'Reason', 'Ends By Itself'), [
            (each['kind'], each['id'], each['snapshot'], each['state'],
             ', '.join(each['members']), each['reason'], each['awaited'])
            for each in self.app.conductor.parts(parsed.host)])


class ForgetPart(command.Command):
    """End on its host a part of a snapshot or restore that nobody is to end any more.

    A snapshot's is discarded, but for what is published. A restore goes on to the end that was
    decided, or is undone. What ends by itself is refused.
    """

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        parser.add_argument('host', metavar='HOST')
        parser.add_argument('part', metavar='ID', help='as `part list` has it')
        return parser

    def take_action(self, parsed):
        ends = time.monotonic() + _FORGET_S
        while not self.app.conductor.forget(parsed.host, parsed.part):
            if time.monotonic() >= ends:
                raise exception.HostUnreachable(
                    host=parsed.host, reason='it has not done it yet, and is still at it')
            time.sleep(_ASK_AGAIN_S)


COMMANDS = {'db sync': Sync, 'db version': Version, 'db purge': Purge,
            'errand list': ListErrands, 'errand drop': DropErrands,
            'part list': ListParts, 'part forget': ForgetPart, 'service list': ListServices}


class Shell(app.App):
    """The command line; options are read from nova.conf.

    :param transport: of Nova's API; None: as nova.conf has it
    """

    NAME = 'nova-hotsnap-manage'

    def __init__(self, transport=None, **streams):
        commands = commandmanager.CommandManager(None)
        for name, each in COMMANDS.items():
            commands.add_command(name, each)
        super().__init__(description='Looks after nova-hotsnap-conductor and its database.',
                         version=service.version(), command_manager=commands,
                         deferred_help=True, **streams)
        self._transport = transport
        self._database = None

    def build_option_parser(self, description, version, argparse_kwargs=None):
        parser = super().build_option_parser(description, version, argparse_kwargs)
        parser.add_argument('--config-file', metavar='FILE', action='append',
                            help='instead of /etc/nova/nova.conf (repeatable)')
        parser.add_argument('--config-dir', metavar='FOLDER', action='append',
                            help='a folder of such files (repeatable)')
        return parser

    def configure_logging(self):
        super().configure_logging()
        if self.options.verbose_level < 2:
            python_logging.getLogger('alembic').setLevel(python_logging.WARNING)

    def initialize_app(self, _argv):
        config = cfg.CONF
        conf.register(config)
        logging.register_options(config)
        given = [word for name in ('config-file', 'config-dir')
                 for path in getattr(self.options, name.replace('-', '_')) or ()
                 for word in (f'--{name}', path)]
        config(given, project='nova', prog='nova')

    @property
    def database(self):
        if self._database is None:
            self._database = service.open_database(cfg.CONF.hotsnap)
        return self._database

    @property
    def conductor(self):
        """Any coordinator; commands of the database alone need none."""
        if self._transport is None:
            self._transport = rpc.open_novas(cfg.CONF)
        return rpcapi.ConductorApi(self._transport, {})

    def clean_up(self, _command, _result, _error):
        if self._database is not None:
            self._database.close()


def _date(text):
    try:
        return datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f'{text} is no date like 2026-01-31') from exc


def _moment(seconds):
    if not seconds:
        return ''
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime('%Y-%m-%dT%H:%M:%SZ')


def main(argv=None) -> int:
    """Exit status: 0 done, 1 failed, 2 not understood."""
    return Shell().run(sys.argv[1:] if argv is None else argv)


if __name__ == '__main__':
    sys.exit(main())
