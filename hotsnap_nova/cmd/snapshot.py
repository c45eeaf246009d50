# SPDX-License-Identifier: Apache-2.0
"""``hotsnap snapshot …``"""

import os

from hotsnap_nova import exception
from hotsnap_nova.cmd import base, create, view

_STATUSES = ('creating', 'available', 'restoring', 'deleting', 'error', 'error_deleting')
_COLUMNS = ('ID', 'Name', 'Status', 'Phase', 'Gate', 'Members', 'Created')


class Create(base.ShowOne):
    """Take a hot snapshot of a group of running guests.

    The guests go on: each is suspended for some milliseconds, and packets
    sent after a member's cut wait until all are past theirs. Without --wait
    the command returns when that is over; saving goes on in the background.
    """

    examples = """\
  hotsnap snapshot create nightly --domain web --domain db --wait
  hotsnap snapshot create nightly --domain web --domain db --gate barrier -f json
"""

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        create.add_arguments(parser)
        return parser

    def take_action(self, args):
        return view.detailed(create.create(self.app, args), machine=is_machine(args))


class List(base.Lister):
    """List snapshots."""

    examples = '  hotsnap snapshot list --status available -f json\n'

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        parser.add_argument('--status', choices=_STATUSES, metavar='STATUS',
                            help='only those: ' + ', '.join(_STATUSES))
        return parser

    def take_action(self, args):
        filters = {'status': args.status} if args.status else {}
        with self.app.open_services() as services:
            return _COLUMNS, [
                (row.id, row.name, row.status, row.phase, row.gate,
                 ', '.join(member.name for member in row.members), view.time(row.created_at))
                for row in services.open_database().list(**filters)]


class Show(base.OfOne, base.ShowOne):
    """Show a snapshot: per member pause, wait, hold, sizes, digests, progress."""

    examples = '  hotsnap snapshot show nightly\n  hotsnap snapshot show nightly -f json\n'

    def take_action(self, args):
        with self.app.open_services() as services:
            return view.detailed(services.open_database().get(args.snapshot),
                                 machine=is_machine(args))


class Verify(base.OfOne, base.ShowOne):
    """Read a snapshot whole and prove that it is as it was written."""

    examples = '  hotsnap snapshot verify nightly\n'

    def take_action(self, args):
        from hotsnap_nova.cmd import progress
        with (self.app.open_services() as services,
              progress.open_progress(self.app.stderr, base.is_quiet(self.app)) as bars):
            found = services.open().verify(
                args.snapshot, lambda *done: bars.watch({'phase': 'verify', 'bytes': done}))
        return (('snapshot', 'verified', 'files', 'size_bytes'),
                (args.snapshot, True, found['files'], found['size_bytes']))


class Restore(base.OfOne, base.Command):
    """Bring all members back to the cut.

    Digests are proved and files placed before anything is stopped. The disks
    that are replaced are kept aside (restore_keep_hours, 24 if not configured).
    """

    examples = """\
  hotsnap snapshot restore nightly
  hotsnap snapshot restore nightly --keep-present before-restore
"""

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        parser.add_argument('--paused', action='store_true',
                            help='leave the members suspended at the cut')
        parser.add_argument('--drop-internal-snapshots', action='store_true',
                            help='drop snapshots and checkpoints of backups that are in the disks '
                                 'of today, and go with them')
        parser.add_argument('--keep-present', metavar='NAME',
                            help='take a snapshot of the members as they are first, and name it '
                                 'so: a restore of that undoes this one; where it fails nothing '
                                 'is restored')
        return parser

    def take_action(self, args):
        from hotsnap_nova.cmd import interrupts, progress
        with (self.app.open_services() as services, interrupts.Interrupts() as wish,
              progress.open_progress(self.app.stderr, base.is_quiet(self.app)) as bars):
            snapshots = services.open()
            warnings = snapshots.restore(
                args.snapshot, args.paused, bars.watch, is_unwanted=lambda: wish.come,
                drop_internal_snapshots=args.drop_internal_snapshots,
                present=args.keep_present and self._present(args, snapshots))
        self.app.warn(warnings)

    def _present(self, args, snapshots):
        found = snapshots.get(args.snapshot)
        return create.as_configured(
            self.app.conf, args.keep_present, [each.member_id for each in found.members],
            group_id=found.group_id, group_name=found.group_name)


class Export(base.OfOne, base.Lister):
    """Make files for plain ``virsh restore --xml``: disks, memory and a domain XML a member.

    They go to a folder that is made for them, and share nothing with the snapshot. Of one that
    Nova made, say its id: each host exports what its own store keeps.
    """

    examples = """\
  hotsnap snapshot export nightly /srv/export
  virsh restore /srv/export/web.save --xml /srv/export/web.xml
"""

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        parser.add_argument('folder', metavar='FOLDER', help='a new folder for the files')
        return parser

    def take_action(self, args):
        with self.app.open_services() as services:
            found = services.export(args.snapshot, os.path.abspath(args.folder))
        return ('Member', 'File', 'Path'), [
            (member, kind, path) for member, paths in sorted(found.items())
            for kind, path in sorted(paths.items())]


class Delete(base.Command):
    """Delete snapshots; one that cannot be deleted keeps no other from it."""

    examples = '  hotsnap snapshot delete nightly\n  hotsnap snapshot delete one two three\n'

    def get_parser(self, prog_name):
        parser = super().get_parser(prog_name)
        parser.add_argument('snapshot', metavar='SNAPSHOT', nargs='+', help='name or id')
        return parser

    def take_action(self, args):
        with self.app.open_services() as services:
            snapshots = services.open()
            failed = 0
            for name in args.snapshot:
                try:
                    snapshots.delete(name)
                except exception.HotsnapError as exc:
                    failed += 1
                    self.app.complain(exc)
        return base.FAILED if failed else 0


class Abort(base.OfOne, base.Command):
    """Give up a snapshot that is being made, or a restore until its members run.

    Of the one nothing stays, the other is undone.
    """

    examples = '  hotsnap snapshot abort nightly\n'

    def take_action(self, args):
        with self.app.open_services() as services:
            snapshots = services.open()
            snapshots.abort(args.snapshot, 'the user')
            snapshots.wait_until_over(args.snapshot)


def is_machine(args) -> bool:
    """Whether the output is for programs, which want nested values as they are."""
    return args.formatter in ('json', 'yaml')
