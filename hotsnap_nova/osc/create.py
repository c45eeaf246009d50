# SPDX-License-Identifier: Apache-2.0
"""``openstack server group snapshot create``"""

from hotsnap_nova.osc import arguments, columns, command, progress


class CreateSnapshot(command.ShowOne):
    """Take a consistent snapshot of all servers of a group, while they run."""

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        arguments.add_group(parser)
        parser.add_argument('--name', metavar='<name>',
                            help="Name of the snapshot (default: made from the group's name)")
        parser.add_argument('--description', metavar='<description>',
                            help='Description of the snapshot')
        arguments.add_property(parser)
        arguments.add_gate(parser)
        arguments.add_wait(parser, 'all is saved')
        return parser

    def take_action(self, parsed_args):
        snapshots = self.app.client_manager.hotsnap
        group = arguments.group_id(self.app.client_manager, parsed_args.group)
        snapshot = snapshots.create(
            group, name=parsed_args.name, description=parsed_args.description,
            properties=parsed_args.properties, gate=parsed_args.gate, disk=parsed_args.disk)
        if parsed_args.wait:
            snapshot = snapshots.wait_until_made(
                snapshot.id, watch=progress.teller(self.app, snapshot.name))
        return columns.detailed(snapshot)
