# SPDX-License-Identifier: Apache-2.0
"""``openstack server group snapshot restore``"""

from hotsnap_nova.osc import arguments, columns, command, progress


class RestoreSnapshot(command.Command):
    """Bring all servers of a snapshot back to the moment it was taken."""

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        arguments.add_snapshot(parser)
        parser.add_argument(
            '--ignore-new-members', action='store_true',
            help='Leave servers that joined the group after the snapshot as they are')
        parser.add_argument(
            '--drop-internal-snapshots', action='store_true',
            help='Drop snapshots and checkpoints of backups that are in the disks of today, and '
                 'go with them')
        parser.add_argument(
            '--keep-present', metavar='<name>',
            help='Take a snapshot of the servers as they are first, and name it so: a restore of '
                 'that undoes this one. Where it fails nothing is restored')
        arguments.add_wait(parser, 'all members run')
        return parser

    def take_action(self, parsed_args):
        snapshots = self.app.client_manager.hotsnap
        snapshot = snapshots.find(parsed_args.snapshot)
        snapshots.restore(snapshot.id, parsed_args.ignore_new_members,
                          parsed_args.drop_internal_snapshots, parsed_args.keep_present)
        if parsed_args.wait:
            snapshot = snapshots.wait_until_acted(
                snapshot.id, watch=progress.teller(self.app, snapshot.name))
            for each in snapshot.last_action.warnings if snapshot.last_action else ():
                self.app.stderr.write(columns.warned(each) + '\n')
