# SPDX-License-Identifier: Apache-2.0
"""The wire between the compute hosts.

The services are on the machine's own loopback, so that any client reaches them
without entering a namespace, and so must be what Nova plugs guests into. The
bridge that joins the hosts' links is in a network namespace of its own, held by
a process of the cloud: with the process go the namespace, the bridge, the ends
of the links in it, and thereby the other ends and whatever stands on them.
"""

import pathlib

from tests.cloud.services import Cloud

# Process 1 is the supervisor, in the machine's own network.
_WIRE = '''
set -e
ip link add wire type bridge mcast_snooping 0
ip link set wire up
for host in "$@"; do
    ip link add "$host" type veth peer name "$host" netns 1
    ip link set "$host" master wire up
done
exec sleep infinity
'''
# What Neutron's macvtap agent would do: by itself a macvtap passes no multicast, and without
# that there are no IPv6 neighbours.
_MULTICAST = '''
ip -oneline monitor link | while read -r _ name flags _; do
    case $name$flags in
        *ALLMULTI*) ;;
        macvtap*@"$1":* | macvtap*@"$2":*) ip link set "${name%%@*}" allmulticast on || true ;;
    esac
done
'''


def start(cloud: Cloud) -> None:
    """A link for each host, named like it, up."""
    hosts = cloud.settings.hosts
    cloud.processes.start('wire', 'unshare', '--net', '--', 'sh', '-c', _WIRE, 'wire', *hosts)
    for host in hosts:
        cloud.processes.wait('wire', f'no link {host}', lambda host=host: _is_there(host))
        cloud.processes.run(f'wire-{host}', 'ip', 'link', 'set', host, 'addrgenmode', 'none', 'up')
    cloud.processes.start('wire-multicast', 'sh', '-c', _MULTICAST, 'wire-multicast', *hosts)


def unplug(cloud: Cloud, host: str) -> None:
    """Take away the guests' devices of a host that has lost its power."""
    for taps in pathlib.Path('/sys/class/net', host).glob('upper_macvtap*'):
        cloud.processes.run(f'unplug-{host}', 'ip', 'link', 'delete',
                            taps.name.removeprefix('upper_'))


def leftovers(cloud: Cloud) -> list[str]:
    """Links of the cloud that are still there."""
    return [host for host in cloud.settings.hosts if _is_there(host)]


def _is_there(link: str) -> bool:
    return pathlib.Path('/sys/class/net', link).exists()
