# SPDX-License-Identifier: Apache-2.0
"""Arguments that several commands have, and what they name."""

from openstack import exceptions
from osc_lib.cli import parseractions

from hotsnap_nova.client import rest

#: 'none' is for experiments and no user's.
GATES = ('auto', 'hold', 'barrier', 'marker')


def add_snapshot(parser) -> None:
    parser.add_argument('snapshot', metavar='<snapshot>', help='Snapshot (name or ID)')


def add_group(parser) -> None:
    parser.add_argument('group', metavar='<server-group>', help='Server group (name or ID)')


def add_gate(parser) -> None:
    parser.add_argument(
        '--gate', metavar='<gate>', choices=GATES,
        help='What keeps packets sent after a cut from members before theirs: '
             f'{", ".join(GATES)} (default: auto, the best that all members can do)')
    parser.add_argument(
        '--disk', metavar='<mode>', choices=('backup',),
        help='How disks are frozen: backup, the only mode there is yet')


def add_property(parser) -> None:
    parser.add_argument(
        '--property', metavar='<key=value>', action=parseractions.KeyValueAction,
        dest='properties', help='Set a property of the snapshot (repeat option for several)')


def add_wait(parser, what: str) -> None:
    parser.add_argument('--wait', action='store_true', help=f'Wait until {what}')


def group_id(manager, name_or_id: str, deleted: bool = False) -> str:
    """The id of a server group.

    :param deleted: whether it may be the id of a group that is no more
    :raises NotFoundException, DuplicateResource: openstacksdk's
    """
    compute = manager.sdk_connection.compute
    found = compute.find_server_group(name_or_id, ignore_missing=True)
    if found:
        return found.id
    if deleted and rest.is_id(name_or_id):
        return name_or_id
    raise exceptions.NotFoundException(f'No server group found for {name_or_id}')
