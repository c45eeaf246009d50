# SPDX-License-Identifier: Apache-2.0
"""``openstack server group snapshot check``"""

from osc_lib.cli import format_columns

from hotsnap_nova.osc import arguments, columns, command

_IMPOSSIBLE = 1


class CheckSnapshot(command.ShowOne):
    """Say whether a server group can be snapshotted and restored, and what stands in the way.

    Touches nothing. Exit status 1: it cannot.
    """

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        arguments.add_group(parser)
        arguments.add_gate(parser)
        return parser

    def take_action(self, parsed_args):
        group = arguments.group_id(self.app.client_manager, parsed_args.group)
        verdict = self.app.client_manager.hotsnap.check(
            group, gate=parsed_args.gate, disk=parsed_args.disk)
        self._possible = verdict.possible and verdict.restorable
        return (('possible', 'restorable', 'gates', 'findings'),
                (verdict.possible, verdict.restorable,
                 format_columns.ListColumn(list(verdict.gates)),
                 columns.FindingsColumn(verdict.findings)))

    def run(self, parsed_args):
        self._possible = True
        return super().run(parsed_args) or (0 if self._possible else _IMPOSSIBLE)
