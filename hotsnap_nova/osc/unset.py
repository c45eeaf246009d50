# SPDX-License-Identifier: Apache-2.0
"""``openstack server group snapshot unset``"""

from osc_lib import exceptions

from hotsnap_nova.osc import arguments, command


class UnsetSnapshot(command.Command):
    """Unset properties of a snapshot of a server group."""

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        arguments.add_snapshot(parser)
        parser.add_argument(
            '--property', metavar='<key>', action='append', dest='properties', required=True,
            help='Property to remove from the snapshot (repeat option for several)')
        return parser

    def take_action(self, parsed_args):
        snapshots = self.app.client_manager.hotsnap
        snapshot = snapshots.find(parsed_args.snapshot)
        if unknown := sorted(set(parsed_args.properties) - snapshot.properties.keys()):
            raise exceptions.CommandError(
                f'Snapshot {snapshot.name} has no property {", ".join(unknown)}')
        snapshots.update(snapshot.id, properties={
            key: value for key, value in snapshot.properties.items()
            if key not in parsed_args.properties})
