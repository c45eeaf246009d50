# SPDX-License-Identifier: Apache-2.0
"""``openstack server group snapshot list``"""

from osc_lib.cli import format_columns

from hotsnap_nova.osc import arguments, columns, command

_STATUSES = ('creating', 'available', 'restoring', 'deleting', 'error', 'error_deleting')
_BRIEF = {'ID': 'id', 'Name': 'name', 'Status': 'status', 'Server Group': 'server_group_name',
          'Created At': 'created_at'}
_LONG = {'Server Group ID': 'server_group_id', 'Project ID': 'project_id', 'Gate': 'gate',
         'Skew (ms)': 'skew_ms', 'Size (bytes)': 'size_bytes', 'Description': 'description'}


class ListSnapshot(command.Lister):
    """List snapshots of server groups, newest first."""

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        parser.add_argument('--group', metavar='<server-group>',
                            help='Only of this server group (name or ID; ID if it was deleted)')
        parser.add_argument('--status', metavar='<status>', choices=_STATUSES,
                            help=f'Only with this status: {", ".join(_STATUSES)}')
        parser.add_argument('--name', metavar='<name>', help='Only with this name')
        parser.add_argument('--long', action='store_true', help='List additional fields')
        parser.add_argument('--all-projects', action='store_true',
                            help='Include all projects (admin only)')
        parser.add_argument('--marker', metavar='<snapshot>',
                            help='The last snapshot of the previous page (ID)')
        parser.add_argument('--limit', metavar='<limit>', type=int,
                            help='Snapshots a request; the server may allow less')
        parser.add_argument('--max-items', metavar='<max-items>', type=int,
                            help='Show no more snapshots than this')
        return parser

    def take_action(self, parsed_args):
        group = parsed_args.group and arguments.group_id(
            self.app.client_manager, parsed_args.group, deleted=True)
        found = self.app.client_manager.hotsnap.list(
            detailed=parsed_args.long, max_items=parsed_args.max_items, server_group_id=group,
            status=parsed_args.status, name=parsed_args.name, marker=parsed_args.marker,
            limit=parsed_args.limit, all_projects=parsed_args.all_projects or None)
        if not parsed_args.long:
            return tuple(_BRIEF), (_values(each, _BRIEF) for each in found)
        titles = (*_BRIEF, *_LONG, 'Properties', 'Error')
        return titles, (_values(each, _BRIEF | _LONG) + (
            format_columns.DictColumn(each.properties), columns.ErrorColumn(each.error))
            for each in found)


def _values(snapshot, fields):
    return tuple(getattr(snapshot, name) for name in fields.values())
