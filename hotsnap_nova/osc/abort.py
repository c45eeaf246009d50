# SPDX-License-Identifier: Apache-2.0
"""``openstack server group snapshot abort``"""

from osc_lib import exceptions

from hotsnap_nova.osc import arguments, command, progress


class AbortSnapshot(command.Command):
    """Give up a snapshot that is being made; nothing of it stays but its row, in error."""

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        arguments.add_snapshot(parser)
        arguments.add_wait(parser, 'it is over')
        return parser

    def take_action(self, parsed_args):
        snapshots = self.app.client_manager.hotsnap
        snapshot = snapshots.find(parsed_args.snapshot)
        snapshots.abort(snapshot.id)
        if not parsed_args.wait:
            return
        ended = snapshots.wait_while(lambda each: each.status == 'creating', snapshot.id,
                                     watch=progress.teller(self.app, snapshot.name))
        if ended and ended.status != 'error':
            raise exceptions.CommandError(
                f'Too late: snapshot {snapshot.name} is {ended.status}.')
