# SPDX-License-Identifier: Apache-2.0
"""``openstack server group snapshot show``"""

from hotsnap_nova.osc import arguments, columns, command


class ShowSnapshot(command.ShowOne):
    """Display a snapshot of a server group, with its members."""

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        arguments.add_snapshot(parser)
        return parser

    def take_action(self, parsed_args):
        return columns.detailed(self.app.client_manager.hotsnap.find(parsed_args.snapshot))
