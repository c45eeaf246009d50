# SPDX-License-Identifier: Apache-2.0
"""What the commands share: errors in one line, times and sizes for people."""

import argparse
import ipaddress
import sys

from cliff import command, lister, show

from hotsnap_nova import exception, terminal
from hotsnap_nova.cmd import interrupts

FAILED = 1
INTERRUPTED = 130
_UNITS = ('KiB', 'MiB', 'GiB', 'TiB')


class _Explained:
    """Prints a failure as one line on stderr."""

    examples = ''

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        if self.examples:
            parser.epilog = f'examples:\n{self.examples}'
        return parser

    def run(self, parsed_args):
        try:
            return super().run(parsed_args)
        except exception.HotsnapError as exc:
            if self.app.options.debug:
                raise
            self.app.complain(exc)
            return FAILED
        except interrupts.Interrupted as exc:
            self.app.stderr.write(terminal.escaped(f'hotsnap: {exc}\n'))
            return INTERRUPTED


class OfOne:
    """Beside one of the kinds below: of one snapshot, ``args.snapshot``."""

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        parser.add_argument('snapshot', metavar='SNAPSHOT', help='name or id')
        return parser


class Command(_Explained, command.Command):
    """Does something and says nothing, or a line."""


class Lister(_Explained, terminal.OfRows, lister.Lister):
    """Prints a table."""


class ShowOne(_Explained, terminal.OfOne, show.ShowOne):
    """Prints one thing."""


def add_domains(parser) -> None:
    parser.add_argument('--domain', metavar='DOMAIN', action='append', default=[],
                        help="a member: a libvirt domain's name or UUID (repeatable)")


def add_addresses(parser) -> None:
    parser.add_argument('--address', metavar='MAC=IP[,IP]...', action='append', default=[],
                        help='with gate marker: IP addresses of a member\'s NIC (repeatable); '
                             'those that a network filter is told of in its domain\'s XML are '
                             'known')


def addresses(args) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """What ``--address`` says.

    :raises InvalidValue:
    """
    from oslo_utils import netutils
    found = []
    for each in args.address:
        mac, _, ips = each.partition('=')
        if not netutils.is_valid_mac(mac):
            raise exception.InvalidValue(name='address', reason=f'{each} is no MAC=IP[,IP]...')
        try:
            known = tuple(str(ipaddress.ip_address(ip)) for ip in ips.split(','))
        except ValueError as exc:
            raise exception.InvalidValue(name='address', reason=str(exc)) from exc
        found.append((mac.lower(), known))
    return tuple(found)


def is_quiet(app) -> bool:
    return app.options.verbose_level == 0 or app.stderr is not sys.stderr


def size(count: int | None) -> str:
    """1536 → '1.5 KiB'."""
    if count is None:
        return ''
    if count < 1024:
        return f'{count} B'
    power = min((count.bit_length() - 1) // 10, len(_UNITS))
    return f'{count / 1024 ** power:.1f} {_UNITS[power - 1]}'
