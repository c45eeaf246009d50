# SPDX-License-Identifier: Apache-2.0
"""What python-openstackclient asks of a plug-in."""

from osc_lib import utils

from hotsnap_nova import client

API_NAME = 'hotsnap'
API_VERSION_OPTION = 'os_hotsnap_api_version'
DEFAULT_API_VERSION = '1'
API_VERSIONS = ('1',)


def make_client(instance) -> client.Client:
    """``client_manager.hotsnap`` of the commands."""
    return client.Client(instance.sdk_connection.compute)


def build_option_parser(parser):
    """Add our global options."""
    parser.add_argument(
        '--os-hotsnap-api-version', metavar='<hotsnap-api-version>',
        default=utils.env('OS_HOTSNAP_API_VERSION', default=DEFAULT_API_VERSION),
        help='Version of the API for snapshots of server groups, default '
             f'{DEFAULT_API_VERSION} (Env: OS_HOTSNAP_API_VERSION)')
    return parser
