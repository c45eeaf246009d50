# SPDX-License-Identifier: Apache-2.0
"""``openstack server group snapshot delete``"""

import logging

from openstack import exceptions as sdk_exceptions
from osc_lib import exceptions

from hotsnap_nova import terminal
from hotsnap_nova.osc import arguments, command, progress

LOG = logging.getLogger(__name__)


class DeleteSnapshot(command.Command):
    """Delete snapshot(s) of server groups."""

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        parser.add_argument('snapshot', metavar='<snapshot>', nargs='+',
                            help='Snapshot(s) to delete (name or ID)')
        parser.add_argument(
            '--force', action='store_true',
            help='Delete in any status, and without waiting for hosts that do not answer (admin '
                 'only)')
        arguments.add_wait(parser, 'all are gone')
        return parser

    def take_action(self, parsed_args):
        snapshots = self.app.client_manager.hotsnap
        begun, failed = [], 0
        for name in parsed_args.snapshot:
            try:
                snapshot = snapshots.find(name)
                snapshots.delete(snapshot.id, parsed_args.force)
                begun.append((name, snapshot))
            except sdk_exceptions.SDKException as exc:
                failed += 1
                LOG.error('Failed to delete snapshot %s: %s', name, terminal.escaped(str(exc)))
        for name, snapshot in begun if parsed_args.wait else ():
            try:
                snapshots.wait_until_deleted(
                    snapshot.id, watch=progress.teller(self.app, name))
            except sdk_exceptions.SDKException as exc:
                failed += 1
                LOG.error('Failed to delete snapshot %s: %s', name, terminal.escaped(str(exc)))
        if failed:
            raise exceptions.CommandError(
                f'{failed} of {len(parsed_args.snapshot)} snapshots failed to delete.')
