# SPDX-License-Identifier: Apache-2.0
"""``hotsnap check`` and ``hotsnap recover``"""

from hotsnap_nova.cmd import base


class Check(base.Lister):
    """Say whether a group can be snapshotted, by which gates, and restored; nothing is touched.

    Exit status 1: it cannot, or not by the gate that was asked for.
    """

    examples = '  hotsnap check --domain web --domain db\n'

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        base.add_domains(parser)
        parser.add_argument('--gate', default='auto', metavar='auto|hold|barrier|marker',
                            help='marker: say whether it is possible, too')
        base.add_addresses(parser)
        return parser

    def take_action(self, args):
        addresses = base.addresses(args)
        with self.app.open_services() as services:
            found = services.open().check(
                tuple((name, services.host) for name in args.domain), args.gate,
                addresses=addresses)
        self._impossible = (not found['restorable']
                            or args.gate not in ('auto', *found['gates']))
        rows = [(each['member'], each['device'], each['cause'], each['remedy'],
                 ', '.join(each['rules_out']) or 'nothing: a warning')
                for each in found['findings']]
        if found['possible']:
            rows += [('all', '', f'gate {gate} is possible', '', '') for gate in found['gates']]
        return ('Member', 'Device', 'Finding', 'Remedy', 'Rules out'), rows

    def run(self, parsed_args):
        self._impossible = False
        return super().run(parsed_args) or (base.FAILED if self._impossible else 0)


class Recover(base.Lister):
    """Clean up after processes that died: guests run, gates open, nothing of ours left.

    Every other command that works with guests does so too; this one does nothing else.
    """

    examples = '  hotsnap recover\n'

    def take_action(self, args):    # noqa: ARG002  cliff passes it
        with self.app.open_services() as services:
            snapshots = services.open()
            rows = []
            for snapshot in services.recovered:
                row = snapshots.get(snapshot)
                rows.append((row.id, row.name, row.status, row.error_message or ''))
        return ('ID', 'Name', 'Status', 'Cause'), rows
