# SPDX-License-Identifier: Apache-2.0
"""``openstack server group snapshot set``"""

from hotsnap_nova.osc import arguments, command


class SetSnapshot(command.Command):
    """Set properties of a snapshot of a server group."""

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        arguments.add_snapshot(parser)
        parser.add_argument('--name', metavar='<name>', help='New name')
        parser.add_argument('--description', metavar='<description>', help='New description')
        arguments.add_property(parser)
        parser.add_argument(
            '--state', metavar='<state>', choices=('available', 'error'),
            help='New status: available, error. Changes nothing but the status, whatever goes '
                 'on (admin only)')
        return parser

    def take_action(self, parsed_args):
        snapshots = self.app.client_manager.hotsnap
        snapshot = snapshots.find(parsed_args.snapshot)
        values = {'name': parsed_args.name, 'description': parsed_args.description}
        if parsed_args.properties:
            values['properties'] = snapshot.properties | parsed_args.properties
        if any(value is not None for value in values.values()):
            snapshots.update(snapshot.id, **values)
        if parsed_args.state:
            snapshots.reset_status(snapshot.id, parsed_args.state)
