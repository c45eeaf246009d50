# SPDX-License-Identifier: Apache-2.0
"""``openstack server group snapshot verify``"""

from hotsnap_nova.osc import arguments, columns, command, progress


class VerifySnapshot(command.ShowOne):
    """Read all of a snapshot and compare it with what was written.

    Without --wait "show" tells the result, as last_action.
    """

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        arguments.add_snapshot(parser)
        arguments.add_wait(parser, 'all was read; fails if anything is damaged')
        return parser

    def take_action(self, parsed_args):
        snapshots = self.app.client_manager.hotsnap
        snapshot = snapshots.find(parsed_args.snapshot)
        snapshots.verify(snapshot.id)
        if parsed_args.wait:
            snapshot = snapshots.wait_until_acted(
                snapshot.id, watch=progress.teller(self.app, snapshot.name))
        else:
            snapshot = snapshots.get(snapshot.id)
        action = snapshot.last_action
        result = (action and action.result) or {}
        return (('id', 'name', 'last_action', 'files', 'size_bytes'),
                (snapshot.id, snapshot.name, columns.ActionColumn(action),
                 result.get('files'), result.get('size_bytes')))
