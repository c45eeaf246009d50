# SPDX-License-Identifier: Apache-2.0
"""Kinds of commands: osc-lib's, with nothing of others' left to do to a terminal."""

from osc_lib import exceptions
from osc_lib.command import command

from hotsnap_nova import terminal


class _Told:
    """What fails is told without control characters, whosever words those are."""

    def run(self, parsed_args):
        try:
            return super().run(parsed_args)
        except Exception as exc:
            if (text := terminal.escaped(str(exc))) != str(exc):
                raise exceptions.CommandError(text) from exc
            raise


class Command(_Told, command.Command):
    """Does something."""


class Lister(_Told, terminal.OfRows, command.Lister):
    """Prints a table."""


class ShowOne(_Told, terminal.OfOne, command.ShowOne):
    """Prints one thing."""
